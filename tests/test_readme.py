"""The pages: everything that a program can meet is in them, and their commands and examples work as they are written."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import msgspec
import pytest
import soundfile
import tomli
from msgspec import inspect

from daemons import PATIENCE_S, ROOT, Daemon, make_song, running
from demixd.cli.app import commands
from demixd.config import Config
from demixd.engine.models.catalog import hub_repo
from demixd.engine.models.store import DEMO_FOLDER
from demixd.errors import Code
from demixd.protocol import job, options, result_names, status
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import PARTS, READABLE, Kind
from demixd.protocol.options import Defaults
from demixd.supervisor import journal
from hub import Hub

README, PROTOCOL, TUNING, SERVICE, CONTRIBUTING = PAGES = (
    "README.md",
    "config/PROTOCOL.md",
    "config/README.md",
    "systemd/README.md",
    "tests/README.md",
)
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
EXAMPLES = ROOT / "config" / "examples"


def section(title: str, page: str = PROTOCOL) -> str:
    """The text below a heading, up to the next one of any kind."""
    return re.split(r"^##+ ", TEXT[page].split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str, table: int = 0, page: str = PROTOCOL) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = re.findall(r"(?:^\|.*\n)+", section(title, page), re.MULTILINE)[table].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def blocks(language: str, page: str) -> list[tuple[str, str]]:
    """The page's code blocks in a language, each with the heading that it stands under."""
    found, heading = [], ""
    for each in re.finditer(rf"^##+ ([^\n]+)$|^```{language}\n(.*?)^```$", TEXT[page], re.DOTALL | re.MULTILINE):
        heading = each[1] or heading
        if each[2]:
            found.append((heading, each[2]))
    return found


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


# The two clients, as they are shipped.


CLIENTS = {"python": EXAMPLES / "client.py", "sh": EXAMPLES / "client.sh"}


def test_every_example_is_run() -> None:
    """There is no other example than those that are run here, and the page has both."""
    assert set(EXAMPLES.iterdir()) == set(CLIENTS.values())
    for path in CLIENTS.values():
        assert f"(examples/{path.name})" in section("Clients")


TOOLS = ("sh", "grep", "sed", "head", "cp", "mv", "touch", "sleep", "mkdir", "sha256sum")
"""The programs that the shell's client may use: coreutils, grep and sed."""


class Client:
    """One of the two; `start` it as a user would."""

    def __init__(self, language: str, folder: Path) -> None:
        self.language, self.path = language, CLIENTS[language]
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
    with running(tmp_path_factory.mktemp("readme"), fake=True) as one:
        yield one


def song(folder: Path, name: str, client: Client) -> Path:
    """A song with a name that is this client's own."""
    return make_song(folder / f"{client.language} {name}", 0.5)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_a_client_is_short(language: str) -> None:
    """Each client has under 40 lines that fit on a screen."""
    lines = CLIENTS[language].read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 125


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck: apt-get install shellcheck")
def test_the_shell_examples_are_checked(tmp_path: Path) -> None:
    """shellcheck has nothing to say about the client in plain sh, and about the blocks in the pages."""
    paths = [CLIENTS["sh"]]
    for page in PAGES:
        for number, (_, text) in enumerate(blocks("sh", page)):
            paths.append(tmp_path / f"{Path(page).stem} {number}.sh")
            paths[-1].write_text(text, encoding="utf-8")
    done = subprocess.run(["shellcheck", "-s", "sh", *paths], capture_output=True, text=True, check=False)
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


# The queue, from other languages.


@pytest.fixture
def queue(daemon: Daemon, tmp_path: Path) -> Iterator[list[str]]:
    """The names in the queue, in the order of work; one more is running. They have what patterns stumble over."""
    names = ["running.wav", 'say "queue" [1], {2}.wav', "b\\c ].wav", 'ends so"}].wav']
    daemon.hold.touch()
    try:
        for priority, name in zip((4, 3, 2, 1), names, strict=True):
            (daemon.inbox / f"{name}.job.json").write_text(f'{{"priority": {priority}}}')
            (make_song(tmp_path / "one.wav", 0.5)).rename(daemon.inbox / name)
            if name == names[0]:
                daemon.until(lambda: daemon.song(names[0]).get("step") == "separate", "it runs")
        daemon.until(
            lambda: [each["name"] for each in daemon.read("_daemon.json")["queue"]] == names[1:], "all others wait"
        )
        yield names[1:]
    finally:
        (daemon.inbox / ".cancel").touch()
        daemon.hold.unlink()
        daemon.quiet(1)


def test_the_queue_in_a_shell(daemon: Daemon, queue: list[str], tmp_path: Path) -> None:
    """The example in sh prints the names as JSON has them, and so does jq."""
    (text,) = [text for heading, text in blocks("sh", PROTOCOL) if heading == "The queue, from another language"]
    (tmp_path / "queue.sh").write_text(text, encoding="utf-8")
    shown = subprocess.run(["sh", tmp_path / "queue.sh", daemon.spool], capture_output=True, text=True, check=True)
    assert [json.loads(line.removeprefix('"name":')) for line in shown.stdout.splitlines()] == queue
    if shutil.which("jq"):
        (words_of_jq,) = re.findall(r"`(jq .+?)`", section("The queue, from another language"))
        line = words_of_jq.replace("SPOOL", str(daemon.spool))
        shown = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines() == queue


@pytest.mark.skipif(not shutil.which("go"), reason="no go: apt-get install golang-go")
def test_the_queue_in_go(daemon: Daemon, queue: list[str], tmp_path: Path) -> None:
    """The example in Go compiles, and prints what runs and what waits."""
    ((_, text),) = blocks("go", PROTOCOL)
    (tmp_path / "queue.go").write_text(text, encoding="utf-8")
    environment = {**os.environ, "HOME": str(tmp_path), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    words = ["go", "run", "queue.go", str(daemon.spool)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["running running.wav", *(f"{at} {name}" for at, name in enumerate(queue, 1))]


# The commands of the pages, in a fresh copy of the project.

RUN: dict[tuple[str, str], tuple[str, ...]] = {
    (README, "Two commands"): ("test_the_first_command",),
    (README, "Running it"): ("test_running_it",),
    (PROTOCOL, "Clients"): ("test_running_it",),
    (PROTOCOL, "The queue, from another language"): ("test_the_queue_in_a_shell",),
    (TUNING, "Without a GPU"): ("test_installing_openvino",),
    (SERVICE, "Installing, and taking it away"): ("test_a_model_that_is_not_there", "test_taking_it_away"),
    (SERVICE, "Mounts and permissions"): ("test_a_second_spool_whose_mount_comes_late",),
    (SERVICE, "The journal"): ("test_the_journal_has_fields", "test_every_kind_of_entry_in_the_journal_is_there"),
    (CONTRIBUTING, "Where is what"): ("test_making_files_anew", "test_drawing_the_picture_again"),
    (CONTRIBUTING, "Changing the locked versions"): (),  # takes uv and the package index
}
"""Which tests run the commands below a heading."""


def test_every_block_is_run() -> None:
    """There are no other commands in the pages than those that tests run, and the tests are there."""
    assert {(page, heading) for page in PAGES for heading, _ in blocks("sh", page)} == RUN.keys()
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for names in RUN.values() for name in names if f"\ndef {name}(" not in tests] == []


class Copy:
    """A fresh copy of the project, with an environment that has this one's packages, and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.project, self.home = folder / "project", folder / "home"
        self.home.mkdir()
        self.project.mkdir()
        for part in ("daemon", "config", "systemd", "tests"):
            shutil.copytree(
                ROOT / part, self.project / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        made = self.project / ".venv"
        venv.create(made, symlinks=True)
        (packages,) = made.glob("lib/python*/site-packages")
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        for lock in self.project.glob("config/*.lock"):
            # So that nothing is fetched: all of it is there.
            (made / f"{lock.name}.sha256").write_text(hashlib.sha256(lock.read_bytes()).hexdigest() + "  -")
        make_song(self.project / "Song.flac", 2.0)
        self.env = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(folder),
            "OMP_WAIT_POLICY": "passive",
        }

    def start(self, script: str, **env: str) -> subprocess.Popen[str]:
        """Type these lines; the first that fails is the last."""
        return subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=self.project,
            env=self.env | env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def set_up(self) -> None:
        """Make the environment, as `daemon/try` does first."""
        self.type("root=$PWD; . daemon/setup.sh; make_venv")

    def type(self, script: str, **env: str) -> str:
        """What they say; all of them must succeed."""
        code, said = ended(self.start(script, **env))
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def lines(page: str, heading: str, number: int = 0) -> list[str]:
    """The lines of a block of commands."""
    return [text for title, text in blocks("sh", page) if title == heading][number].splitlines()


def test_the_first_command(copy: Copy) -> None:
    """`daemon/try` makes the environment, separates the song, and lists its stems. The second command is this suite."""
    first_command, second_command = lines(README, "Two commands")
    said = copy.type(first_command)
    assert "the song's" in said and "NOT" not in said
    assert {"vocals", "instrumental"} <= set(said.split())
    assert os.access(copy.project / second_command.split()[0], os.X_OK)


def test_running_it(copy: Copy) -> None:
    """A model is fetched (from a hub of ours), a daemon started; a song dropped and found, and both clients used."""
    copy.set_up()
    spool = copy.home / "demixd"
    weights = next(DEMO_FOLDER.glob("*.safetensors"))
    files = {
        (hub_repo("htdemucs"), "htdemucs.yaml"): f"models: ['{weights.stem}']\n".encode(),
        (hub_repo("htdemucs"), weights.name): weights.read_bytes(),
    }
    with Hub(files=files) as hub:
        script = "\n".join(lines(README, "Running it"))
        daemon = copy.start(script, HF_ENDPOINT=hub.endpoint, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
        try:
            soon(lambda: daemon.poll() is not None or document(spool, "_daemon.json").get("state") == "ready")
            assert daemon.poll() is None, daemon.communicate()[0]
            drop, look = lines(README, "Running it", 1)
            copy.type(drop)
            soon(lambda: document(spool, "Song.flac.json").get("state") == "done")
            assert copy.type(look).split() == look.partition("#")[2].split()
            for client in lines(PROTOCOL, "Clients"):
                assert copy.type(client) == ""
                assert {path.name for path in (copy.project / "stems").iterdir()} == {
                    "vocals.mp3",
                    "instrumental.mp3",
                    "stems.json",
                }
                shutil.rmtree(copy.project / "stems")
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
            _, said = ended(daemon)
    assert "FAIL" not in said


def document(spool: Path, name: str) -> dict[str, Any]:
    """A status file; {} where it is not there."""
    path = spool / "status" / name
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="no openvino: tests/run installs it")
def test_installing_openvino(copy: Copy) -> None:
    """What is there already is found, by its hashes' file and without an index."""
    (line,) = lines(TUNING, "Without a GPU")
    assert "already satisfied: openvino" in copy.type(f"{line} --no-index")


def test_making_files_anew(copy: Copy) -> None:
    """The commands for contributors make the schemas that are shipped."""
    copy.set_up()
    *schemas, _ = lines(CONTRIBUTING, "Where is what")
    shipped = {path: path.read_bytes() for path in copy.project.glob("config/*.json")}
    for path in shipped:
        path.write_bytes(b"")
    copy.type("\n".join(schemas))
    assert {path: path.read_bytes() for path in shipped} == shipped


@pytest.mark.slow
def test_drawing_the_picture_again(copy: Copy) -> None:
    """The picture can be drawn again, from a daemon of today."""
    copy.set_up()
    *_, draw = lines(CONTRIBUTING, "Where is what")
    picture = copy.project / "tests" / "picture" / "demixd.svg"
    picture.unlink()
    copy.type(draw)
    text = "".join(ElementTree.parse(picture).getroot().itertext()).replace("\xa0", " ")
    assert [part for part in ("is ready", "Running", "Queue: 2", "stems.json") if part not in text] == []
