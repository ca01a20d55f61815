"""`demixd` as tests start it: `launch.py [--fake] [--set MODULE:NAME VALUE]... [--at POINT ACTION]... -- ARGUMENTS OF DEMIXD`.

`--fake` gives it tests/support/fake_worker.py for a worker. `--set` gives a constant of the code another value (JSON). `--at`
makes something happen at a trace point (once for each, also across restarts: a file beside the configuration remembers):

    kill              the daemon dies by SIGKILL
    second:NAME       another daemon is started, with the configuration NAME; its exit status and words go to `refused`
    ...               and the words of tests/support/actions.py

A file `plan` beside the configuration, one line of a point and its actions, does the same while the daemon runs: when
it happens the plan is taken away, so that one daemon can go through many of them.

On SIGUSR1 the threads end, as by an exception, whose class is named in the file `end-thread` beside the configuration.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from actions import act as act_on
from demixd.__main__ import main
from demixd.spool.child_process import ONE_THREAD
from demixd.supervisor import trace
from demixd.supervisor.workers import process


def act(action: str, folder: Path) -> None:
    verb, _, name = action.partition(":")
    match verb:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "second":
            start_second(folder, name)
        case _ if not act_on(action, folder):
            raise SystemExit(f"launch.py: what is {action}?")


def start_second(folder: Path, name: str) -> None:
    program = [sys.executable, "-m", "demixd", "--config", str(folder / name), "run"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    (folder / "refused").write_text(f"{done.returncode} {done.stdout}{done.stderr}")


def change(module: str, name: str, value: Any) -> None:
    """Give a constant, which must be there, another value of its own type."""
    there = import_module(module)
    setattr(there, name, type(getattr(there, name))(value))


def parse(words: list[str]) -> dict[str, list[str]]:
    """The actions at each point; takes its own words off the front."""
    at: dict[str, list[str]] = {}
    while (word := words.pop(0)) != "--":
        if word == "--fake":
            process.PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]
            os.environ |= ONE_THREAD  # numpy is loaded in half the time, by hundreds of workers
        elif word == "--set":
            change(*words.pop(0).split(":"), json.loads(words.pop(0)))
        else:
            point, action = words.pop(0), words.pop(0)
            at.setdefault(point, []).append(action)
    return at


actions = parse(sys.argv[1:])
del sys.argv[1 : sys.argv.index("--") + 1]
folder = Path(sys.argv[sys.argv.index("--config") + 1]).parent


def planned(point: str) -> list[str]:
    """The actions of the plan, if this is its point."""
    plan = folder / "plan"
    try:
        words = plan.read_text().split()
    except OSError:
        return []  # there is none, or a test has had this very call fail
    if words[:1] != [point]:
        return []
    plan.unlink()
    return words[1:]


def hook(point: str) -> None:
    for action in planned(point):
        act(action, folder)
    for action in actions.get(point, []):
        once = folder / f"happened-{point}-{action.replace('/', '_')}"
        if not once.exists():
            once.touch()
            act(action, folder)


def end_thread(*_: object) -> None:
    """It hears of it when it wakes the next time."""
    name = (folder / "end-thread").read_text()
    for thread in threading.enumerate():
        if type(thread).__name__ == name:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    (folder / "end-thread").unlink()


signal.signal(signal.SIGUSR1, end_thread)
trace.hook = hook
main()
