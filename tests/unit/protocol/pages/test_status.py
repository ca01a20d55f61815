"""The page of the daemon: readable without a script, harmless whatever songs are called, and bounded."""

import base64
import hashlib
import html
import re

import pytest

from demixd.protocol.pages import status
from demixd.protocol.pages.status import Board, Line, Songs


def board(name: str = "song.wav", told: str = "done", warning: str = "") -> Board:
    return Board(
        headline="demixd 1 is ready",
        tone="",
        facts=("demo on cpu",),
        warnings=(warning,) if warning else (),
        songs=(
            Songs(title="Running", lines=(Line(name=name, told=told, fraction=0.4242),), total=1),
            Songs(title="Queue", lines=(Line(name=name, told=told, tone="waits"),), total=10_000, is_queue=True),
            Songs(title="Last results", lines=(Line(name=name, told=told, tone="failed", at="12:00"),), total=1),
        ),
        written="2026-01-01T00:00:00.000Z",
        shown_at="00:00:00, 1 January",
        every_s=5.0,
        refresh_s=5,
    )


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror='alert(1)'>\"",
    "\u202egpj\u2066.exe",
    "&lt;b&gt;",
    "a\nb",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_messages_are_harmless(text: str) -> None:
    """Whatever they are, the page has the same elements and attributes, and each name its own direction."""
    page, plain = (status.page(board(*words)).decode() for words in ((text, text, text), ("x", "x", "x")))
    values = re.compile(r'aria-label="[^"]*"|>[^<]*<')
    assert values.sub("", page) == values.sub("", plain)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page)
    shown = re.findall(r'<b dir="auto">([^<]*)</b>', page)
    expected = re.sub("[\u202a-\u202e\u2066-\u2069\n]", "\ufffd", text)
    assert [html.unescape(each) for each in shown] == [expected] * 3


def test_it_needs_no_script_and_no_network() -> None:
    """All that it says is in its elements, it is read again without a script too, and nothing in it leads elsewhere."""
    page = status.page(board(warning="Run `demixd check`.")).decode()
    body = re.sub(r"<(script|style)>.*?</\1>", "", page)
    for text in (
        "demixd 1 is ready",
        "demo on cpu",
        "<code>demixd check</code>",
        "and 9999 more",
        "As of 00:00:00, 1 January",
    ):
        assert text in body
    assert '<progress aria-label="song.wav" max="1" value="0.4242">' in body
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in body
    assert "http:" not in page and "https:" not in page and "src=" not in page


def test_the_policy_names_what_is_in_the_page() -> None:
    """Its script and style, by their hashes, are all that the page may run and load."""
    page = status.page(board()).decode()
    for kind in ("script", "style"):
        found = re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_without_songs() -> None:
    page = status.page(
        Board(**{name: getattr(board(), name) for name in Board.__struct_fields__} | {"songs": ()})
    ).decode()
    assert "No songs yet" in page and "<h2>" not in page
