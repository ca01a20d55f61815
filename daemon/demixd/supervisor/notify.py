"""What the daemon tells systemd (sd_notify(3)): READY, STATUS, WATCHDOG, RELOADING, STOPPING.

systemd-python says it. Without it, or without systemd, nothing is said, and everything else works.
"""

import errno
import logging
import os
import time
from functools import cache
from importlib import import_module
from types import ModuleType

from demixd.protocol.terminal import safe

log = logging.getLogger(__name__)


@cache
def _library() -> ModuleType | None:
    try:
        # `import systemd` alone proves nothing: a folder of that name passes for a package.
        return import_module("systemd.daemon")
    except ImportError:
        log.warning(
            "NOTIFY_SOCKET is ignored: systemd-python is not installed, so systemd is not told how things are "
            "(a unit for this daemon needs Type=exec then)"
        )
        return None


def send(*lines: str) -> None:
    """Tell systemd, for instance `send("READY=1", "STATUS=warm")`."""
    if not os.environ.get("NOTIFY_SOCKET") or (library := _library()) is None:
        return
    try:
        library.notify("\n".join(safe(line) for line in lines))  # a song's name must not say READY=1
    except OSError as error:
        log.warning("systemd does not hear us: %s", error)


def reloading() -> None:
    """The configuration is being read again; READY=1 ends it. The time is what `Type=notify-reload` asks for."""
    send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def reason(error: OSError) -> str:
    """Why a folder cannot be used, without a full stop; where the unit may be what keeps us from writing, with the remedy."""
    return f"{error.strerror}{remedy() if error.errno == errno.EROFS else ''}"


def remedy() -> str:
    """What to do for a folder that the unit does not name, as the end of a sentence; empty where no unit limits the folders.

    $STATE_DIRECTORY tells of StateDirectory= (systemd.exec(5)), which the unit of a desktop's user, without limits, has not.
    """
    if "STATE_DIRECTORY" not in os.environ:
        return ""
    return ": run `sudo systemd/install` again, since the service may only write to the folders that its unit names"


def watchdog_s() -> float | None:
    """How often at least systemd wants to hear `WATCHDOG=1`, in seconds; None where it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 / 2 if microseconds.isdigit() and mine else None
