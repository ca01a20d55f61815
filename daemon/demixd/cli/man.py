"""Man pages of all commands, from the text that `--help` shows: demixd.1, demixd-status.1, demixd-models-fetch.1, ...

    python -m demixd.cli.man FOLDER     bring the pages in FOLDER up to date, and print the path of each that has changed

click-man, which makes pages of click's commands too, escapes nothing but hyphens: roff takes a line of text that begins with
a quote for a request, and swallows it. These pages have no date: the same commands make the same pages.
"""

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from demixd.cli.app import commands
from demixd.version import __version__

ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", '"': r"\(dq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
"""Characters that roff obeys, or shows as others that no shell takes."""


def pages() -> dict[str, str]:
    """The pages by the names of their files."""
    return {f"{_name(context)}.1": page(context) for context in _contexts(commands, "demixd", None)}


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """A context of the command, as if it had been called, and of each below it."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    for each, below in _commands(context):
        yield from _contexts(below, each, context)


def _commands(context: click.Context) -> list[tuple[str, click.Command]]:
    return sorted(context.command.commands.items()) if isinstance(context.command, click.Group) else []


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def page(context: click.Context) -> str:
    """The page of one command."""
    command, name = context.command, _name(context)
    short = _short(command)
    lines = [
        rf'.TH {_roff(name.upper())} 1 "" "demixd {__version__}" "demixd"',
        ".nh",  # no word is hyphenated: some are to be typed
        *(".SH NAME", rf"{_roff(name)} \- {_roff(short[:1].lower() + short[1:])}"),
        *(".SH SYNOPSIS", rf".B {_roff(context.command_path)}", *map(_roff, command.collect_usage_pieces(context))),
        *(".SH DESCRIPTION", *_text(command.help or "")),
        ".SH OPTIONS",
    ]
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            lines += [".TP", _switches(record[0]), *_text(record[1])]
    if below := _commands(context):
        lines += [".SH COMMANDS"]
        for each, other in below:
            lines += [".TP", rf".BR {_roff(f'{name}-{each}')} (1)", _roff(f"{_short(other)}.")]
    if context.parent is not None:
        lines += [".SH SEE ALSO", rf".BR {_roff(_name(context.parent))} (1)"]
    return "\n".join(lines) + "\n"


def _short(command: click.Command) -> str:
    """What a command does, in one sentence without a full stop."""
    return command.get_short_help_str(limit=sys.maxsize).rstrip(".")


def _text(text: str) -> list[str]:
    """Paragraphs, with an empty line between two of them, as lines of roff."""
    return [_roff(line) or ".PP" for line in cleandoc(text).splitlines()]


def _switches(text: str) -> str:
    """`-h, --help` or `--set KEY=VALUE`, with the options in bold and what they take in italics."""
    return re.sub(r"[^\s,]+", lambda word: rf"\f{'B' if word[0].startswith('-') else 'I'}{_roff(word[0])}\fR", text)


def _roff(line: str) -> str:
    """A line of text as roff shows it: what it would obey is escaped, also a dot at the beginning."""
    escaped = "".join(ESCAPES.get(character, character) for character in line)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def bring_up_to_date(folder: Path) -> Iterator[Path]:
    """Write each page that is another than that in `folder`, and remove those of commands that are gone. Yields their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / name: text.encode() for name, text in pages().items()}
    for path, data in wanted.items():
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
            path.chmod(0o644)
            yield path
    for path in sorted({*folder.glob("demixd-*.1")} - {*wanted}):
        path.unlink()
        yield path


if __name__ == "__main__":
    for changed in bring_up_to_date(Path(sys.argv[1])):
        sys.stdout.write(f"{changed}\n")
