"""The worker: `python -m demixd.worker` reads orders from standard input and answers on standard output, a line each.

    {"type": "warm", "model": "demo", "device": "auto", "models": "/tmp", "repo": null, "allow_pickle": false}

It ends with its input, and with its parent.
"""

import logging
import signal
import sys

from demixd.spool.child_process import end_with_parent
from demixd.worker.channel import Channel
from demixd.worker.session import serve


def main() -> None:
    if not end_with_parent():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both; the supervisor decides.
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    serve(Channel())


if __name__ == "__main__":
    main()
