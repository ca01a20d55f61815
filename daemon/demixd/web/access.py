"""Who may speak to the page: decided by the request's head alone. Pure.

    Host     an IP address, localhost, or a name of this machine: a name of anybody else's that leads here (DNS rebinding) would
             make his page the same origin as ours
    Origin   that of the page itself, on every request that changes something: no other page can make one
    token    in a cookie, which the link of `demixd web --token` has set; no address is trusted

The answer to whoever may not is a status and a sentence.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

import msgspec

READING = ("GET", "HEAD")
"""Methods that change nothing."""

METHODS = (*READING, "POST", "PUT", "DELETE")

YEAR_S = 31_536_000
"""How long a browser keeps the cookie."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every answer tells the browser: nothing from other hosts, and nothing of ours in other pages."""

OPEN = ("/app.css", "/icon.svg")
"""What the page that asks for the token needs; it says nothing of the songs."""

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORT = {"http": "80", "https": "443"}


class Refusal(msgspec.Struct, frozen=True):
    status: int
    sentence: str


ANOTHER_HOST = Refusal(
    421, "This page does not answer to that name: use the machine's IP address, or add the name to [web] hosts."
)
ANOTHER_ORIGIN = Refusal(403, "Another page may change nothing here.")
NO_TOKEN = Refusal(401, "Open the link that `demixd web --token` prints.")
BAD_METHOD = Refusal(405, "There is no such method here.")
BAD_PATH = Refusal(400, "That is no path of this page.")


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is None where everybody may; `names` are those of this machine."""

    token: str | None
    names: frozenset[str]

    @property
    def cookie(self) -> str:
        """The cookie's name. It tells servers of one host apart: browsers do not, by the port."""
        return f"demixd-{hashlib.sha256((self.token or '').encode()).hexdigest()[:8]}"

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why the request is refused; None where it is not."""
        host = headers.get("host", "")
        if not self.is_ours(host):
            return ANOTHER_HOST
        if method not in METHODS:
            return BAD_METHOD
        if method not in READING and not is_same_origin(headers.get("origin", ""), host):
            return ANOTHER_ORIGIN
        if path not in OPEN and not self.is_known(headers.get("cookie", "")):
            return NO_TOKEN
        return None

    def is_ours(self, host: str) -> bool:
        """Whether the Host header names this machine, with any port."""
        if (found := _HOST.fullmatch(host)) is None:
            return False
        name = (found["v6"] or found["name"]).lower().removesuffix(".")
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name in self.names

    def is_known(self, cookies: str) -> bool:
        """Whether the Cookie header has the token, where one is needed."""
        if self.token is None:
            return True
        # Taken apart by hand: other programs of this host set cookies too, and one that is odd must not hide ours.
        pairs = (each.strip().partition("=") for each in cookies.split(";"))
        return any(name == self.cookie and self.opens(value) for name, _, value in pairs)

    def opens(self, given: str) -> bool:
        """Whether this is the token; how long the answer takes does not tell how much of it is right."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    @property
    def set_cookie(self) -> str:
        """The Set-Cookie header for whoever has opened the link. No Secure: plain http is what a network at home has."""
        return f"{self.cookie}={self.token}; Path=/; Max-Age={YEAR_S}; HttpOnly; SameSite=Strict"


def names_of(machine: str, hosts: Iterable[str]) -> frozenset[str]:
    """The names by which browsers may call this machine: its own, with and without `.local`, and those configured."""
    machine = machine.lower()
    short = machine.partition(".")[0]
    own = {"localhost", machine, f"{machine}.local", short, f"{short}.local"} - {"", ".local"}
    return frozenset(own | {host.lower().removesuffix(".") for host in hosts})


def is_same_origin(origin: str, host: str) -> bool:
    """Whether the Origin header is that of the page at this host; by https where something in front of us speaks that."""
    scheme, found, place = origin.lower().partition("://")
    if not found or scheme not in _DEFAULT_PORT:
        return False
    return _placed(place, scheme) == _placed(host.lower(), scheme)


def _placed(place: str, scheme: str) -> tuple[str, str] | None:
    found = _HOST.fullmatch(place)
    return (found["v6"] or found["name"], found["port"] or _DEFAULT_PORT[scheme]) if found else None


def parts_of(raw_path: bytes) -> list[str] | None:
    """The parts of a request's path, decoded; None where one is no name of a file: with a slash or a NUL in it, or `..`.

    It is taken apart before it is decoded, so that an encoded slash is no slash, and is in no name.
    """
    if not raw_path.startswith(b"/"):
        return None
    parts = []
    for raw in raw_path[1:].split(b"/"):
        try:
            part = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
        if part in (".", "..") or any(sign in part for sign in "/\\\0"):
            return None
        parts.append(part)
    return None if "" in parts[:-1] or (len(parts) > 1 and not parts[-1]) else parts
