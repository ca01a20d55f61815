"""What the daemon tells systemd (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Without systemd, nothing happens.

systemd-python says it where it is installed. It has to be compiled, so where it is not, the datagram that sd_notify(3)
documents is sent from here.
"""

import logging
import os
import socket
from importlib import import_module
from types import ModuleType

from stemd.terminal import safe

log = logging.getLogger(__name__)


def _library() -> ModuleType | None:
    try:
        # `import systemd` alone proves nothing: a folder of that name passes for a package.
        return import_module("systemd.daemon")
    except ImportError:
        return None


_systemd = _library()


def send(*lines: str) -> None:
    """Tell systemd, for instance `send("READY=1", "STATUS=warm")`."""
    text = "\n".join(safe(line) for line in lines)  # a song's name must not say READY=1
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        if _systemd is not None:
            _systemd.notify(text)
        else:
            _send(text, address)
    except OSError as error:
        log.warning("systemd does not hear us: %s", error)


def _send(text: str, address: str) -> None:
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.settimeout(1.0)  # the kernel holds a few datagrams; nobody must hold the loop
        line.sendto(text.encode(), address)


def watchdog_s() -> float | None:
    """How often at least systemd wants to hear `WATCHDOG=1`, in seconds; None where it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 / 2 if microseconds.isdigit() and mine else None
