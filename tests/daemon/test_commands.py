"""The commands that work by files alone: real ones, in processes of their own, on a real daemon with a fake worker."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from commands import ENVIRONMENT, Piped, Terminal, heartbeat, program, until, write
from daemons import CLIENT_BEAT_S, PATIENCE_S, Daemon, make_song, running
from demixd import config as configuration
from demixd.cli.app import commands
from demixd.cli.songs.follow import Follower, Losses
from demixd.cli.status import view
from demixd.client import text
from demixd.client.liveness import Health, Liveness
from demixd.client.overview import overview
from demixd.client.reader import StatusReader
from demixd.engine.models import store
from demixd.errors import ConfigError
from demixd.protocol.terminal import safe
from demixd.spool.tree import Spool

EVIL = "evil \x1b[31;5m\x1b]0;owned\x07 \x9b2J \u202egnp.wav"
"""Colour, blinking, a window's title, a C1 sequence that clears the screen, and a turned direction of writing."""

ABSENT = "No daemon runs on this spool: what it is asked for waits until one is started with `demixd run`."


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that leave it as it was."""
    with running(
        tmp_path_factory.mktemp("commands"), fake=True, profiles={}, status={"heartbeat_s": CLIENT_BEAT_S}
    ) as one:
        yield one


@pytest.fixture
def held(daemon: Daemon) -> Iterator[Daemon]:
    """That daemon, whose songs stay in step `separate` until `hold` goes."""
    daemon.hold.touch()
    yield daemon
    daemon.hold.unlink(missing_ok=True)
    daemon.command("cancel", "--all", "--wait")


def tree(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in root.rglob("*"))


# ---- --config


def lines_of(command: click.Command, *words: str) -> Iterator[list[str]]:
    """A command line for every command below `command`, with what it must be given."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from lines_of(each, *words, name)
    else:
        yield [*words, *("X" for each in command.params if isinstance(each, click.Argument) and each.required)]


@pytest.mark.parametrize("line", list(lines_of(commands)), ids=" ".join)
def test_config_goes_before_and_after_every_command(tmp_path: Path, line: list[str]) -> None:
    """Wherever `--config` stands among the words of a command, its file is the one that is read."""
    missing = str(tmp_path / "missing.toml")
    for place in range(len(line) + 1):
        done = CliRunner().invoke(commands, [*line[:place], "--config", missing, *line[place:]])
        assert isinstance(done.exception, ConfigError), done.output
        assert missing in str(done.exception)


def test_config_is_one_file(tmp_path: Path) -> None:
    """`--config` given twice with different files is an error that names both; with one file it is not."""
    one, other = Daemon(tmp_path / "one").config, Daemon(tmp_path / "other").config
    same = one.parent / ".." / "one" / one.name
    for line in (["--config", one, "status", "--config", other], ["status", "--config", one, "--config", other]):
        done = CliRunner().invoke(commands, list(map(str, line)))
        assert (done.exit_code, done.output.count("\n")) == (2, 4)
        assert f"Error: --config is given twice, with {one} and with {other}: give one file." in done.output
    done = CliRunner().invoke(commands, ["--config", str(one), "status", "--json", "--config", str(same)])
    assert (done.exit_code, json.loads(done.output)) == (1, {"daemon": None, "songs": []})


def test_config_is_a_path_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one in a working directory that was removed is a wrong word, told in a sentence."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = CliRunner().invoke(commands, ["--config", "demixd.toml", "status"])
    assert done.exit_code == 2
    assert "Error: --config demixd.toml: the working directory is gone: give an absolute path." in done.output


# ---- submit


def test_options_of_the_command_line_become_those_of_the_song(daemon: Daemon, tmp_path: Path) -> None:
    """Every kind of option reaches the song's status, and the song lies where it was sent."""
    song = make_song(tmp_path / "with options.flac", 0.3)
    words = ["--format", "mp3", "--bitrate", "128", "--stems", "vocals,no_drums", "--rate", "44100", "--tag", "007"]
    words += ["--naming", "{song}/{stem}.{ext}", "--set", "overlap=0.5", "--set", "clip=clamp", "--priority", "-5"]
    done = daemon.command("submit", song, "--wait", "--json", "--to", "party/late", *words)
    assert done.returncode == 0, done.stderr
    sidecar = json.loads(done.stdout)
    assert sidecar == daemon.song("party/late/with options.flac")
    expected = {"format": "mp3", "bitrate": 128, "stems": ["vocals", "no_drums"], "rate": 44100, "overlap": 0.5}
    expected |= {"clip": "clamp", "naming": "{song}/{stem}.{ext}"}
    assert {key: sidecar["options"][key] for key in expected} == expected
    assert sidecar["tag"] == "007"
    assert "party/late/with options/with options/vocals.mp3" in daemon.results()


class Arrivals(FileSystemEventHandler):
    """What appears in a folder under a name that is no dot name, in the kernel's order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            name = Path(os.fsdecode(path)).name
            if event.event_type in ("created", "moved") and name and not name.startswith("."):
                self.names.append(name)


@pytest.mark.parametrize("leaf", ["song.wav", f"{'long ' * 50}.wav"], ids=["short", "255 bytes"])
def test_options_are_there_before_the_song(tmp_path: Path, leaf: str) -> None:
    """The option file appears whole, then the song, each by one rename; nothing else is left in the inbox."""
    daemon, arrivals, observer = Daemon(tmp_path / "d"), Arrivals(), Observer()
    song = make_song(tmp_path / leaf, 0.1)
    observer.schedule(arrivals, str(daemon.inbox))
    observer.start()
    try:
        assert daemon.command("submit", song, "--format", "mp3").returncode == 0
        until(lambda: leaf in arrivals.names, "the song")
    finally:
        observer.stop()
        observer.join()
    told = Spool(configuration.load(daemon.config)).options(leaf)
    assert arrivals.names == [told.name, leaf]
    assert json.loads(told.read_bytes()) == {"format": "mp3"}
    assert (daemon.inbox / leaf).read_bytes() == song.read_bytes()
    assert set(tree(daemon.inbox)) == {told, daemon.inbox / leaf}


MISTAKES = {
    "--bitrate much": "bitrate",
    "--priority 99999": "priority",
    "--set bitrat=320": "bitrat",
    "--set overlap": "KEY=VALUE",
    "--format flac --set format=mp3": "format is given twice",
    "--stems vocals,vocals": "vocals",
    "--naming ../{stem}.{ext}": "naming",
    "--priority 1e9": "priority",
    "--model nothing-like-it": "nothing-like-it",
    "--stems banjo": 'stems has "banjo": demo has no such stem. There are drums, bass, ',
    "--stems guitar --model htdemucs": "htdemucs has no such stem",
    f"--set wait_for_sha256={'0' * 64}": "good.wav has the sha256 ",
    "--profile nobody": "nobody",
    "--to ../elsewhere": "below the inbox",
    "--to .hidden": "ignored-name",
    "--to x.json": "reserved-name",
    f"--to {'x/' * 201}": "no more than 200 folders within each other",
    f"--to {'/'.join(['y' * 200] * 10)}": "no path of more than 2000 bytes",
    "MISSING.wav": "MISSING.wav",
    "FOLDER.wav": "FOLDER.wav",
    "PIPE.wav": "PIPE.wav",
    "EMPTY.wav": "EMPTY.wav is empty",
    "notes.txt": "not-audio",
    "film.mid": "unsupported-format",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_costs_nothing(tmp_path: Path, words: str) -> None:
    """What cannot be is one sentence on standard error before the first song is dropped: with status 2 for a wrong word,
    whatever the songs are like, and 1 for a song that cannot be dropped."""
    daemon = Daemon(tmp_path / "d")
    (daemon.folder / "state").mkdir()
    songs = tmp_path / "songs"
    (songs / "FOLDER.wav").mkdir(parents=True)
    os.mkfifo(songs / "PIPE.wav")
    for name in ("notes.txt", "film.mid", "EMPTY.wav"):
        (songs / name).touch()
    given = [songs / word if (songs / word).exists() or word.startswith("MISSING") else word for word in words.split()]
    done = daemon.command("submit", make_song(tmp_path / "good.wav", 0.1), *given)
    assert done.returncode == (2 if words.startswith("--") else 1)
    assert MISTAKES[words] in done.stderr
    assert done.stderr.startswith("demixd: ")
    assert done.stderr.count("\n") == 1
    assert tree(daemon.inbox) == []


def test_a_song_that_is_too_large_is_not_dropped(tmp_path: Path) -> None:
    """`submit` knows the limit that the daemon would refuse the song by, says so in its words, and drops nothing."""
    song = make_song(tmp_path / "large.wav", 0.1)
    size = song.stat().st_size
    daemon = Daemon(tmp_path / "d", limits={"max_bytes": size - 1})
    done = daemon.command("submit", make_song(tmp_path / "a.wav", 0.01), song)
    said = (
        f"demixd: {song}: The song has {size} bytes; [limits] max_bytes allows {size - 1}: raise it, or cut the song\n"
    )
    assert (done.returncode, done.stderr, tree(daemon.inbox)) == (1, said, [])
    assert Daemon(tmp_path / "e", limits={"max_bytes": size}).command("submit", song).returncode == 0


def test_a_folder_is_no_song(tmp_path: Path) -> None:
    """`submit` says what to do with one: its songs can be named, and the inbox takes it as it is."""
    (tmp_path / "Album").mkdir()
    done = Daemon(tmp_path / "d").command("submit", tmp_path / "Album")
    said = f"demixd: {tmp_path}/Album is a folder: name the songs in it, or copy it into the inbox (`cp -r`) as it is\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_stems_without_commas_between_them(tmp_path: Path) -> None:
    """The second one is taken for a song: `submit` says that there is no such file, and how several stems are written."""
    done = Daemon(tmp_path / "d").command("submit", "--stems", "vocals", "drums", make_song(tmp_path / "song.wav", 0.1))
    said = "demixd: drums: there is no such file; several stems have commas between them: --stems vocals,drums\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_submit_says_that_nobody_is_there(daemon: Daemon, tmp_path: Path) -> None:
    """Where no daemon runs the song waits for one, and that is said at once; where one runs it is not."""
    alone, song = Daemon(tmp_path / "d"), make_song(tmp_path / "alone.wav", 0.1)
    done = alone.command("submit", song)
    said = f"{ABSENT}\n"
    assert (done.returncode, done.stderr) == (0, said)
    assert (alone.inbox / "alone.wav").exists()
    assert daemon.command("submit", song).stderr == ""
    write(alone.spool / "status", "unused.wav", "done")
    beat = msgspec.to_builtins(heartbeat(5)) | {"updated_at": "2026-01-01T00:00:00.000Z"}
    beat["process"] = {"host": "nas", "boot": "elsewhere", "namespace": 1, "started": 1}
    (alone.spool / "status" / "_daemon.json").write_text(json.dumps(beat))
    assert alone.command("submit", make_song(tmp_path / "old.wav", 0.1)).stderr == said


def test_no_configuration_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the built-in defaults' spool is not there either, commands say by what they go, and where they have looked."""
    monkeypatch.setattr(configuration, "DEFAULT_PATH", tmp_path / "none.toml")
    monkeypatch.delenv("DEMIXD_CONFIG", raising=False)
    if Path("/srv/demixd").exists():
        pytest.skip("/srv/demixd, the spool of the defaults, is on this machine")
    done = CliRunner().invoke(commands, ["status"])
    said = f"since there is no --config, $DEMIXD_CONFIG or {tmp_path / 'none.toml'}: give the configuration that the daemon"
    assert f"demixd: warning: this goes by the built-in defaults, {said} has\n" in done.output


def test_a_configuration_that_is_no_toml(tmp_path: Path) -> None:
    """Nobody knows its [paths]: commands say where the mistake is, and how a daemon that runs is spoken to until it is mended."""
    daemon = Daemon(tmp_path)
    daemon.config.write_text("[paths]\nspool = /srv/demixd\n")
    for words in (["status"], ["submit", make_song(tmp_path / "song.wav", 0.1)], ["cancel", "--all"]):
        done = daemon.command(*words)
        assert done.returncode == 78
        assert f"{daemon.config}: not TOML: Invalid value (at line 2, column 9). Mend it: " in done.stderr
        assert "NAME.cancel there" in done.stderr


def test_a_model_that_there_is_not(held: Daemon, tmp_path: Path) -> None:
    """Commands warn of it as of other mistakes, `submit` drops the song, with options too: a daemon that runs goes on."""
    good = held.config.read_text()
    try:
        held.config.write_text(good.replace('name = "demo"', 'name = "htdemuc"'))
        song = make_song(tmp_path / "unmodelled.wav", 0.1)
        for words in (["submit", song, "--format", "flac"], ["status"], ["cancel", "unmodelled.wav"]):
            done = held.command(*words)
            assert done.returncode == 0, done.stderr
            said = f'demixd: warning: {held.config}: [model] name = "htdemuc": there is no such model'
            assert done.stderr.startswith(said)
            assert done.stderr.endswith(" No daemon starts with that, and one that runs goes on by the old\n")
            assert done.stderr.count("\n") == 1
    finally:
        held.config.write_text(good)


def test_submit_says_that_its_songs_wait_for_a_model(tmp_path: Path) -> None:
    """That is of a model which is not there, and which the daemon does not fetch, as it does those of its configuration."""
    daemon = Daemon(tmp_path / "d", **{"profiles.best": {"model": "htdemucs_ft"}})
    said = "demixd: warning: The model {0} lacks its file {0}.yaml: run `demixd models fetch {0}`, or put it into {1}"
    for number, (model, is_here) in enumerate([("mdx", False), ("mdx", True), ("htdemucs_ft", True), ("demo", True)]):
        (daemon.folder / "state").mkdir(exist_ok=True) if is_here else None
        done = daemon.command("submit", "--model", model, make_song(tmp_path / f"{number}.wav", 0.1))
        told = [line for line in done.stderr.splitlines() if "lacks" in line]
        warning = f"{said.format(model, daemon.folder / 'state' / 'models')}: until then what is submitted waits"
        assert told == ([warning] if model == "mdx" and is_here else [])
        assert done.returncode == 0 and (daemon.inbox / f"{number}.wav").exists()


def test_a_configuration_that_the_daemon_has_not_read(held: Daemon, tmp_path: Path) -> None:
    """Commands say that the daemon goes by the old one, until it has read the file again; a comment changes nothing."""
    good, song = held.config.read_text(), make_song(tmp_path / "unread.wav", 0.1)
    said = f"demixd: warning: the daemon has not read what {held.config} says now, and goes by the old: "
    try:
        held.config.write_text(f"{good}\n# a comment\n")
        assert held.command("status").stderr == ""
        held.config.write_text(f'{good}\n[profiles.unread]\nformat = "flac"\n')
        for words in (["submit", song, "--profile", "unread"], ["status"]):
            told = held.command(*words).stderr
            assert told.startswith(said)
            assert "`sudo systemctl reload demixd`" in told and "`kill -HUP PID`" in told and "start it again" in told
        failed = held.final("unread.wav")["error"]["message"]
        assert "there is no such profile; the configuration as it was last read has " in failed
        before = held.read("_daemon.json")["configuration"]
        assert held.process is not None
        held.process.send_signal(signal.SIGHUP)
        held.until(lambda: held.read("_daemon.json")["configuration"] != before, "read again")
        assert held.command("status").stderr == ""
    finally:
        held.config.write_text(good)
        assert held.process is not None
        held.process.send_signal(signal.SIGHUP)
        held.until(lambda: held.command("status").stderr == "", "the old one again")


def test_a_mistake_in_the_configuration(held: Daemon, tmp_path: Path) -> None:
    """The daemon goes on by the old one, and so do the commands that need its folders alone: they warn, and do their work."""
    good, song = held.config.read_text(), make_song(tmp_path / "mistaken.wav", 0.1)
    try:
        held.config.write_text(good + "[defaults]\nfromat = 1\n")
        for words in (["submit", song, "--profile", "karaoke", "--to", "below"], ["status"], ["cancel", "--all"]):
            done = held.command(*words)
            assert done.returncode == 0, done.stderr
            assert done.stderr.startswith(f"demixd: warning: {held.config}: [defaults] fromat: there is no such key")
            assert done.stderr.endswith("only [paths] counts here\n")
        assert held.command("submit", song, "--priority", "much").returncode == 2
        assert held.command("check").returncode == 78
        held.config.write_text(good.replace('spool = "', 'spool = "not absolute'))
        assert held.command("status").returncode == 78
    finally:
        held.config.write_text(good)


def test_two_songs_of_one_name(tmp_path: Path) -> None:
    """Two songs that would have one name are refused, both of them named, before anything is dropped."""
    daemon, songs = Daemon(tmp_path / "d"), [tmp_path / folder / "song.wav" for folder in ("a", "b")]
    for song in songs:
        song.parent.mkdir()
        make_song(song, 0.1)
    done = daemon.command("submit", make_song(tmp_path / "other.wav", 0.1), *songs)
    assert done.returncode == 1
    assert all(str(song) in done.stderr for song in songs)
    assert tree(daemon.inbox) == []


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    """A song is never dropped over another, nor beside options that are not its own; the sentence has the remedy."""
    daemon, song = Daemon(tmp_path / "d"), make_song(tmp_path / "song.wav", 0.1)
    (daemon.inbox / "song.wav").write_bytes(b"mine")
    (daemon.inbox / "other.wav.job.json").write_bytes(b"{}")
    done = daemon.command("submit", song)
    assert (done.returncode, "--to FOLDER" in done.stderr) == (1, True)
    done = daemon.command("submit", shutil.copy(song, tmp_path / "other.wav"), "--format", "mp3")
    assert (done.returncode, "delete it" in done.stderr) == (1, True)
    assert (daemon.inbox / "song.wav").read_bytes() == b"mine"
    assert len(tree(daemon.inbox)) == 2


def test_an_error_in_the_middle(tmp_path: Path) -> None:
    """What was dropped before a song that cannot be read stays, and is named; no part of that song is left."""
    daemon = Daemon(tmp_path / "d")
    (tmp_path / "bad.wav").symlink_to("/sys/class/net/lo/speed")  # of 4,096 bytes, and none can be read
    first, last = make_song(tmp_path / "first.wav", 0.1), make_song(tmp_path / "last.wav", 0.1)
    done = daemon.command("submit", first, tmp_path / "bad.wav", last, "--format", "mp3")
    assert done.returncode == 1
    assert "bad.wav: " in done.stderr
    assert "dropped before it: first.wav" in done.stderr
    assert tree(daemon.inbox) == [daemon.inbox / "first.wav", daemon.inbox / "first.wav.job.json"]


# ---- submit --wait


def test_wait_in_plain_lines(daemon: Daemon, tmp_path: Path) -> None:
    """Without a terminal `--wait` says in lines what happens, and ends 1 when not every song is done."""
    good, bad = make_song(tmp_path / "fine.wav", 0.3), tmp_path / "noise.mp3"
    bad.write_bytes(b"no" * 5000)
    done = daemon.command("submit", "--wait", good, bad)
    assert done.returncode == 1
    assert f"fine.wav: done, in {daemon.outbox / 'fine'}\n" in done.stdout
    assert re.search(r"^noise\.mp3: failed: .+", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stdout + done.stderr


def test_wait_as_json(daemon: Daemon, tmp_path: Path) -> None:
    """`--json` prints the final sidecar of every song, one a line, and nothing else."""
    songs = [make_song(tmp_path / f"json {number}.wav", 0.2) for number in range(3)]
    done = daemon.command("submit", "--wait", "--json", *songs)
    told = {each["input"]["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert told == {song.name: daemon.song(song.name) for song in songs}
    assert {each["state"] for each in told.values()} == {"done"}
    assert done.returncode == 0


def test_wait_in_bars(held: Daemon, tmp_path: Path) -> None:
    """On a terminal every song has a bar, all at once; results stay above them, and the bars go."""
    songs = [make_song(tmp_path / f"bar {number}.wav", 0.2 + number / 10) for number in range(3)]
    with Terminal(held, "submit", "--wait", "--force", *songs) as terminal:
        terminal.says("bar 0.wav", "bar 1.wav", "bar 2.wav", "━", "queued", "separate", "79 %")
        held.hold.unlink()
        assert terminal.ends() == 0
        for number in range(3):
            terminal.says(f"bar {number}.wav: done, in ")
        assert terminal.seen.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?25h" in terminal.seen[-200:]


def test_wait_follows_the_new_drop(held: Daemon, tmp_path: Path) -> None:
    """The result of an earlier song of that name is not taken for that of the one just dropped."""
    song = make_song(tmp_path / "again.wav", 0.2)
    held.hold.unlink()
    assert held.command("submit", "--wait", song).returncode == 0
    before = held.song("again.wav")["job_id"]
    held.until(lambda: not (held.inbox / "again.wav").exists(), "the original put away")
    held.hold.touch()
    with Piped(held, "submit", "--wait", "--force", song) as command:
        command.says("again.wav: separate")
        assert command.process.poll() is None
        assert held.song("again.wav")["job_id"] != before
        (held.inbox / "again.wav.cancel").touch()
        assert command.ends() == 1
        command.says("again.wav: cancelled")


@pytest.mark.parametrize("words", [["submit", "--wait"], ["cancel", "--wait"], ["cancel", "--wait", "--all"]])
def test_nobody_waits_for_a_daemon_that_does_not_run(tmp_path: Path, words: list[str]) -> None:
    """Where none runs a command that would wait says so at once and ends with 1; what it asks for is in the inbox."""
    daemon, song = Daemon(tmp_path / "d"), make_song(tmp_path / "song.wav", 0.2)
    if words[0] == "cancel":
        assert daemon.command("submit", song).returncode == 0
    began = time.monotonic()
    done = daemon.command(*words, *([] if "--all" in words else [song if words[0] == "submit" else "song.wav"]))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"demixd: {ABSENT}")
    assert time.monotonic() - began < 5.0
    assert len(list(daemon.inbox.iterdir())) == 1 + (words[0] == "cancel")


def test_cancel_says_that_no_daemon_runs(tmp_path: Path) -> None:
    """The song is asked to stop all the same, and that is no failure."""
    daemon = Daemon(tmp_path / "d")
    daemon.command("submit", make_song(tmp_path / "song.wav", 0.2))
    for words in (["song.wav"], ["--all"]):
        done = daemon.command("cancel", *words)
        assert (done.returncode, done.stderr) == (0, f"{ABSENT}\n")


def test_wait_ends_when_a_song_is_gone_before_it_is_seen(tmp_path: Path) -> None:
    """`submit --wait` says so and ends with 1: of a file that is gone after some heartbeats, at once where a link is listed."""
    daemon = Daemon(tmp_path / "d")
    status = daemon.spool / "status"
    status.mkdir(exist_ok=True)
    entry = {"name": "link.wav", "name_b64": "", "reason": "not-a-regular-file"}
    seqs = itertools.count()
    (status / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(next(seqs), interval_s=100.0)))
    with Piped(
        daemon, "submit", "--wait", *(make_song(tmp_path / f"{name}.wav", 0.1) for name in ("gone", "link"))
    ) as command:
        until(lambda: (daemon.inbox / "link.wav").exists(), "both are dropped")
        (daemon.inbox / "gone.wav").unlink()
        (daemon.inbox / "link.wav").unlink()
        (daemon.inbox / "link.wav").symlink_to("/etc/passwd")
        listing = {"schema": 1, "seq": 1, "entries": [entry], "updated_at": "2026-01-01T00:00:00Z"}
        (status / "_inbox.json").write_text(json.dumps(listing))
        command.says("link.wav: lost: what has its name in the inbox is no song (not-a-regular-file)")

        def beat() -> bool:
            (status / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(next(seqs))))
            return command.process.poll() is not None

        until(beat, "it ends")
        command.says("gone.wav: lost: its file went from the inbox before the daemon had seen it")
        assert command.ends() == 1


def test_a_song_is_lost_only_once_a_living_daemon_is_silent_of_it(tmp_path: Path) -> None:
    """Heartbeats that grow tell it; not the time without a daemon, and not where the whole inbox is away."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    losses = Losses(spool)

    def why(seq: int) -> str | None:
        (spool.status / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(seq)))
        losses.refresh()
        return losses.why("gone.wav")

    spool.status.mkdir(exist_ok=True)
    assert [why(1) for _ in range(9)] == [None] * 9
    assert [why(seq) is None for seq in (2, 3, 4)] == [True, True, False]
    spool.inbox.rmdir()
    assert [why(seq) for seq in range(5, 14)] == [None] * 9


def test_ctrl_c_ends_the_waiting_only(held: Daemon, tmp_path: Path) -> None:
    """Ctrl-C ends `submit --wait` with 130 and says that the songs go on, which they do."""
    with Piped(held, "submit", "--wait", make_song(tmp_path / "on and on.wav", 0.2)) as command:
        command.says("on and on.wav: separate")
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 130
        command.says("The songs go on")
    held.hold.unlink()
    assert held.final("on and on.wav")["state"] == "done"


# ---- cancel


def test_cancel_says_what_it_did(held: Daemon, tmp_path: Path) -> None:
    """A running and a waiting song in sub-folders are stopped, each told of; `--wait` ends 0 when they are cancelled."""
    for name in ("one", "two"):
        daemon_says = held.command("submit", "--force", "--to", "box", make_song(tmp_path / f"{name}.wav", 0.2))
        assert daemon_says.returncode == 0
    held.until(lambda: held.song("box/one.wav").get("step") == "separate", "one runs")
    held.until(lambda: held.song("box/two.wav").get("reason") == "queued", "two is queued")
    done = held.command("cancel", "--wait", "box/two.wav", "./box//one.wav")
    assert done.returncode == 0, done.stderr
    assert "box/one.wav: asked to stop (running, " in done.stdout
    assert "box/two.wav: asked to stop (waiting, queued)" in done.stdout
    assert {held.song(f"box/{name}.wav")["state"] for name in ("one", "two")} == {"cancelled"}
    cancel = held.inbox / "box" / "one.wav.cancel"
    held.until(lambda: not cancel.exists(), "the first cancel is answered")
    done = held.command("cancel", "box/one.wav")
    assert (done.returncode, "cancelled already" in done.stdout) == (0, True)
    assert not cancel.exists()


def test_cancel_of_a_song_that_is_over(tmp_path: Path) -> None:
    """However it is called there is nothing to stop, and no other song is named; `--wait` ends 0 only if it was cancelled."""
    daemon = Daemon(tmp_path)
    (daemon.inbox / "done2.wav").touch()
    for state, told in (("done", "is done"), ("failed", "has failed"), ("cancelled", "is cancelled")):
        write(daemon.spool / "status", f"box/{state}.wav", state)
        for word in (f"box/{state}.wav", f"{state}.", f"b*/{state[:3]}*", "box"):
            done = daemon.command("cancel", "--wait", word)
            assert f"box/{state}.wav: it {told} already, there is nothing to stop\n" in done.stdout
            assert (done.returncode, done.stderr) == (0 if state == "cancelled" and word != "box" else 1, "")
            assert daemon.command("cancel", word).returncode == 0
    (daemon.inbox / "done2.wav").unlink()
    assert list(daemon.inbox.glob("*")) == []


def test_cancel_by_pattern_and_beginning(tmp_path: Path) -> None:
    """A pattern means every song that fits, a beginning the one song that begins so; several are refused and named."""
    daemon = Daemon(tmp_path)
    (daemon.inbox / "box").mkdir()
    for name in ("01 One.wav", "box/02 Two.wav", "box/02 Three.wav", "box/04 [live].wav", "04 Four.wav"):
        make_song(daemon.inbox / name, 0.1)

    def asked() -> set[str]:
        found = {path.relative_to(daemon.inbox).as_posix() for path in daemon.inbox.rglob("*.cancel")}
        for path in daemon.inbox.rglob("*.cancel"):
            path.unlink()
        return found

    assert (daemon.command("cancel", "01").returncode, asked()) == (0, {"01 One.wav.cancel"})
    assert (daemon.command("cancel", "box/02 Tw").returncode, asked()) == (0, {"box/02 Two.wav.cancel"})
    done = daemon.command("cancel", "02*", "box/04 [live].wav")
    wanted = {"box/02 Two.wav.cancel", "box/02 Three.wav.cancel", "box/04 [live].wav.cancel"}
    assert (done.returncode, asked()) == (0, wanted)
    done = daemon.command("cancel", "04")
    assert (done.returncode, asked()) == (1, set())
    assert "2 songs begin so, 04 Four.wav, box/04 [live].wav" in done.stderr
    done = daemon.command("cancel", "9*", "01 One.wav")
    assert (done.returncode, asked()) == (1, {"01 One.wav.cancel"})
    assert "9*: no song of that name is waiting or running" in done.stderr


def test_cancel_takes_no_link_for_a_song(tmp_path: Path) -> None:
    """Nor a FIFO: the daemon leaves them alone, so that neither is asked to stop or named as one that could be."""
    daemon = Daemon(tmp_path)
    make_song(daemon.inbox / "song.wav", 0.1)
    (daemon.inbox / "link.mp3").symlink_to("song.wav")
    os.mkfifo(daemon.inbox / "fifo.mp3")
    for name in ("link.mp3", "fifo.mp3", "nosuch"):
        done = daemon.command("cancel", name)
        said = f"demixd: {name}: no song of that name is waiting or running; there is song.wav\n"
        assert (done.returncode, done.stderr) == (1, said)
    assert list(daemon.inbox.glob("*.cancel")) == []


def test_a_cancel_that_cannot_be_written(tmp_path: Path) -> None:
    """The sentence names the file with its whole path: there is one in every folder of the inbox."""
    daemon = Daemon(tmp_path)
    (daemon.inbox / ".cancel").mkdir()
    done = daemon.command("cancel", "--all")
    assert (done.returncode, done.stderr) == (1, f"demixd: {daemon.inbox}/.cancel: Is a directory\n")


def test_cancel_all(held: Daemon, tmp_path: Path) -> None:
    """`--all --wait` stops what runs and what waits, and counts it."""
    songs = [make_song(tmp_path / f"all {number}.wav", 0.2) for number in range(3)]
    held.command("submit", "--force", *songs)
    held.until(lambda: [held.song(song.name).get("state") for song in songs].count("running") == 1, "one runs")
    held.until(lambda: [held.song(song.name).get("reason") for song in songs].count("queued") == 2, "two wait")
    done = held.command("cancel", "--all", "--wait")
    assert done.returncode == 0, done.stderr
    assert "1 running, 2 waiting" in done.stdout
    assert "3 songs cancelled" in done.stdout
    assert {held.song(song.name)["state"] for song in songs} == {"cancelled"}


def test_cancel_of_a_name_that_nobody_knows(tmp_path: Path) -> None:
    """An unknown name is an error that tells what was probably meant; the other names are cancelled all the same."""
    daemon = Daemon(tmp_path)
    (daemon.inbox / "box").mkdir()
    make_song(daemon.inbox / "box" / "Song.wav", 0.1)
    for name, meant in (
        ("song.wav", "did you mean box/Song.wav?"),
        ("box/Sonk.wav", "box/Song.wav"),
    ):
        done = daemon.command("cancel", name)
        assert done.returncode == 1
        assert f"demixd: {name}: no song of that name" in done.stderr
        assert meant in done.stderr
    assert daemon.command("cancel", "_daemon").returncode == 1
    for name in ("../inbox/box/Song.wav", "/etc/passwd", ""):
        done = daemon.command("cancel", "box/Song.wav", name)
        assert (done.returncode, done.stderr.count("give the song's path below")) == (2, 1)
    assert not (daemon.inbox / "box" / "Song.wav.cancel").exists()
    done = daemon.command("cancel", "nobody.wav", "box/Song.wav")
    assert done.returncode == 1
    assert (daemon.inbox / "box" / "Song.wav.cancel").exists()


# ---- status


def test_watch_on_a_terminal(held: Daemon, tmp_path: Path) -> None:
    """The live table has the daemon, the running song with a bar, the queue and results; Ctrl-C ends it with 0."""
    held.hold.unlink()
    assert held.command("submit", "--wait", make_song(tmp_path / "past.wav", 0.1)).returncode == 0
    held.hold.touch()
    (held.inbox / "placeholder.wav").touch()
    held.command("submit", "--force", *(make_song(tmp_path / f"live {number}.wav", 0.2) for number in range(2)))
    with Terminal(held, "status", "--watch") as terminal:
        terminal.says(" is ready", "Running", "live 0.wav", "━", "79 %", "separate", "Queue: 1", "live 1.wav")
        terminal.says("Not ready: 1", "placeholder.wav", "empty", "Last results", "past.wav", "done")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ends() == 0
        assert b"Traceback" not in terminal.seen
        assert b"\x1b[2J" not in terminal.seen.partition(b" is ready")[2]
        assert terminal.seen.index(b"\x1b[?1049h") < terminal.seen.index(b"\x1b[?1049l")
        assert b"\x1b[?25h" in terminal.seen
    (held.inbox / "placeholder.wav").unlink()


def test_watch_gives_the_terminal_back(daemon: Daemon) -> None:
    """SIGTERM too leaves the screen and the cursor as they were."""
    with Terminal(daemon, "status", "--watch") as terminal:
        terminal.says(" is ready")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ends() == 143
        assert terminal.seen.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h"))


def test_watch_ends_with_its_reader(tmp_path: Path) -> None:
    """`demixd status --watch | head -1` ends, though nothing changes that would have to be written."""
    words = program(Daemon(tmp_path / "d"), "status", "--watch")
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert b"has not run on this spool yet" in command.stdout.readline()
        command.stdout.close()
        try:
            assert command.wait(timeout=PATIENCE_S) == 1
        finally:
            command.kill()
        assert command.stderr.read() == b""


def test_watch_without_a_terminal(tmp_path: Path) -> None:
    """Piped, it is a plain line for each change: the daemon comes, runs a song, is done with it, goes."""
    daemon = Daemon(tmp_path / "d", fake=True, status={"heartbeat_s": 0.2})
    try:
        with Piped(daemon, "status", "--watch") as command:
            command.says("demixd has not run on this spool yet")
            daemon.hold.touch()
            daemon.start().ready()
            command.says(" is ready; 0 queued, 0 not ready\n")
            daemon.command("submit", make_song(tmp_path / "song.wav", 0.2))
            command.says("; running song.wav 79 % separate")
            daemon.hold.unlink()
            command.says("last: song.wav done\n")
            assert daemon.stop() == 0
            command.says("has stopped")
            daemon.start().ready()
            assert daemon.process is not None
            command.says(" is ready; 0 queued, 0 not ready; last: song.wav done")
            daemon.process.kill()
            command.says("is not running: its process has ended, last heard of ")
            command.process.send_signal(signal.SIGINT)
            assert command.ends() == 0
            lines = command.out.read_text().splitlines()
            assert "\x1b" not in command.out.read_text()
            assert all(re.match(r"\d\d:\d\d:\d\d demixd ", line) for line in lines), lines
            assert all(one[9:] != other[9:] for one, other in itertools.pairwise(lines))
    finally:
        daemon.end()


@pytest.mark.daily
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["status", "status --json", "check", "submit nothing.wav", "models list", "--help"])
def test_streams_may_be_closed(daemon: Daemon, closed: str, words: str) -> None:
    """A command whose standard streams are closed does what it does, and ends as it would without that."""
    line = program(daemon, *words.split())
    usual = subprocess.run(line, env=ENVIRONMENT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *line], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert done.returncode == usual.returncode
    assert b"Traceback" not in done.stderr
    assert "2>&-" in closed or done.stderr == usual.stderr


def test_names_cannot_drive_the_terminal(held: Daemon, tmp_path: Path) -> None:
    """No command sends what a name would tell a terminal to do; JSON escapes it, and is the same text."""
    held.hold.unlink()
    raw, stray = tmp_path / EVIL, tmp_path / os.fsdecode(b"stray \xff\x9b.wav")
    for path in (raw, stray):
        make_song(tmp_path / "plain.wav", 0.1).rename(path)
    said = [held.command("submit", "--wait", raw, stray), held.command("status"), held.command("status", "--json")]
    said += [
        held.command("cancel", raw.name),
        held.command("cancel", f"x{raw.name}"),
        held.command("submit", f"{raw}x"),
    ]
    assert [done.returncode for done in said] == [0, 0, 0, 0, 1, 1]
    for done in said:
        assert "evil" in done.stdout + done.stderr
        assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr) is None
    assert EVIL in {song["input"]["name"] for song in json.loads(said[2].stdout)["songs"]}
    with Terminal(held, "status", "--watch") as terminal:
        terminal.says("evil ")
        for obeyed in (b"\x1b]0;owned", b"\x1b[31;5m", "\x9b".encode(), "\u202e".encode()):
            assert obeyed not in terminal.seen
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ends() == 0


def test_plain_status_tells_of_every_song(daemon: Daemon, tmp_path: Path) -> None:
    """Piped, `status --all` is a line for the daemon and one for each song, the newest result first, nothing cut."""
    name = f"{'a long name ' * 9}.wav"
    daemon.command("submit", "--wait", make_song(tmp_path / name, 0.1))
    lines = daemon.command("status", "--all").stdout.splitlines()
    assert re.match(r"demixd \S+ is ready; ", lines[0])
    assert lines[1].startswith(f"{name}: done, in {daemon.outbox}/")


HEAVY = {"torch", "numpy", "soundfile", "av", "mutagen", "sqlite3", "watchdog", "huggingface_hub"}


LIGHT = ["status", "status --json", "check", "submit SONG", "submit --wait SONG", "cancel SONG", "cancel --all --wait"]


@pytest.mark.parametrize("command", [*LIGHT, "models list"])
def test_commands_load_little(daemon: Daemon, tmp_path: Path, command: str) -> None:
    """What works by files alone starts fast: it loads no torch, no numpy, no codec, no ledger and no file events."""
    song = make_song(tmp_path / f"{tmp_path.name}.wav", 0.1)
    if "cancel" in command:
        daemon.command("submit", song)
    given = song.name if "cancel" in command else str(song)
    words = [given if word == "SONG" else word for word in command.split()]
    code = "import sys, demixd.cli.app\ntry: demixd.cli.app.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(daemon.config), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert done.returncode == 0, done.stderr
    assert loaded & HEAVY == set()
    assert [name for name in loaded if name.startswith(("demixd.supervisor", "demixd.worker"))] == []


# ---- what they look at


opened: list[str] = []
"""What this process opens below a folder called `counted`, since it was cleared."""


def count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and "counted" in os.fspath(arguments[0]):
        opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(count)


def test_a_look_reads_only_what_has_changed(tmp_path: Path) -> None:
    """Of 10,000 sidecars a second look opens none, and a third one those that have been replaced since."""
    spool = Spool(configuration.load(Daemon(tmp_path / "counted").config))
    for number in range(10_000):
        write(spool.status, f"{number % 10}/{number}.wav", "done")
    reader = StatusReader(spool)
    counts = []
    for changed in ([], [], ["0/0.wav", "7/7.wav"]):
        for name in changed:
            write(spool.status, name, "failed")
        opened.clear()
        reader.refresh()
        counts.append(len([path for path in opened if path.endswith(".json")]))
    assert counts == [10_000, 0, 2]
    assert len(reader.songs) == 10_000
    assert sorted(song.input.name for song in reader.songs if song.state == "failed") == ["0/0.wav", "7/7.wav"]


def test_foreign_files_in_status(tmp_path: Path) -> None:
    """Whatever else lies in status/ is passed over: broken, foreign, deep, a pipe, a link, a folder."""
    daemon = Daemon(tmp_path)
    status = daemon.spool / "status"
    write(status, "box/good.wav", "done")
    for name, data in {
        "empty": b"",
        "torn": b'{"schema": 1, "se',
        "bytes": b"\xff\xfe\x00",
        "list": b"[1, 2]",
        "other": b'{"hello": "world"}',
        "deep": b"[" * 100_000,
        "wrong": b'{"seq": "x", "job_id": 5, "state": "dancing"}',
        "_daemon": b'{"seq": null}',
        "_inbox": b"{}",
    }.items():
        (status / f"{name}.json").write_bytes(data)
    os.mkfifo(status / "pipe.json")
    (status / "link.json").symlink_to("/dev/zero")
    (status / "folder.json").mkdir()
    done = daemon.command("status")
    assert (done.returncode, done.stderr) == (1, "")  # no daemon
    assert done.stdout.splitlines()[1:] == ["box/good.wav: done"]
    done = daemon.command("status", "--json")
    assert [song["input"]["name"] for song in json.loads(done.stdout)["songs"]] == ["box/good.wav"]
    assert daemon.command("cancel", "other", "wrong", "pipe").returncode == 1


def test_whose_sidecar_it_is(tmp_path: Path) -> None:
    """A drop is followed through its own job's sidecars only; a newer drop's tells how it ended."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    write(spool.status, "song.wav", "done", job_id="old", seq=5)
    follower = Follower(spool, "song.wav")
    seen = []
    for changes in (
        {"job_id": "old", "seq": 6, "state": "done"},  # a late cancel is acknowledged
        {"job_id": "stale", "seq": 4, "state": "failed"},
        {"job_id": "mine", "seq": 7, "state": "waiting"},
        {"job_id": "mine", "seq": 8, "state": "running"},
        {
            "job_id": "newer",
            "seq": 9,
            "state": "waiting",
            "previous": {"job_id": "mine", "state": "done", "output": None},
        },
        {"job_id": "newer", "seq": 10, "state": "failed"},
    ):
        write(spool.status, "song.wav", **changes)
        follower.refresh()
        seen.append(follower.state)
    assert seen == [None, None, "waiting", "running", "done", "done"]
    assert follower.ended
    assert "a newer drop has the name now" in follower.result(spool)


def test_a_result_that_was_made_before_is_no_lost_one(tmp_path: Path) -> None:
    """`submit --wait` says of a duplicate why its result lies in the folder of another song."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    follower = Follower(spool, "dup2.wav")
    write(spool.status, "dup2.wav", "done", duplicate_of="first", output={"dir": "dup1", "files": []})
    follower.refresh()
    assert follower.result(spool) == f"dup2.wav: done, in {spool.outbox / 'dup1'} (made before)"


def test_liveness_goes_by_our_clock() -> None:
    """A daemon lives while `seq` changes within three of its intervals; what its files say of the time counts nothing."""
    liveness = Liveness(0.0)
    looks = [
        (None, 0.0, Health.NEVER_RUN),
        (heartbeat(1), 1.0, Health.LISTENING),
        (heartbeat(1), 3.9, Health.LISTENING),
        (heartbeat(1), 4.1, Health.SILENT),
        (heartbeat(2), 5.0, Health.ALIVE),
        (heartbeat(2), 7.9, Health.ALIVE),
        (None, 8.1, Health.SILENT),
        (heartbeat(1), 9.0, Health.ALIVE),  # a lost ledger begins anew
        (heartbeat(3, "stopping"), 9.5, Health.ALIVE),
        (heartbeat(3, "stopping"), 10.6, Health.STOPPED),
    ]
    assert [liveness.update(daemon, now) for daemon, now, _ in looks] == [health for *_, health in looks]
    assert Liveness(0.0).update(heartbeat(9, "stopping"), 0.1) is Health.STOPPED


@pytest.mark.parametrize("size", [(80, 24), (80, 10), (40, 24), (200, 50), (20, 5)], ids=str)
def test_the_table_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    """However much there is, the table has as many lines and columns as the terminal at most, and counts the rest."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    for number in range(60):
        state = ("done", "failed", "cancelled", "waiting")[number % 4]
        write(spool.status, f"{number} 歌{'x' * number}.wav", state, message="why " * 40 if state == "failed" else "")
    write(spool.status, "slow.wav", "waiting", reason="no-space", message="Make room " * 20)
    write(spool.status, "now.wav", "running")
    reader = StatusReader(spool)
    reader.refresh()
    columns, lines = size
    console = Console(file=io.StringIO(), width=columns, height=lines, force_terminal=False)
    console.print(view.render(overview(reader, Health.ALIVE, 0.0), lines))
    shown = console.file.getvalue().splitlines()
    assert len(shown) <= lines
    assert all(cell_len(line) <= columns for line in shown)
    if columns >= 80:
        assert any(all(word in line for word in ("now.wav", "50 %", "38.2x", "0:11", "separate")) for line in shown)
        assert re.search(r"and \d+ more", "\n".join(shown)) or lines > 30


def test_a_list_gets_its_share() -> None:
    """Lines are dealt one by one to the lists that want more, and no more than there are."""
    assert view.share(10, [2, 50, 4]) == [2, 4, 4]
    assert view.share(3, [9, 9, 9]) == [1, 1, 1]
    assert view.share(-1, [9]) == [0]
    assert view.share(99, [1, 0]) == [1, 0]


def test_texts() -> None:
    """What a terminal obeys is replaced, and nothing else; numbers are as people write them."""
    assert safe(EVIL) == "evil \ufffd[31;5m\ufffd]0;owned\ufffd \ufffd2J \ufffdgnp.wav"
    assert safe("Bjo\u0308rk - 夜 👩‍🎤 [b]{x}\\") == "Bjo\u0308rk - 夜 👩‍🎤 [b]{x}\\"
    assert json.loads(text.as_json({"name": EVIL})) == {"name": EVIL}
    assert [text.percent(fraction) for fraction in (0.0, 0.999, 1.0, -3, 7)] == ["0 %", "99 %", "100 %", "0 %", "100 %"]
    assert [text.clock(seconds) for seconds in (None, 0, 11.4, 59.6, 3725)] == ["", "0:00", "0:11", "1:00", "1:02:05"]
    assert [text.ago(seconds) for seconds in (0, 119, 120, 7200, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 days"]


# ---- check


def found(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The line of each subject; of several, the last."""
    return {line.split()[1]: line for line in done.stdout.splitlines()}


def test_check_finds_all_well(daemon: Daemon) -> None:
    """Where a daemon runs everything is well, the daemon is named, and nothing is left behind."""
    before = tree(daemon.inbox, daemon.outbox)
    done = daemon.command("check")
    assert done.returncode == 0, done.stdout
    lines = found(done)
    folders = "inbox outbox status done failed state work rename lease"
    subjects = f"config {folders} pause watch memory space device models model systemd daemon"
    assert set(lines) == {*subjects.split()}
    assert all(line.startswith("ok ") for line in lines.values()), done.stdout
    assert str(daemon.config) in lines["config"]
    assert "is ready" in lines["daemon"]
    assert tree(daemon.inbox, daemon.outbox) == before


WRONG: dict[str, tuple[dict[str, dict[str, Any]], str, str]] = {
    "no model": ({"model": {"name": "htdemucs"}}, "model", "demixd models fetch htdemucs"),
    "no model of a profile": ({"profiles.x": {"model": "htdemucs_ft"}}, "model", "demixd models fetch htdemucs_ft"),
    "no such model": ({"profiles.x": {"model": "nothing"}}, "model", "[profiles.x] model"),
    "no model for auto": ({"model": {"name": "auto"}}, "model", "demixd models fetch htdemucs"),
    "no spool": ({"paths": {"inbox": "/nowhere/inbox"}}, "inbox", "mkdir -p -- /nowhere"),
    "a blank": ({"paths": {"inbox": "/no where/$(reboot)/inbox"}}, "inbox", "`mkdir -p -- '/no where/$(reboot)'`"),
    "a file as outbox": ({"paths": {"outbox": "/dev/null"}}, "outbox", "no folder: put one in its place"),
    "no files in work": ({"paths": {"work": "/proc"}}, "work", "set [paths] work to a folder on a disk"),
    "no files in state": ({"paths": {"state": "/proc"}}, "state", "put [paths] state on a disk"),
    "no GPU": ({"model": {"device": "cuda:99"}}, "device", "cuda:99"),
}


@pytest.mark.parametrize("case", WRONG)
def test_check_finds_what_is_wrong(tmp_path: Path, case: str) -> None:
    """Each is one line with the remedy, and the exit status is 1; 78 where the configuration is wrong, as without a check."""
    sections, subject, remedy = WRONG[case]
    daemon = Daemon(tmp_path, **sections)
    done = daemon.command("check")
    assert done.returncode == (78 if case == "no such model" else 1)
    line = found(done)[subject]
    assert line.startswith("FAIL")
    assert remedy in line


@pytest.mark.parametrize(("spool", "inbox"), [(0o2775, 0o755), (0o2775, 0o775), (0o755, 0o755)])
def test_check_notes_an_inbox_that_the_group_cannot_write(tmp_path: Path, spool: int, inbox: int) -> None:
    """Where the spool's group may write to the spool, an inbox that a umask has closed to it is a note with the remedy."""
    daemon = Daemon(tmp_path)
    daemon.spool.chmod(spool)
    daemon.inbox.chmod(inbox)
    line = found(daemon.command("check"))["inbox"]
    is_closed = (spool, inbox) == (0o2775, 0o755)
    assert line.startswith("note" if is_closed else "ok")
    assert (f"`chmod g+w {daemon.inbox}`" in line and "umask 002" in line) is is_closed


PINS = {
    "demo": (2, "demo is no model that Demucs publishes"),
    "mdx": (1, "`demixd models fetch mdx`"),
}


def test_check_notes_a_pause(tmp_path: Path) -> None:
    """It says how the file goes, and which hours there are and whether it is one of them."""
    daemon = Daemon(tmp_path, schedule={"hours": "00:00-24:00"})
    assert "songs are begun 00:00-24:00, local time" in found(daemon.command("check"))["pause"]
    assert found(daemon.command("check"))["pause"].startswith("ok ")
    (daemon.inbox / ".pause").touch()
    noted = found(daemon.command("check"))["pause"]
    assert noted.startswith("note ")
    assert f"{daemon.inbox}/.pause is there: nothing is begun before it is removed" in noted
    hour = (datetime.now().hour + 2) % 24
    daemon = Daemon(tmp_path, schedule={"hours": f"{hour}:00-{hour}:01"})
    (daemon.inbox / ".pause").unlink()
    assert ": not now" in found(daemon.command("check"))["pause"]


def test_check_doubts_what_suits_only_some_songs(tmp_path: Path) -> None:
    """Options by which some songs fail, and not others, are a note: the status stays 0."""
    daemon = Daemon(tmp_path, defaults={"clip": "none"})
    (tmp_path / "state" / "models").mkdir(parents=True)
    done = daemon.command("check")
    assert found(done)["options"].startswith('note  options  [defaults] clip = "none" needs float samples')
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("whole", [False, True])
def test_check_reads_the_headers_of_weights(tmp_path: Path, whole: bool) -> None:
    """A file that is no model, or the beginning of one, is a failure with the remedy; a whole one is not."""
    repo = tmp_path / "repo"
    shutil.copytree(store.DEMO_FOLDER, repo)
    (repo / "demo.yaml").rename(repo / "mine.yaml")
    weights = next(repo.glob("*.safetensors"))
    daemon = Daemon(tmp_path, model={"name": "mine", "repo": str(repo)})
    for data in (weights.read_bytes()[: None if whole else -1], bytes(1000)):
        weights.write_bytes(data)
        line = found(daemon.command("check"))["model"]
        is_bad = not whole or data == bytes(1000)
        assert line.startswith("FAIL" if is_bad else "note"), line
        sentence = (
            f"{weights} of the model mine cannot be used: it is cut short, or no safetensors file; put the model's"
        )
        assert (sentence in line) is is_bad


def test_garbage_is_not_put_on_record(tmp_path: Path) -> None:
    """`models verify` of files without a record: what is no model is not good, and can be replaced by what is."""
    models = tmp_path / "state" / "models"
    models.mkdir(parents=True)
    (models / "htdemucs.yaml").write_text("models: ['955717e8']\n")
    (models / "955717e8.safetensors").write_bytes(bytes(1000))
    done = Daemon(tmp_path, model={"name": "htdemucs"}).command("models", "verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert "955717e8.safetensors" in done.stderr
    assert not list(models.glob("*.sha256"))


@pytest.mark.parametrize("name", PINS)
def test_what_cannot_be_pinned(tmp_path: Path, name: str) -> None:
    """`models pin` prints nothing for a model that the catalogue cannot have, or that is not there: a sentence says why."""
    done = Daemon(tmp_path).command("models", "pin", name)
    assert (done.returncode, done.stdout) == (PINS[name][0], "")
    assert PINS[name][1] in done.stderr


@pytest.mark.parametrize("words", ["models fetch", "models verify", "models pin", "bench --seconds 1 --model"])
def test_a_model_that_nobody_has(tmp_path: Path, words: str) -> None:
    """Wherever a word names a model that there is not, the sentence and the status, that of a wrong word, are the same."""
    done = Daemon(tmp_path, model={"name": "demo"}).command(*words.split(), "htdemuc")
    said = (
        f"there is no such model: Demucs publishes none, and {tmp_path}/state/models has none; did you mean htdemucs?"
    )
    said = f"demixd: htdemuc: {said} `demixd models list` shows all\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("verb", ["fetch", "verify", "pin"])
def test_models_by_other_names(tmp_path: Path, verb: str) -> None:
    """`auto` and a model that needs diffq are none that can be had: the sentence says which to name instead."""
    daemon = Daemon(tmp_path)
    for name, said in (
        ("auto", "htdemucs, htdemucs_ft, htdemucs_6s"),
        ("mdx_extra_q", "diffq, which is not supported; use mdx_extra"),
    ):
        done = daemon.command("models", verb, name)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_fetching_the_demo_model(tmp_path: Path) -> None:
    """It is in the package: `models fetch` says where, asks nobody, and prints no other line where this is no terminal."""
    done = Daemon(tmp_path, model={"name": "demo", "device": "cpu"}).command("models", "fetch", "demo")
    assert (done.returncode, done.stdout) == (0, f"demo: in {store.DEMO_FOLDER}\n"), done.stderr
    assert not (tmp_path / "state" / "models").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be led by a link: sudo tests/run")
def test_root_is_not_led_by_links(tmp_path: Path) -> None:
    """Root fetches nothing into a folder in which another user may have put a link, and says who is to."""
    state = tmp_path / "state"
    (state / "models").mkdir(parents=True)
    os.chown(state, 65534, -1)
    done = Daemon(tmp_path).command("models", "fetch", "htdemucs")
    assert done.returncode == 1
    assert f"{state} is another user's: run `sudo -u '#65534' demixd models fetch htdemucs`" in done.stderr
    assert list((state / "models").iterdir()) == []


def test_check_names_a_missing_spool_once(tmp_path: Path) -> None:
    """One line with one remedy, which a shell can take, and none for each folder in it."""
    daemon = Daemon(tmp_path)
    spool = tmp_path / "not there's"
    daemon.config.write_text(daemon.config.read_text().replace(str(daemon.spool), str(spool)))
    done = daemon.command("check")
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(said) == 1
    assert f"{spool} is not there, and inbox, outbox, status, done, failed belong in it: mount it" in said[0]
    command = said[0].split("`")[1]
    subprocess.run(["sh", "-c", command], check=True)
    assert spool.is_dir()


def test_check_hears_a_silent_daemon(tmp_path: Path) -> None:
    """A daemon that has been killed is not taken for one that runs."""
    daemon = Daemon(tmp_path, fake=True, status={"heartbeat_s": 0.2}).start().ready()
    daemon.end()
    line = found(daemon.command("check"))["daemon"]
    assert line.startswith("note")
    assert "has ended" in line
