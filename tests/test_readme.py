"""The pages: everything that a program or a person can meet is in them, and nothing else.

That their examples work is tested in daemon/test_examples.py, that their commands do in system/test_commands_of_pages.py.
"""

import json
import re
import subprocess
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import msgspec
import pytest
import tomli
from msgspec import inspect

from daemons import ROOT
from demixd.cli.app import commands
from demixd.config import Config, check, parse
from demixd.errors import Code
from demixd.protocol import job, options, result_names, status
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import PARTS, READABLE, Kind
from demixd.protocol.options import Defaults
from demixd.supervisor import journal
from pages import CONTRIBUTING, PAGES, README, SERVICE, TEXT, TUNING, blocks, first, rows, section, words


def fields(kind: Any) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def values(kind: type[StrEnum]) -> set[str]:
    return {each.value for each in kind}


@pytest.mark.parametrize(
    ("title", "table", "kind"),
    [("States", 0, job.Reason), ("States", 1, job.Step), ("Error codes", 0, Code)],
)
def test_every_word_of_a_closed_list_is_explained(title: str, table: int, kind: type[StrEnum]) -> None:
    """Every reason, step and error code has a line with a sentence, and there is no line for another."""
    found = rows(title, table)
    assert set(first(found)) == values(kind)
    assert len(first(found)) == len(values(kind))
    assert [row for row in found if len(row[-1]) < 5] == []


def test_what_only_a_restart_takes_over_is_told() -> None:
    """Where the pages and the reference speak of SIGHUP, they name the sections of which a running daemon refuses a change."""
    for text in (TEXT[README], TEXT[TUNING], (ROOT / "config" / "demixd.toml").read_text()):
        (told,) = (each for each in re.split(r"\n(?=\n|\|)", text) if "SIGHUP" in each and "restart" in each)
        assert {"[paths]", "[ray]"} <= set(re.findall(r"\[\w+\]", told))


def test_the_configuration_for_a_first_try_counts() -> None:
    """The keys go together."""
    ((heading, text),) = blocks("toml", TUNING)
    config = check(parse(text, heading), heading)
    assert (config.ray.address, config.ray.workers, config.model.device) == ("local", 2, "cpu")


def test_every_state_is_explained() -> None:
    """The states and their transitions open the section on states."""
    assert set(words(section("States").partition("\n\n")[0] + section("States"))) >= values(job.State)
    assert section("States").strip().startswith("`waiting` -> `running` -> `done` | `failed` | `cancelled`")


def test_every_reason_of_the_inbox_is_explained() -> None:
    """Every reason in `_inbox.json` has a line, and its fields are named."""
    assert set(first(rows("What is no job"))) == values(Kind) - {Kind.SONG, Kind.CANCEL, Kind.OPTIONS}
    assert set(words(section("What is no job"))) >= {*fields(status.InboxStatus), *fields(status.InboxEntry)}


SPREAD = {"progress": job.Progress, "input": status.Input}
"""Fields of the sidecar that have a line for each of their own fields."""

INNER: dict[str, list[Any]] = {
    "options": [options.Options],
    "engine": [job.EngineFacts],
    "output": [job.Output, job.OutputFile],
    "error": [job.Error],
    "cancel": [job.Cancel],
    "previous": [job.Previous],
    "daemon": [status.DaemonFacts],
    "worker": [status.WorkerStatus],
    "running": [status.JobName],
    "watch": [status.WatchStatus],
    "process": [status.ProcessFacts],
}
"""Fields that name their own fields in their line."""


def type_word(kind: inspect.Type) -> tuple[str, bool]:
    """What the tables call a type, and whether null is one of its values."""
    if isinstance(kind, inspect.UnionType):
        (inner,) = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        return type_word(inner)[0], True
    match kind:
        case inspect.IntType() | inspect.FloatType():
            return "number", False
        case inspect.StrType() | inspect.EnumType():
            return "text", False
        case inspect.VarTupleType():
            return "list", False
    return "object", False


def holds_null(kind: Any) -> bool:
    """Whether null is an entry of lists of that type."""
    found = inspect.type_info(kind)
    return isinstance(found, inspect.VarTupleType) and type_word(found.item_type)[1]


def documented(title: str, kind: Any) -> None:
    """The table has the fields of `kind` in their order, each with its type, null where it can be, and what is in it."""
    expected: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        inner = SPREAD.get(field.name) if kind is status.Sidecar else None
        spread = msgspec.structs.fields(inner) if inner else ()
        expected |= {f"{field.name}.{each.name}": each.type for each in spread} or {field.name: field.type}
    found = rows(title)
    assert sorted(first(found), key=list(expected).index) == list(expected)
    for cells in found:
        for name in words(cells[0]):
            word, can_be_null = type_word(inspect.type_info(expected[name]))
            assert cells[1] == word, name
            if can_be_null:
                assert "null" in cells[2], name
            elif word != "object" and not holds_null(expected[name]):
                assert "null" not in cells[2], name
            needed = {each for inner in INNER.get(name, []) for each in fields(inner)}
            assert needed <= set(words(cells[2])), name


def test_every_field_of_a_sidecar_is_documented() -> None:
    """The page has every field of a sidecar, with its type and when it is null."""
    documented("The status of a song", status.Sidecar)


def test_every_field_of_the_heartbeat_is_documented() -> None:
    """The page has every field of `_daemon.json`, with its type and when it is null."""
    documented("The daemon, and whether it is alive", status.DaemonStatus)


def test_every_field_of_the_manifest_is_documented() -> None:
    """The page has every field of `stems.json` and of the files in it."""
    found = rows("stems.json")
    assert sorted(first(found)) == sorted(fields(status.Manifest))
    (files,) = [cells[2] for cells in found if words(cells[0]) == ["files"]]
    assert words(files) == fields(job.StemFile)


def test_every_option_is_documented() -> None:
    """The page has every key of an option file, in their order and with their defaults."""
    found = rows("Options")
    assert first(found) == [*fields(options.Own), *fields(Defaults)]
    plain = {**msgspec.to_builtins(Defaults()), **msgspec.to_builtins(options.Own())}
    for cells in found:
        (name,) = words(cells[0])
        if name == "model":
            assert cells[1] == "`[model] name`"
        elif name in plain:
            assert json.loads(words(cells[1])[0]) == json.loads(msgspec.json.encode(plain[name])), name
        else:
            assert cells[1] == ""
    naming_row = next(cells[2] for cells in found if cells[0] == "`naming`")
    assert set(words(naming_row)) >= {*(f"{{{field}}}" for field in result_names.FIELDS), *result_names.PRESETS}


def test_every_choice_of_an_option_is_documented() -> None:
    """Where an option is a choice, the page has all that there is to choose."""
    table = {words(cells[0])[0]: cells[1] + cells[2] for cells in rows("Options")}
    for name, facts in options.schema()["properties"].items():
        for choice in facts.get("enum", []):
            assert str(choice) in table[name].replace('"', ""), (name, choice)
        for limit in ("minimum", "maximum"):
            assert limit not in facts or f"{facts[limit]}" in table[name], (name, limit)


def test_every_format_is_named_to_newcomers() -> None:
    """README.md has the words that `format` takes, not only what people call those formats."""
    formats = set(options.schema()["properties"]["format"]["enum"])
    assert [each for each in formats - {"source"} if f"`{each}`" not in section("Running it", README)] == []


def test_every_key_of_the_configuration_is_explained() -> None:
    """Every key of `demixd.toml` has words beside it; that the file has every key with its default is a test of its own."""
    lines = (ROOT / "config" / "demixd.toml").read_text(encoding="utf-8").splitlines()
    explained = [line.split(" = ")[0] for line in lines if re.fullmatch(r"\w+ = .+?  # .{10,}", line)]
    tables = msgspec.json.decode(msgspec.json.encode(Config()))
    assert explained == [key for name, keys in tables.items() if name != "profiles" for key in keys]


def test_every_example_of_a_configuration_is_described() -> None:
    """The page for whoever tunes names every configuration that ships, with all of its profiles."""
    found = {
        words(cells[0])[0] if words(cells[0]) else cells[0]: cells for cells in rows("Three examples", page=TUNING)
    }
    told = {re.match(r"\[(\S+)\]", name)[1]: words(cells[2]) for name, cells in found.items()}  # type: ignore[index]
    shipped = {path.name: path for path in (ROOT / "config").glob("*.toml") if path.name != "demixd.toml"}
    assert told.keys() == shipped.keys()
    for name, path in shipped.items():
        assert set(tomli.loads(path.read_text(encoding="utf-8"))["profiles"]) <= set(told[name]), name


def test_names_are_documented() -> None:
    """The page has the extensions of songs, and those by which other programs mark what is not complete."""
    songs, ignored = (row[1] for row in rows("Names")[:2])
    assert {word.removeprefix(".") for word in words(songs)} == READABLE
    assert {f".{part}" for part in PARTS} <= {word.lower() for word in words(ignored)}


def test_every_statement_of_the_contract_is_there() -> None:
    """The page's guarantees are (a) to (h)."""
    assert [row[0] for row in rows("What you may rely on")] == [f"({letter})" for letter in "abcdefgh"]


def find(line: list[str]) -> click.Command:
    """The command that the words of a line name."""
    command: click.Command = commands
    for word in line:
        if isinstance(command, click.Group) and word.isalpha():
            assert word in command.commands, line
            command = command.commands[word]
    return command


def test_every_command_exists() -> None:
    """Every command that the pages show is one, and every path is there."""
    text = "\n".join(TEXT.values())
    inline = re.findall(r"`[^`\n]+`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    code = "\n".join([*inline, *(block for page in PAGES for _, block in blocks("sh", page))])
    shown = re.findall(r"(?<!-u )demixd ((?:--config \S+ )?[a-z]+(?: [a-z]+\b)?)", code)
    assert len(shown) > 8
    for line in shown:
        assert find(re.sub(r"--config \S+ ", "", line).split()) is not commands, line
    for path in re.findall(r"(?<![/\w.(])(?:daemon|tests|config|systemd)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path


def test_every_command_is_explained() -> None:
    """README.md has all commands, and the flags that it shows are theirs."""
    for cells in rows("Commands", page=README):
        command = find(words(cells[0])[0].split()[1:])
        if isinstance(command, click.Group):
            assert {each.split()[0] for each in words(cells[0])[1:]} | {words(cells[0])[0].split()[-1]} == set(
                command.commands
            )
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", cells[0] + cells[1])) <= flags, cells[0]
    assert {words(cells[0])[0].split()[1] for cells in rows("Commands", page=README)} == set(commands.commands)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """A link within the project leads to a file, and to a heading in it."""
    for link in re.findall(r"\]\((?!https:)([^)]+)\)", TEXT[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_where_is_what() -> None:
    """Every file and folder that contributors are sent to is there."""
    named = re.findall(r"`([\w/]+\.py)`", section("Where is what", CONTRIBUTING))
    assert len(named) > 15
    assert [path for path in named if not any((ROOT / part / path).exists() for part in ("daemon/demixd", "."))] == []
    folders = first(rows("Contributing", page=CONTRIBUTING))
    assert [name for name in folders if not (ROOT / "tests" / name).is_dir()] == []


def test_the_picture_is_one() -> None:
    """README.md shows an SVG that parses, is no wider than a page of GitHub, and refers to nothing outside itself."""
    (link,) = re.findall(r"!\[.+?\]\((.+?)\)", TEXT[README])
    picture = ElementTree.parse(ROOT / link).getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert int(picture.attrib["width"]) <= 900
    text = (ROOT / link).read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)|href|<image|<script|@import", text) == []


# What administrators type and search for.


def test_every_flag_of_the_installer_is_one() -> None:
    """The installer knows every flag that the pages give to it."""
    usage = subprocess.run([ROOT / "systemd" / "install", "--help"], capture_output=True, text=True, check=True).stdout
    for page in PAGES:
        for line in re.findall(r"systemd/install(?: .*)?", TEXT[page]):
            assert set(re.findall(r"--[a-z-]+", re.split("[`#]", line)[0])) <= {
                *re.findall(r"--[a-z-]+", usage),
                "--help",
            }


def test_every_kind_of_entry_in_the_journal_is_there() -> None:
    """Administrators search for these numbers and fields; they are the code's."""
    assert first(rows("The journal", page=SERVICE)) == [kind.value for kind in journal.Kind]
    failed = job.Job(
        job_id="1",
        raw_name=b"Song.flac",
        identity=Identity(**dict.fromkeys((field.name for field in msgspec.structs.fields(Identity)), 0)),
        options=Config().options,
        max_attempts=3,
        state=job.State.FAILED,
        step=job.Step.DECODE,
        error=job.Error(code=Code.BAD_AUDIO, message=""),
    )
    known = journal.about(failed, device="cpu")
    told = section("The journal", SERVICE)
    assert set(words(told.partition("```")[0])) == known.keys() - {"MESSAGE_ID"}
    for field, value in re.findall(r"\b([A-Z_]+)=(\S+)", told):
        assert known[field] == value, field
