"""What the daemon tells systemd (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Without systemd, nothing happens.

systemd-python says it where it is installed. It has to be compiled, so where it is not, the datagram that sd_notify(3)
documents is sent from here.
"""

import os
import socket
from importlib import import_module
from types import ModuleType


def _library() -> ModuleType | None:
    try:
        # `import systemd` alone proves nothing: a folder of that name passes for a package.
        return import_module("systemd.daemon")
    except ImportError:
        return None


_systemd = _library()


def send(*lines: str) -> None:
    """Tell systemd, for instance `send("READY=1", "STATUS=warm")`."""
    text = "\n".join(lines)
    if _systemd is not None:
        _systemd.notify(text)
        return
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.sendto(text.encode(), address)


def watchdog_s() -> float | None:
    """How often at least systemd wants to hear `WATCHDOG=1`, in seconds; None where it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 / 2 if microseconds.isdigit() and mine else None
