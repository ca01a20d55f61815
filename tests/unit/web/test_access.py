"""Who may speak to the page, by a request's head."""

import pytest

pytest.importorskip("starlette", reason="config/requirements-web.lock is not installed")

from demixd.web import access

TOKEN = "a" * 43
GATE = access.Gate(token=TOKEN, names=access.names_of("nas.example.lan", ["Music.Example.org."]))
HOST = "192.168.1.7:8377"
HEAD = {"host": HOST, "origin": f"http://{HOST}", "cookie": f"other=1; {GATE.cookie}={TOKEN}"}


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "192.168.1.7:8377", "[::1]:80", "[fe80::1]", "localhost", "LOCALHOST:1"),
        *("nas.example.lan", "nas", "nas.local:8377", "nas.example.lan.local", "music.example.org", "nas.local."),
    ],
)
def test_hosts_that_are_ours(host: str) -> None:
    """An IP address, localhost, this machine's names and those of the configuration, with any port."""
    assert GATE.is_ours(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "nas.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "::1"),
        *("nas:port", "nas:8377:1", "127.0.0.1@evil.example", "evil.example/127.0.0.1", "nas.local..", "[nas]"),
    ],
)
def test_hosts_of_others(host: str) -> None:
    """Any other name is refused: whoever owns it could make browsers take his page for ours."""
    assert not GATE.is_ours(host)
    assert GATE.refusal("GET", "/app.css", HEAD | {"host": host}) is access.ANOTHER_HOST


def test_the_token() -> None:
    """Nothing but the page that asks for it is to be had without the token, or with another one."""
    assert GATE.refusal("GET", "/events", HEAD) is None
    for cookie in ("", "x", f"{GATE.cookie}=", f"{GATE.cookie}={TOKEN}a", f"demixd={TOKEN}", f"{GATE.cookie}=é"):
        for method, path in (("GET", "/"), ("GET", "/songs/1/files/a.wav"), ("GET", "/app.js"), ("POST", "/pause")):
            assert GATE.refusal(method, path, HEAD | {"cookie": cookie}) is access.NO_TOKEN
    assert GATE.refusal("GET", "/app.css", HEAD | {"cookie": ""}) is None


def test_everybody() -> None:
    """With allow = "all" no token is asked for; the rest is the same."""
    gate = access.Gate(token=None, names=frozenset())
    assert gate.refusal("POST", "/pause", HEAD | {"cookie": ""}) is None
    assert gate.refusal("POST", "/pause", HEAD | {"origin": "http://evil.example"}) is access.ANOTHER_ORIGIN
    assert not gate.opens("")


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "",
            "null",
            "http://evil.example",
            f"http://{HOST}.evil.example",
            "http://192.168.1.7",
            "http://192.168.1.7:1",
        ),
        *(f"ftp://{HOST}", HOST, f"http://{HOST}/", f"http://x@{HOST}"),
    ],
)
def test_origins_of_others(origin: str) -> None:
    """No other page, and none that has no origin, changes anything; it may read no more than the browser lets it."""
    for method in ("POST", "PUT", "DELETE"):
        assert GATE.refusal(method, "/pause", HEAD | {"origin": origin}) is access.ANOTHER_ORIGIN
    assert GATE.refusal("GET", "/songs", HEAD | {"origin": origin}) is None


def test_an_origin_by_https() -> None:
    """Where something in front of us speaks https, the page's origin does too; a port that is the scheme's own is not said."""
    assert access.is_same_origin("https://nas.local", "nas.local")
    assert access.is_same_origin("http://nas.local", "nas.local:80")
    assert access.is_same_origin("http://[::1]:8377", "[::1]:8377")
    assert not access.is_same_origin("https://nas.local", "nas.local:80")


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "CONNECT", "post", ""])
def test_methods(method: str) -> None:
    """There are five methods."""
    assert GATE.refusal(method, "/", HEAD) is access.BAD_METHOD


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"",
            b"songs",
            b"http://a/",
            b"/..",
            b"/a/../b",
            b"/a/%2e%2e/b",
            b"/a/%2E%2e",
            b"/./a",
            b"//a",
            b"/a//b",
            b"/a/",
        ),
        *(b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a\\b", b"/a%00b", b"/%ff", b"/%c3%28", b"/a%252f/..", b"*"),
    ],
)
def test_paths_that_are_none(path: bytes) -> None:
    """A path with `..`, an encoded slash, a backslash, a NUL, an empty part, or bytes that are no UTF-8 is refused."""
    assert access.parts_of(path) is None


def test_paths() -> None:
    """A path is taken apart first and decoded then, once."""
    assert access.parts_of(b"/") == [""]
    assert access.parts_of(b"/inbox/a%20b/%F0%9F%8E%B5.flac") == ["inbox", "a b", "🎵.flac"]
    assert access.parts_of(b"/a%252fb") == ["a%2fb"]
    assert access.parts_of(b"/...Baby.flac") == ["...Baby.flac"]
    assert access.parts_of(b"/100%25.flac") == ["100%.flac"]


def test_the_policy() -> None:
    """Nothing comes from other hosts, nothing in the page's text is run, and no other page frames it."""
    policy = dict(each.split(" ", 1) for each in access.HEADERS["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize("other", ['prefs={"a":1}', "theme=dark mode", 'x="unclosed', "a[b]=1", "a", "ä=ö", "=", ""])
def test_cookies_of_others(other: str) -> None:
    """Browsers send the cookies of all programs of a host, whatever is in them: ours is found before and behind them."""
    for cookies in (f"{other}; {GATE.cookie}={TOKEN}", f"{GATE.cookie}={TOKEN}; {other}"):
        assert GATE.refusal("GET", "/", HEAD | {"cookie": cookies}) is None


def test_the_cookie() -> None:
    """No script reads it, no other site has it sent, and two servers on one host do not overwrite each other's."""
    assert "HttpOnly" in GATE.set_cookie and "SameSite=Strict" in GATE.set_cookie
    assert GATE.cookie != access.Gate(token="b" * 43, names=frozenset()).cookie
