"""`stemd` with something happening at a trace point: `traced.py kill:6-rename ...` or `traced.py cancel:NAME:6-rename ...`.

A file beside the configuration makes it happen once only, so that a daemon started again goes its way.
"""

import os
import signal
import sys
from pathlib import Path

from stemd import trace
from stemd.__main__ import main

action, _, point = sys.argv.pop(1).rpartition(":")
folder = Path(sys.argv[sys.argv.index("--config") + 1]).parent
once = folder / "traced"


def at(name: str) -> None:
    if name != point or once.exists():
        return
    once.touch()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "spool" / "inbox" / f"{action.partition(':')[2]}.cancel").touch()


trace.hook = at
main()
