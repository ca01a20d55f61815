"""The examples for program authors, run as they are written: both clients, and the queue in other languages."""

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
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import soundfile

from daemons import Daemon, make_song, running
from pages import EXAMPLES, PAGES, PROTOCOL, blocks, ended, section, soon

CLIENTS = {"python": EXAMPLES / "client.py", "sh": EXAMPLES / "client.sh"}


def test_every_example_is_run() -> None:
    """There is no other example than those that are run here, and the page has both."""
    assert set(EXAMPLES.iterdir()) == set(CLIENTS.values())
    for path in CLIENTS.values():
        assert f"(examples/{path.name})" in section("Clients")


TOOLS = ("sh", "grep", "sed", "head", "cat", "cp", "mv", "rm", "touch", "sleep", "mkdir", "sha256sum")
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


@pytest.fixture(params=["python", "sh"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    return Client(request.param, tmp_path)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    # Both clients take it for dead after three beats, and this machine may be busy.
    with running(tmp_path_factory.mktemp("examples"), fake=True, status={"heartbeat_s": 0.5}) as one:
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


@pytest.mark.parametrize("words", [(), ("spool", "Song.flac", "stems", "600")], ids=["none", "one too few"])
def test_a_client_says_what_it_takes(client: Client, words: tuple[str, ...]) -> None:
    """With a word too few it is its first line, which shows them all, and no traceback."""
    code, said = client.run(*words)
    usage = f"{client.path.name} SPOOL SONG FOLDER SECONDS OPTIONS, such as: "
    assert (code, usage in said, said.count("\n")) == (1, True, 1)


def manifest(vocals: bytes) -> bytes:
    """The manifest of a result that holds these vocals."""
    file = {"stem": "vocals", "name": "vocals.wav", "bytes": len(vocals), "sha256": hashlib.sha256(vocals).hexdigest()}
    return msgspec.json.encode({"schema": 1, "files": [file]})


def finished(spool: Path, one: Path) -> None:
    """Answer a client as a daemon that has made the song's result, in the folder `Song` of its outbox."""
    soon((spool / "inbox" / one.name).exists)
    output = {"dir": "Song", "files": []}
    done = {"job_id": "1", "state": "done", "message": "Done", "output": output, "error": None}
    (spool / "status" / f"{one.name}.json").write_bytes(msgspec.json.encode(done))


def test_a_client_has_its_words_right_before_it_drops(client: Client, tmp_path: Path) -> None:
    """A spool, a folder of it or a song that is not there is named in one line, and no option file is left behind."""
    inbox, one = tmp_path / "spool" / "inbox", song(tmp_path, "there.wav", client)
    inbox.mkdir(parents=True)
    assert client.run(inbox.parent, one, tmp_path / "stems", 600, "{}") == (
        1,
        f"{tmp_path}/spool/status is not there\n",
    )
    (inbox.parent / "status").mkdir()
    for spool, wanted, missing in (
        (tmp_path / "spol", one, tmp_path / "spol" / "inbox"),
        (inbox.parent, tmp_path / "typo.wav", tmp_path / "typo.wav"),
    ):
        assert client.run(spool, wanted, tmp_path / "stems", 600, "{}") == (1, f"{missing} is not there\n")
    assert list(inbox.iterdir()) == []


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
    files = {path.name for path in stems.rglob("*") if path.is_file()}
    assert files == {"drums.flac", "no_drums.flac", "peaks.json", "stems.json"}
    assert soundfile.info(str(stems / "by stem" / "drums.flac")).frames == soundfile.info(str(one)).frames
    assert daemon.song(one.name)["tag"] == 'x"state":"done'


def test_a_client_follows_no_link(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """What others put under a client's temporary names leads it to no other file."""
    one = song(tmp_path, "linked.wav", client)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (one.name, f"{one.name}.job.json"):
        (daemon.inbox / f".{name}.part").symlink_to(victim)
    assert client.run(daemon.spool, one, tmp_path / "stems", 600, "{}") == (0, "")
    assert victim.read_bytes() == b"precious"


def test_a_client_cancels_after_its_time(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """A client whose time is over cancels its song, says so, and has no stems."""
    one = song(tmp_path, "late.wav", client)
    daemon.hold.touch()
    try:
        code, said = client.run(daemon.spool, one, tmp_path / "stems", 2, "{}")
    finally:
        daemon.hold.unlink()
    assert code == 1
    assert said.startswith("cancelled") and not said.rstrip().endswith(":")
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


def test_a_client_checks_what_it_has_collected(client: Client, tmp_path: Path) -> None:
    """A stem that is not what the manifest says is an error."""
    spool = tmp_path / "spool"
    for part in ("inbox", "status", "outbox/Song"):
        (spool / part).mkdir(parents=True)
    one = song(tmp_path, "Song.wav", client)
    (spool / "outbox" / "Song" / "vocals.wav").write_bytes(b"something else")
    (spool / "outbox" / "Song" / "stems.json").write_bytes(manifest(b"this"))

    other = threading.Thread(target=finished, args=(spool, one))
    other.start()
    code, said = client.run(spool, one, tmp_path / "stems", 600, "{}")
    other.join()
    assert code == 1
    assert "vocals.wav" in said


def test_a_client_says_where_it_looked_for_a_result(client: Client, tmp_path: Path) -> None:
    """Where the daemon's outbox lies elsewhere than the client thinks, one line names place and key, and nothing is made."""
    spool = tmp_path / "spool"
    for part in ("inbox", "status"):
        (spool / part).mkdir(parents=True)
    one = song(tmp_path, "Song.wav", client)
    other = threading.Thread(target=finished, args=(spool, one))
    other.start()
    code, said = client.run(spool, one, tmp_path / "stems", 600, "{}")
    other.join()
    assert (code, said) == (1, f"{spool / 'outbox' / 'Song'} is not there: see [paths] outbox\n")
    assert not (tmp_path / "stems").exists()


def test_a_client_outlives_files_that_are_gone(client: Client, tmp_path: Path) -> None:
    """A status that is removed, or a heartbeat that is away for a moment, is none of a job, and no error."""
    spool = tmp_path / "spool"
    for part in ("inbox", "status", "outbox/Song"):
        (spool / part).mkdir(parents=True)
    (spool / "outbox" / "Song" / "vocals.wav").write_bytes(b"this")
    (spool / "outbox" / "Song" / "stems.json").write_bytes(manifest(b"this"))
    one = song(tmp_path, "Song.wav", client)
    heartbeat, older = spool / "status" / "_daemon.json", spool / "status" / f"{one.name}.json"
    heartbeat.write_text('{"schema":1,"seq":1,"interval_s":5}')
    older.write_text('{"job_id":"0","state":"done"}')
    run = client.start(spool, one, tmp_path / "stems", 600, "{}")
    soon((spool / "inbox" / one.name).exists)
    time.sleep(1.5)  # the client has seen both
    older.unlink()
    heartbeat.unlink()
    time.sleep(1.5)
    finished(spool, one)
    assert ended(run) == (0, "")


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
