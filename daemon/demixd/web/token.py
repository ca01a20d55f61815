"""The token: a file that only this program's user, and root, can read. Made at the first start; gone, it is made anew.

    FOLDER/token     the secret
    FOLDER/address   where the server that has it listens, for `demixd web --token`

FOLDER is systemd's StateDirectory=, else $XDG_STATE_HOME/demixd-web, else ~/.local/state/demixd-web.
"""

import os
import re
import secrets
import socket
from pathlib import Path

from demixd.config.sections import address_of
from demixd.errors import RefusedError
from demixd.spool import nofollow, private
from demixd.spool.files import write_whole

SERVICE = Path("/var/lib/demixd-web")
"""The folder of the service that systemd/install makes."""

TOKEN, ADDRESS = "token", "address"
LONGEST = 400
"""Bytes of these files that are read."""

_TOKEN = re.compile("[A-Za-z0-9_-]{32,100}")
EVERYWHERE = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}
OUTSIDE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): nothing is sent to them."""


def folder() -> Path:
    """The folder of a server that is started here."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home or Path.home() / ".local" / "state") / "demixd-web"


def folder_to_show() -> Path:
    """The folder of the server whose link is asked for: this user's own, or the service's, which root may read.

    Raises RefusedError where there is only the service's, and this user is not root.
    """
    own = folder()
    if os.geteuid() == 0 and SERVICE.is_dir() and "STATE_DIRECTORY" not in os.environ:
        return SERVICE
    if not (own / TOKEN).exists() and SERVICE.is_dir() and own != SERVICE:
        raise RefusedError("the token is the service's, which only root may read: `sudo demixd web --token`")
    return own


def keep(folder: Path) -> str:
    """The token in `folder`, made where there is none. Raises OSError."""
    private.keep(folder)
    if found := read(folder):
        return found
    token = secrets.token_urlsafe(32)
    old = os.umask(0o177)
    try:
        write_whole(folder / TOKEN, token.encode() + b"\n", root=folder, durable=True, follow=True)
    finally:
        os.umask(old)
    return token


def read(folder: Path) -> str | None:
    """The token in `folder`; None where there is none that can be one. Raises OSError."""
    text = _read(folder / TOKEN)
    return text if text is not None and _TOKEN.fullmatch(text) else None


def write_address(folder: Path, listen: str) -> None:
    """Leave word of where the server listens. Raises OSError."""
    private.keep(folder)
    write_whole(folder / ADDRESS, listen.encode() + b"\n", root=folder, durable=False, follow=True)


def address(folder: Path, default: str) -> str:
    """Where the server of `folder` listens, or did when it last ran. Raises OSError."""
    return _read(folder / ADDRESS) or default


def _read(path: Path) -> str | None:
    try:
        with os.fdopen(nofollow.read_file(path.parent.resolve(), path.parent.resolve() / path.name), "rb") as file:
            return file.read(LONGEST).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def link(listen: str, token: str | None) -> str:
    """The address of the page, as a phone in the same network reaches it, with the token where one is needed."""
    host, port = address_of(listen)
    if (family := EVERYWHERE.get(host)) is not None:
        host = own_address(family)
    place = f"[{host}]" if ":" in host else host
    return f"http://{place}{'' if port == 80 else f':{port}'}/{f'?token={token}' if token else ''}"


def own_address(family: socket.AddressFamily) -> str:
    """This machine's address in its network, as the kernel would choose it for a packet to outside; else its name."""
    for each in (socket.AF_INET, family):
        try:
            with socket.socket(each, socket.SOCK_DGRAM) as line:
                line.connect((OUTSIDE[each], 9))  # sends nothing
                return str(line.getsockname()[0])
        except OSError:
            continue
    return socket.gethostname()
