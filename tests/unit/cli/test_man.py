"""Man pages of all commands, and their installation into a folder."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from demixd.cli import man
from demixd.cli.app import commands

PAGES = man.pages()


def commands_by_page(command: click.Command, name: str) -> dict[str, click.Command]:
    """All commands there are, by the name of their page, as click knows them."""
    found = {f"{name}.1": command}
    for each, below in command.commands.items() if isinstance(command, click.Group) else ():
        found |= commands_by_page(below, f"{name}-{each}")
    return found


COMMANDS = commands_by_page(commands, "demixd")


def shown(page: str) -> str:
    """What a reader sees, on lines of 80 columns, without bold letters."""
    command = ["groff", "-man", "-Tascii", "-ww", "-P-cbou", "-rHY=0"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


needs_groff = pytest.mark.skipif(not shutil.which("groff"), reason="no groff: apt-get install groff-base")


def test_each_command_has_a_page() -> None:
    assert set(PAGES) == set(COMMANDS)
    assert {"demixd.1", "demixd-pause.1", "demixd-models-fetch.1"} <= set(PAGES)


@needs_groff
@pytest.mark.parametrize("name", COMMANDS)
def test_a_page(name: str) -> None:
    """groff has no warning, and a page has its command's help: the sentences, and every option with what it is for."""
    page, command = shown(PAGES[name]), COMMANDS[name]
    words = " ".join(page.split())
    assert " ".join((command.help or "").split()) in words
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert options
    for option in options:
        assert all(f"{each}" in words for each in option.opts)
        assert " ".join((option.help or "").split()) in words
    assert "-h, --help Show this message and exit." in words
    assert max(map(len, page.splitlines())) <= 80


@needs_groff
def test_text_that_roff_would_obey() -> None:
    """Dots, quotes, backslashes and hyphens come out as they are, wherever they stand."""
    text = ".TH is\n'04*' a\n\\fBword\\fR of `-` and --now, ~/^ and \"b\"\n\n.\n'"
    command = click.Command("x", help=text, params=[click.Option(["--set"], metavar="'\\K=V'", help=".set\n\\n")])
    page = shown(man.page(click.Context(command, info_name="x")))
    assert ".TH is '04*' a \\fBword\\fR of `-` and --now, ~/^ and \"b\" . '" in " ".join(page.split())
    assert "--set '\\K=V' .set \\n" in " ".join(page.split())


def test_a_folder_is_brought_up_to_date(tmp_path: Path) -> None:
    """Only what differs is written, what no command has is removed, and pages of others stay."""
    folder = tmp_path / "man1"
    assert {path.name for path in man.bring_up_to_date(folder)} == set(PAGES)
    assert list(man.bring_up_to_date(folder)) == []
    for name in ("demixd-gone.1", "demixd.1", "other.1", "demixdx.1"):
        (folder / name).write_text("another")
    assert {path.name for path in man.bring_up_to_date(folder)} == {"demixd-gone.1", "demixd.1"}
    assert {path.name for path in folder.iterdir()} == {*PAGES, "other.1", "demixdx.1"}
    assert (folder / "demixd.1").read_text() == PAGES["demixd.1"]
