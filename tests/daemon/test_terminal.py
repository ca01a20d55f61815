"""The commands on terminals: what fits into their columns, and colours."""

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from commands import Terminal, write
from daemons import Daemon
from demixd import config as configuration
from demixd.cli.status import view
from demixd.client.reader import read_songs
from demixd.spool.tree import Spool

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d[;m]")
NAME = "A song [live] 歌 with a name that has no place in forty columns, and hardly in eighty.wav"
WIDTHS = (80, 40)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """None runs; one has left a song."""
    daemon = Daemon(tmp_path)
    write(daemon.spool / "status", "a.wav", "failed")
    return daemon


def ended(daemon: Daemon, *words: str | Path, columns: int = 80, **environment: str) -> Terminal:
    with Terminal(daemon, *words, columns=columns, **environment) as terminal:
        terminal.ends()
        return terminal


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("words", [("check",), ("models", "list"), ("status",)], ids=" ".join)
def test_lines_fit(daemon: Daemon, words: tuple[str, ...], columns: int) -> None:
    """Lines are cut at blanks, but for those in a command; only a path or command longer than a line is left to the terminal."""
    lines = ended(daemon, *words, columns=columns).lines
    assert len(lines) > 2
    for line in lines:
        assert cell_len(line) <= columns or len(re.sub("`[^`]*`", "command", line).split()) == 1, line
        assert line.count("`") % 2 == 0, line


def test_what_is_read_by_programs_is_not_cut(daemon: Daemon) -> None:
    """Without a terminal a finding, and a model, has one line, however long it is."""
    for words in (("check",), ("models", "list")):
        lines = daemon.command(*words).stdout.splitlines()
        assert all(line[:1] != " " for line in lines)
        assert max(map(len, lines)) > 90


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_bar_of_one_song(daemon: Daemon, columns: int) -> None:
    """The song's name, which is no markup, leaves room for the bar and the percentage."""
    make = daemon.make_song(daemon.folder / NAME, 0.5)
    with Terminal(daemon, "separate", make, daemon.folder / "stems", columns=columns) as terminal:
        assert terminal.ends() == 0
    lines = terminal.lines
    bars = [line for line in lines if "━" in line]
    assert all(cell_len(line) <= columns for line in bars)
    assert all(line.startswith("A song [live]") for line in bars)
    assert any(re.search(r"━ +\d+%", line) for line in bars)


@pytest.mark.parametrize("columns", WIDTHS)
def test_bars_of_many_songs(daemon: Daemon, columns: int) -> None:
    """The bars of `submit --wait` fit, whatever the songs are called, and each shows its percentage."""
    write(daemon.spool / "status", NAME, "running")
    (song,) = (each for each in read_songs(Spool(configuration.load(daemon.config))) if each.state == "running")
    rows = [view.Row(name=NAME, song=each, text="separate") for each in (song, None)]
    console = Console(file=io.StringIO(), width=columns, height=24, force_terminal=False)
    console.print(view.render_bars(rows, 24))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert all(cell_len(line) <= columns for line in lines)
    assert [re.findall(r"\d+ %", line) for line in lines] == [["50 %"], ["0 %"]]


def test_colours(daemon: Daemon) -> None:
    """A terminal has them, unless NO_COLOR is set; a file gets nothing that a terminal obeys."""
    assert COLOUR.search(ended(daemon, "status").seen.decode())
    assert not COLOUR.search(ended(daemon, "status", NO_COLOR="1").seen.decode())
    assert "\x1b" not in daemon.command("status").stdout


def test_colours_of_a_bar(daemon: Daemon) -> None:
    """NO_COLOR holds for a bar, too; without a terminal there is none."""
    song = daemon.make_song(daemon.folder / "a.wav", 0.5)
    seen = ended(daemon, "separate", song, daemon.folder / "stems", NO_COLOR="1").seen.decode()
    assert "━" in seen
    assert not COLOUR.search(seen)
    piped = daemon.command("separate", song, daemon.folder / "stems")
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "━" not in piped.stdout and "\x1b" not in piped.stdout
