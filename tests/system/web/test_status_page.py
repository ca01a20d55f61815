"""The page of the daemon, in a real browser, from a folder."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from browser import Browser, expect, faults, launched, layouts, window
from demixd.protocol.pages.status import Board, Line, Songs
from demixd.protocol.pages.status import page as written

browser = pytest.fixture(launched, scope="module")


def board(age_s: float = 0.0, *songs: Songs) -> Board:
    return Board(
        headline="demixd 1 is ready",
        tone="",
        facts=("demo on cpu, float32",),
        warnings=("The disk is nearly full: run `demixd check`.",),
        songs=songs,
        written=(datetime.now(UTC) - timedelta(seconds=age_s))
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        shown_at="12:00:00, 1 January",
        every_s=5.0,
        refresh_s=1,
    )


LONG = "Album/" + "a long name without a blank".replace(" ", "_") * 4 + ".flac"
SONGS = (
    Songs(title="Running", lines=(Line(name=LONG, told="42 % separate", fraction=0.42),), total=1),
    Songs(
        title="Queue", lines=(Line(name="\u05e9\u05d9\u05e8.wav", told="paused", tone="waits"),), total=7, is_queue=True
    ),
    Songs(title="Last results", lines=(Line(name="a.wav", told="failed: why", tone="failed", at="12:00"),), total=1),
)


@layouts
def test_accessible_at_every_size(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """axe finds no serious fault, nothing is wider than the screen, and the console has nothing to say."""
    path = tmp_path / "index.html"
    path.write_bytes(written(msgspec.structs.replace(board(0.0, *SONGS), refresh_s=60)))
    with window(browser, width, dark=dark) as page:
        page.goto(path.as_uri())
        assert faults(page) == []


def test_it_is_read_again_and_says_how_old_it_is(browser: Browser, tmp_path: Path) -> None:
    """A page that is written anew shows up by itself; one that is not any more says what that means."""
    path = tmp_path / "index.html"
    path.write_bytes(written(board(0.0, *SONGS)))
    with window(browser) as page:
        page.goto(path.as_uri())
        text = page.inner_text("body")
        assert "most likely not running" not in text and "s ago)" in text
        path.write_bytes(written(board(7200.0)))
        expect(page.locator("body")).to_contain_text("120 min ago", use_inner_text=True)
        text = page.inner_text("body")
        assert "This page is old: demixd is most likely not running." in text
        assert "No songs yet" in text
