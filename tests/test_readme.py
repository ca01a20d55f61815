"""README.md: everything that a program can meet is in it, and its two clients work as they are written."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import soundfile
import tomli
from msgspec import inspect

from daemons import CLIENT_BEAT_S, PATIENCE_S, ROOT, Daemon, make_song, running
from demixd.cli.app import commands
from demixd.config import Config
from demixd.errors import Code
from demixd.protocol import job, options, result_names, status
from demixd.protocol.inbox_names import PARTS, READABLE, Kind
from demixd.protocol.options import Defaults

README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one of any kind."""
    return re.split(r"^##+ ", README.split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str, table: int = 0) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)[table].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def first(table: list[list[str]]) -> list[str]:
    """Everything named in the first column."""
    return [word for row in table for word in words(row[0])]


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
            elif word != "object":
                assert "null" not in cells[2], name
            needed = {each for inner in INNER.get(name, []) for each in fields(inner)}
            assert needed <= set(words(cells[2])), name


def test_every_field_of_a_sidecar_is_documented() -> None:
    """The README has every field of a sidecar, with its type and when it is null."""
    documented("The status of a song", status.Sidecar)


def test_every_field_of_the_heartbeat_is_documented() -> None:
    """The README has every field of `_daemon.json`, with its type and when it is null."""
    documented("The daemon, and whether it is alive", status.DaemonStatus)


def test_every_field_of_the_manifest_is_documented() -> None:
    """The README has every field of `stems.json` and of the files in it."""
    found = rows("stems.json")
    assert sorted(first(found)) == sorted(fields(status.Manifest))
    (files,) = [cells[2] for cells in found if words(cells[0]) == ["files"]]
    assert words(files) == fields(job.StemFile)


def test_every_option_is_documented() -> None:
    """The README has every key of an option file, in their order and with their defaults."""
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
    """Where an option is a choice, the README has all that there is to choose."""
    table = {words(cells[0])[0]: cells[1] + cells[2] for cells in rows("Options")}
    for name, facts in options.schema()["properties"].items():
        for choice in facts.get("enum", []):
            assert str(choice) in table[name].replace('"', ""), (name, choice)
        for limit in ("minimum", "maximum"):
            assert limit not in facts or f"{facts[limit]}" in table[name], (name, limit)


def test_every_key_of_the_configuration_is_documented() -> None:
    """The README has every key of the configuration with its default; `[defaults]` are among the options."""
    plain = msgspec.json.decode(msgspec.json.encode(Config()))
    table = ""
    found: dict[str, dict[str, Any]] = {}
    for cells in rows("Configuration"):
        for word in words(cells[0]):
            table, key = word[1:].split("] ") if word.startswith("[") else (table, word)
            found.setdefault(table, {})[key] = tomli.loads(f"x = {words(cells[1])[0]}")["x"]
    assert found == {name: keys for name, keys in plain.items() if name not in ("defaults", "profiles")}


def test_names_are_documented() -> None:
    """The README has the extensions of songs, and those by which other programs mark what is not complete."""
    songs, ignored = (row[1] for row in rows("Names")[:2])
    assert {word.removeprefix(".") for word in words(songs)} == READABLE
    assert {f".{part}" for part in PARTS} <= {word.lower() for word in words(ignored)}


def test_every_statement_of_the_contract_is_there() -> None:
    """The README's guarantees are (a) to (h)."""
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
    """Every command and flag that the README shows is one."""
    code = "\n".join(re.findall(r"`[^`]+`|```sh.*?```", README, re.DOTALL))
    shown = re.findall(r"(?<!-u )demixd ((?:--config \S+ )?[a-z]+(?: [a-z]+\b)?)", code)
    assert len(shown) > 8
    for line in shown:
        assert find(re.sub(r"--config \S+ ", "", line).split()) is not commands, line
    for cells in rows("Commands"):
        command = find(words(cells[0])[0].split()[1:])
        if isinstance(command, click.Group):
            assert {each.split()[0] for each in words(cells[0])[1:]} | {words(cells[0])[0].split()[-1]} == set(
                command.commands
            )
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", cells[0] + cells[1])) <= flags, cells[0]
    assert {words(cells[0])[0].split()[1] for cells in rows("Commands")} == set(commands.commands)
    for path in re.findall(r"(?<![/\w.])(?:daemon|tests|config|systemd)/[\w./-]+\w", README):
        assert (ROOT / path).exists(), path


# The two clients, as written.


def block(language: str) -> str:
    """The client in one of the README's code blocks."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (found,) = [each for each in blocks if "client." in each.partition("\n")[0]]
    return str(found)


TOOLS = ("sh", "grep", "sed", "head", "cp", "mv", "touch", "sleep", "mkdir", "sha256sum")
"""The programs that the shell's client may use: coreutils, grep and sed."""


class Client:
    """One of the two; `start` it as a user would."""

    def __init__(self, language: str, folder: Path) -> None:
        self.path = folder / f"client.{language}"
        self.path.write_text(block(language), encoding="utf-8")
        self.env = {**os.environ}
        self.words = [sys.executable, str(self.path)]
        if language == "sh":
            tools = folder / "tools"
            tools.mkdir()
            for tool in TOOLS:
                (tools / tool).symlink_to(str(shutil.which(tool)))
            self.env = {"PATH": str(tools)}
            self.words = [str(tools / "sh"), str(self.path)]

    def start(self, *words: Path | str) -> subprocess.Popen[str]:
        """As on a terminal: where the tests themselves run in the background, Ctrl-C is ignored, and children inherit that."""
        return subprocess.Popen(
            [*self.words, *map(str, words)],
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: Path | str) -> tuple[int, str]:
        return ended(self.start(*words))


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and all that it has said."""
    try:
        said, _ = run.communicate(timeout=PATIENCE_S)
    finally:
        run.kill()
    return run.returncode, said


@pytest.fixture(params=["python", "sh"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    return Client(request.param, tmp_path)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("readme"), fake=True, status={"heartbeat_s": CLIENT_BEAT_S}) as one:
        yield one


def song(folder: Path, name: str, client: Client) -> Path:
    """A song with a name that is this client's own."""
    return make_song(folder / f"{client.path.suffix[1:]} {name}", 0.5)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_a_client_is_short(language: str) -> None:
    """Each client has under 40 lines that fit on a screen."""
    lines = block(language).splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 125


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck: apt-get install shellcheck")
def test_the_shell_client_is_checked(tmp_path: Path) -> None:
    """shellcheck has nothing to say about the client in plain sh."""
    client = Client("sh", tmp_path)
    done = subprocess.run(["shellcheck", "-s", "sh", client.path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_client_drops_and_collects(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """A client drops a song with options, waits for it whatever an older drop of that name became, and has its stems."""
    one = song(tmp_path, "a song, {mine}.wav", client)
    (daemon.inbox / one.name).write_bytes(b"RIFF, but no audio at all")
    assert daemon.final(one.name)["state"] == "failed"
    daemon.until(lambda: not (daemon.inbox / one.name).exists(), "the older drop is put away")
    stems = tmp_path / "stems"
    wish = '{"format": "flac", "stems": ["drums", "no_drums"], "naming": "by stem/{stem}.{ext}", "tag": "x\\"state\\":\\"done"}'
    code, said = client.run(daemon.spool, one, stems, 600, wish)
    assert (code, said) == (0, "")
    assert {path.name for path in stems.rglob("*") if path.is_file()} == {"drums.flac", "no_drums.flac", "stems.json"}
    assert soundfile.info(str(stems / "by stem" / "drums.flac")).frames == soundfile.info(str(one)).frames
    assert daemon.song(one.name)["tag"] == 'x"state":"done'


def test_a_client_cancels_after_its_time(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """A client whose time is over cancels its song, says so, and has no stems."""
    one = song(tmp_path, "late.wav", client)
    daemon.hold.touch()
    try:
        code, said = client.run(daemon.spool, one, tmp_path / "stems", 2, "{}")
    finally:
        daemon.hold.unlink()
    assert code == 1
    assert said.startswith("cancelled")
    assert daemon.song(one.name)["cancel"]["result"] == "cancelled"
    assert not (tmp_path / "stems").exists()


def test_a_client_cancels_on_ctrl_c(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """Ctrl-C cancels the song that a client has dropped."""
    one = song(tmp_path, "stopped.wav", client)
    daemon.hold.touch()
    try:
        run = client.start(daemon.spool, one, tmp_path / "stems", 600, "{}")
        daemon.until(lambda: daemon.song(one.name).get("step") == "separate", "it runs")
        run.send_signal(signal.SIGINT)
        code, said = ended(run)
    finally:
        daemon.hold.unlink()
    assert code == 1
    assert said.startswith("cancelled")
    assert daemon.song(one.name)["state"] == "cancelled"


def test_a_client_tells_why_a_song_failed(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """A client whose song fails ends with 1 and says what was wrong."""
    one = song(tmp_path, "wrong.wav", client)
    code, said = client.run(daemon.spool, one, tmp_path / "stems", 600, '{"format": "aiff"}')
    assert code == 1
    assert said.startswith("failed: ")
    assert "bad-options" in said or 'format = "aiff"' in said
    assert (daemon.spool / "failed" / one.name).exists()


def test_a_client_notices_a_daemon_that_is_not_running(client: Client, tmp_path: Path) -> None:
    """Where `seq` does not grow a client says that the daemon is not running; the song waits in the inbox."""
    for part in ("inbox", "status"):
        (tmp_path / "spool" / part).mkdir(parents=True)
    (tmp_path / "spool" / "status" / "_daemon.json").write_text('{"schema":1,"seq":4294967297,"interval_s":0.5}\n')
    one = song(tmp_path, "alone.wav", client)
    code, said = client.run(tmp_path / "spool", one, tmp_path / "stems", 600, "{}")
    assert code == 1
    assert said.startswith("The daemon is not running")
    assert (tmp_path / "spool" / "inbox" / one.name).read_bytes() == one.read_bytes()
    assert (tmp_path / "spool" / "inbox" / f"{one.name}.job.json").read_text() == "{}"


def soon(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)


def test_a_client_checks_what_it_has_collected(client: Client, tmp_path: Path) -> None:
    """A stem that is not what the manifest says is an error."""
    spool = tmp_path / "spool"
    for part in ("inbox", "status", "outbox/Song"):
        (spool / part).mkdir(parents=True)
    one = song(tmp_path, "Song.wav", client)
    (spool / "outbox" / "Song" / "vocals.wav").write_bytes(b"something else")
    file = {"stem": "vocals", "name": "vocals.wav", "bytes": 4, "sha256": hashlib.sha256(b"this").hexdigest()}
    (spool / "outbox" / "Song" / "stems.json").write_bytes(msgspec.json.encode({"schema": 1, "files": [file]}))

    def answer() -> None:
        soon((spool / "inbox" / one.name).exists)
        done = {
            "job_id": "1",
            "state": "done",
            "message": "Done",
            "output": {"dir": "Song", "files": []},
            "error": None,
        }
        (spool / "status" / f"{one.name}.json").write_bytes(msgspec.json.encode(done))

    other = threading.Thread(target=answer)
    other.start()
    code, said = client.run(spool, one, tmp_path / "stems", 600, "{}")
    other.join()
    assert code == 1
    assert "vocals.wav" in said
