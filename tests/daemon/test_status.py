"""Status that is true, and in time: what commands say of a daemon that has gone, of a model that is missing, and to nobody."""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from commands import ENVIRONMENT, Piped, heartbeat, program, write
from daemons import PATIENCE_S, ROOT, Daemon, make_song, running
from demixd import config as configuration
from demixd.cli import app, config_option
from demixd.cli.songs.follow import Follower
from demixd.cli.status import view
from demixd.client import names, words
from demixd.client.liveness import Health
from demixd.client.overview import Overview, overview
from demixd.client.reader import StatusReader
from demixd.errors import ConfigError
from demixd.protocol.inbox_names import Kind
from demixd.protocol.status import DaemonStatus, InboxEntry, Paused
from demixd.spool.tree import Spool
from demixd.supervisor.clock import utc

SLOW_S = 600.0
"""A heartbeat for which nobody waits."""


def table(spool: Spool, age_s: float | None = None, height: int | None = None, width: int = 110) -> str:
    """What `status --watch` draws for a daemon that is alive, by default on a wide terminal."""
    reader = StatusReader(spool)
    reader.refresh()
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(view.render(overview(reader, Health.ALIVE, 0.0, age_s), height))
    return console.file.getvalue()


def status_of(spool: Spool) -> Overview:
    """What `status` shows of a daemon that is alive."""
    reader = StatusReader(spool)
    reader.refresh()
    return overview(reader, Health.ALIVE, 0.0)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose heart beats every ten minutes, as on a NAS; each test starts it, and ends it in its own way."""
    daemon = Daemon(tmp_path_factory.mktemp("slow"), fake=True, status={"heartbeat_s": SLOW_S})
    yield daemon
    daemon.end()


def test_a_killed_daemon_is_known_at_once(slow: Daemon) -> None:
    """On its machine nobody waits three intervals: after kill -9 the process is not there, and all commands say so."""
    slow.start().ready()
    assert slow.process is not None
    pid = slow.process.pid
    assert " is ready; 0 queued" in slow.command("status").stdout
    assert slow.command("status").returncode == 0
    slow.end()
    done = slow.command("status")
    assert "is not running: its process has ended, last heard of " in done.stdout
    assert done.returncode == 1
    assert json.loads(slow.command("status", "--json").stdout)["daemon"]["pid"] == pid
    checked = next(line for line in slow.command("check").stdout.splitlines() if line.split()[1] == "daemon")
    assert checked.startswith("note") and f"process {pid}" in checked and "has ended" in checked


def test_the_log_begins_with_the_configuration(slow: Daemon) -> None:
    """Its first line says which one is in force, and who has named it."""
    slow.log.write_bytes(b"")
    slow.start().ready()
    first = slow.log.read_text().splitlines()[0]
    assert first.partition(" ")[2] == f"the configuration: {slow.config}, from --config"
    assert slow.stop() == 0


def test_a_stopped_daemon_is_known_at_once(slow: Daemon) -> None:
    """An open `--watch` says that it has stopped, and does not go on with its stopping; `status` ends with 1."""
    slow.start().ready()
    with Piped(slow, "status", "--watch") as command:
        command.says(" is ready")
        assert slow.stop() == 0
        command.says("has stopped: songs wait until it is started")
    done = slow.command("status")
    assert (done.returncode, "has stopped" in done.stdout) == (1, True)


def test_the_daemon_of_another_machine(tmp_path: Path) -> None:
    """Its process tells nothing here: `status` says when the last sign was, and when the next one was due."""
    daemon = Daemon(tmp_path)
    path = daemon.spool / "status" / "_daemon.json"
    path.parent.mkdir()

    def told(age: str) -> str:
        beat = json.loads(json.dumps(msgspec.to_builtins(heartbeat(5, interval_s=100.0))))
        beat["process"] = {"host": "nas", "boot": "elsewhere", "namespace": 1, "started": 1}
        beat["updated_at"] = subprocess.run(
            ["date", "-u", "-d", age, "+%Y-%m-%dT%H:%M:%S.000Z"], capture_output=True, text=True, check=True
        ).stdout.strip()
        path.write_text(json.dumps(beat))
        done = daemon.command("status")
        return f"{done.returncode} {done.stdout.splitlines()[0]}"

    assert re.match(r"0 demixd 1 is ready \(last heard 2\d s ago\);", told("20 seconds ago"))
    began = time.monotonic()
    due = re.search(r"its next sign of life was due (\d+) s ago;", told("150 seconds ago"))
    assert due and 50 <= int(due[1]) <= 51 + time.monotonic() - began
    assert told("400 seconds ago").startswith("1 ")
    assert "and it probably does not run any more" in told("400 seconds ago")


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    """`status` says which model is missing and how to get it, in sentences that are put together right, and ends with 1."""
    daemon = Daemon(tmp_path, fake=True, model={"name": "htdemucs"})
    (tmp_path / "missing-htdemucs").touch()
    try:
        daemon.start()
        daemon.until(lambda: daemon.read("_daemon.json").get("worker", {}).get("state") == "missing-model", "missing")
        done = daemon.command("status")
        assert done.returncode == 1
        assert " is running, but can separate nothing yet: songs can be dropped, and wait; worker" in done.stdout
        assert "; worker missing-model: The model htdemucs is not here; 0 queued" in done.stdout
        assert ".;" not in done.stdout
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_status_is_brief(tmp_path: Path) -> None:
    """It has every song that is not over and the last ten results, and counts the rest; `--all` and names show them."""
    daemon = Daemon(tmp_path)
    status = daemon.spool / "status"
    for number in range(30):
        since = f"2026-01-01T00:00:{number:02}.000Z"
        write(status, f"old {number:02}.wav", "done", state_since=since)
    write(status, "new.wav", "waiting", tag="table 4")
    lines = daemon.command("status").stdout.splitlines()[1:]
    assert lines[0] == "new.wav: waiting (queued)  tag: table 4"
    assert lines[1:11] == [f"old {number}.wav: done" for number in range(29, 19, -1)]
    assert lines[11:] == ["and 20 more that are over: `demixd status --all` shows them"]
    assert len(daemon.command("status", "--all").stdout.splitlines()) == 32
    assert daemon.command("status", "old 03.wav").stdout == "old 03.wav: done\n"
    assert daemon.command("status", "old 1*", "new").stdout.count("\n") == 11
    done = daemon.command("status", "older.wav")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no song of that name is known; did you mean old " in done.stderr


def test_songs_are_in_the_order_of_work(tmp_path: Path) -> None:
    """First what runs, then the queue as the heartbeat has it, then what is not ready, then results, the newest first."""
    daemon = Daemon(tmp_path)
    status = daemon.spool / "status"
    write(status, "a.wav", "done")
    write(status, "b.wav", "waiting", reason="empty")
    write(status, "c.wav", "waiting")
    write(status, "d.wav", "failed", state_since="2026-01-02T00:00:00.000Z")
    write(status, "e.wav", "waiting")
    write(status, "f.wav", "running")
    beat = msgspec.to_builtins(heartbeat(1))
    beat |= {"queue": [{"job_id": name, "name": name} for name in ("e.wav", "c.wav")]}
    (status / "_daemon.json").write_text(json.dumps(beat))
    for how in ([], ["--all"]):
        lines = daemon.command("status", *how).stdout.splitlines()[1:]
        assert [line.partition(":")[0] for line in lines] == [f"{name}.wav" for name in "fecbda"]


def test_the_files_of_named_songs(tmp_path: Path) -> None:
    """`status NAME --json` has the sidecars of these songs, and no other; of a name that no song has it says so."""
    daemon = Daemon(tmp_path)
    for name in ("one.wav", "box/two.wav", "three.wav"):
        write(daemon.spool / "status", name, "done")
    told = json.loads(daemon.command("status", "box/two.wav", "th*", "--json").stdout)
    assert [song["input"]["name"] for song in told["songs"]] == ["box/two.wav", "three.wav"]
    assert told["songs"][0]["progress"]["more"] == 1 and "daemon" in told
    done = daemon.command("status", "one.wav", "four.wav", "--json")
    assert [song["input"]["name"] for song in json.loads(done.stdout)["songs"]] == ["one.wav"]
    assert done.returncode == 1 and "four.wav: no song of that name is known" in done.stderr
    done = daemon.command("status", "four.wav", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "four.wav: no song of that name is known" in done.stderr


@pytest.mark.parametrize("health", Health)
def test_a_daemon_that_nobody_hears_of_may_be_held(tmp_path: Path, health: Health) -> None:
    """Until it has its folders a daemon writes no heartbeat: where none is heard, `status` says where the reason is told."""
    status = tmp_path / "spool" / "status"
    status.mkdir(parents=True)
    (status / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(5)))
    reader = StatusReader(Spool(configuration.parse(f'[paths]\nspool = "{status.parent}"\n', "demixd.toml")))
    reader.refresh()
    unheard = {Health.NEVER_RUN, Health.SILENT}
    assert (words.HELD in words.sentence(overview(reader, health, 9.0, 1.0))) is (health in unheard)
    doubtful = words.sentence(overview(reader, health, 9.0, 400.0))
    assert (words.HELD in doubtful) is (health in {*unheard, Health.GONE, Health.LISTENING})


@pytest.mark.parametrize("health", [Health.GONE, Health.SILENT, Health.STOPPED])
def test_nobody_works_at_a_song_that_a_daemon_has_left(tmp_path: Path, health: Health) -> None:
    """`status` says that it begins again, with no share and no time left, in the brief line, its own and the table."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    write(spool.status, "song.wav", "running")
    (spool.status / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(5)))
    reader = StatusReader(spool)
    reader.refresh()
    shown = overview(reader, health, 9.0, 1.0)
    console = Console(file=io.StringIO(), width=100)
    console.print(view.render(shown))
    assert isinstance(console.file, io.StringIO)
    for told in (words.line(shown), words.song_line(shown.running[0], shown, spool.outbox), console.file.getvalue()):
        assert "song.wav" in told and words.AGAIN in told
        assert "%" not in told and "done in" not in told


def test_status_of_several_songs_that_begin_so(tmp_path: Path) -> None:
    """`status 07` shows all that fit, in lines and as JSON, and ends as it does for one name."""
    daemon = Daemon(tmp_path)
    for name in ("07 a.wav", "box/07 b.wav", "08 c.wav"):
        write(daemon.spool / "status", name, "done")
    (daemon.spool / "status" / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(1)))
    done = daemon.command("status", "07")
    assert (done.returncode, done.stdout) == (
        daemon.command("status", "08").returncode,
        "07 a.wav: done\nbox/07 b.wav: done\n",
    )
    told = json.loads(daemon.command("status", "07", "--json").stdout)
    assert [song["input"]["name"] for song in told["songs"]] == ["07 a.wav", "box/07 b.wav"]


def test_status_of_songs_of_which_one_is_not_known(tmp_path: Path) -> None:
    """The others are shown, each unknown name is complained of, and the status is 1."""
    daemon = Daemon(tmp_path)
    write(daemon.spool / "status", "a.wav", "done")
    (daemon.spool / "status" / "_daemon.json").write_bytes(msgspec.json.encode(heartbeat(1)))
    done = daemon.command("status", "None", "a", "Nope")
    assert (done.returncode, done.stdout) == (1, "a.wav: done\n")
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        f"demixd: {name}: no song of that name is known" for name in ("None", "Nope")
    ]


def test_songs_that_no_daemon_has_seen(tmp_path: Path) -> None:
    """While none runs `status` has the songs that were dropped since, between those that wait and the results, by name too."""
    daemon = Daemon(tmp_path)
    for name in ("new.wav", "waits.wav"):
        make_song(daemon.inbox / name, 0.1)
    write(daemon.spool / "status", "waits.wav", "waiting")
    write(daemon.spool / "status", "over.wav", "done")
    lines = daemon.command("status").stdout.splitlines()
    unseen = "new.wav: waiting in the inbox, not seen yet"
    assert "1 queued, 0 not ready, 1 not seen yet; " in lines[0]
    assert lines[1:] == ["waits.wav: waiting (queued)", unseen, "over.wav: done"]
    done = daemon.command("status", "new")
    assert (done.returncode, done.stdout) == (1, f"{unseen}\n")


def test_what_a_daemon_leaves_alone_is_not_unseen(tmp_path: Path) -> None:
    """Of a link, a pipe, a name or folder that the daemon does not take nothing is said; nor of sub-folders if it walks none."""
    daemon = Daemon(tmp_path)
    for name in (
        "new.wav",
        "notes.txt",
        "song.wav.part",
        "box/new.wav",
        "@eaDir/one.wav",
        "x.json/one.wav",
        ".x/one.wav",
    ):
        (daemon.inbox / name).parent.mkdir(exist_ok=True)
        (daemon.inbox / name).touch()
    (daemon.inbox / "link.wav").symlink_to("new.wav")
    os.mkfifo(daemon.inbox / "pipe.wav")
    spool = Spool(configuration.load(daemon.config))
    assert names.unseen(spool, (), recursive=True) == {"new.wav", "box/new.wav"}
    assert names.unseen(spool, (), recursive=False) == {"new.wav"}


def test_a_song_that_was_dropped_again_is_unseen(tmp_path: Path) -> None:
    """A song that is over tells of its own file, which may have been left in the inbox, and of no other of its name."""
    daemon = Daemon(tmp_path)
    reader = StatusReader(spool := Spool(configuration.load(daemon.config)))
    for name in ("kept.wav", "again.wav"):
        there = make_song(daemon.inbox / name, 0.1).stat()
        given = {"name": name, "name_b64": "", "size": there.st_size, "mtime_ns": there.st_mtime_ns, "inode": 1}
        given |= dict.fromkeys(("sha256", "duration_s", "frames", "rate", "channels", "format"))
        write(daemon.spool / "status", name, "done", input=given)
    make_song(daemon.inbox / "again.wav", 0.2)
    reader.refresh()
    assert names.unseen(spool, reader.songs, recursive=True) == {"again.wav"}


def test_songs_that_a_daemon_will_see(tmp_path: Path) -> None:
    """While one may run `status` does not look into the inbox: the daemon explains each entry within a scan."""
    daemon = Daemon(tmp_path)
    make_song(daemon.inbox / "new.wav", 0.1)
    (daemon.spool / "status").mkdir(exist_ok=True)
    for updated_at, count in ((f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z", 0), ("2026-01-01T00:00:00.000Z", 1)):
        beat = msgspec.to_builtins(heartbeat(5, interval_s=600.0)) | {"updated_at": updated_at}
        beat["process"] = {"host": "nas", "boot": "elsewhere", "namespace": 1, "started": 1}
        (daemon.spool / "status" / "_daemon.json").write_text(json.dumps(beat))
        assert daemon.command("status").stdout.count("new.wav: waiting in the inbox") == count


def test_unseen_songs_in_the_table(tmp_path: Path) -> None:
    """They are a list of their own, cut like the others to what fits."""
    daemon = Daemon(tmp_path)
    reader = StatusReader(Spool(configuration.load(daemon.config)))
    shown = overview(reader, Health.NEVER_RUN, 0.0, unseen={f"{number:02}.wav" for number in range(50)})
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    console.print(view.render(shown, 10))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "In the inbox, not seen yet: 50" in said and "00.wav" in said and "more" in said
    assert len(said.splitlines()) <= 10


def test_before_the_first_start(tmp_path: Path) -> None:
    """Nothing is wrong with a spool that is new: `status` says what to do; of one that is not there it says that."""
    daemon = Daemon(tmp_path)
    for folder in daemon.spool.iterdir():
        folder.rmdir()
    said = f"demixd has not run on this spool yet: start it with `demixd run`. {words.HELD}; "
    assert daemon.command("status").stdout == f"{said}0 queued, 0 not ready\n"
    daemon.spool.rmdir()
    assert daemon.command("status").stdout.startswith(f"{said}{daemon.spool} is not there: mount it, or make it; ")


def test_what_starts_an_installed_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the installer has made a unit for the configuration, `status` names that one, and else `demixd run`."""
    monkeypatch.setattr(config_option, "UNITS", tmp_path / "units")
    monkeypatch.setattr(configuration, "DEFAULT_PATH", tmp_path / "demixd.toml")
    (tmp_path / "units/demixd@sing.service.d").mkdir(parents=True)
    (tmp_path / "units/demixd@sing.service.d/50-paths.conf").touch()
    for name, start in ("demixd", "demixd run"), ("demixd@sing", "sudo systemctl start demixd@sing"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'[paths]\nspool = "{tmp_path}"\n')
        said = CliRunner().invoke(app.commands, ["--config", str(file), "status"]).stdout
        assert said.startswith(f"demixd has not run on this spool yet: start it with `{start}`. ")


def test_one_mistake_is_told_once(tmp_path: Path) -> None:
    """Where the daemon has refused the configuration as well, `status` leaves its warning out: the command's own says it."""
    daemon = Daemon(tmp_path)
    good = daemon.config.read_text()
    daemon.config.write_text(good.replace("[inbox]", "[inbox]\nsetle = 3"))
    with pytest.raises(ConfigError) as refused:
        configuration.load(daemon.config)
    wrong = str(refused.value)
    warnings = [f"The configuration was not read again, the old one stays: {wrong}.", "Another."]
    (daemon.spool / "status").mkdir()
    beat = msgspec.to_builtins(heartbeat(1)) | {"warnings": warnings}
    (daemon.spool / "status" / "_daemon.json").write_text(json.dumps(beat))
    done = daemon.command("status")
    assert (done.stderr.count(wrong), done.stdout.count(wrong), done.stdout.count("; Another; ")) == (1, 0, 1)
    daemon.config.write_text(good)
    assert daemon.command("status").stdout.count(wrong) == 1


def test_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    """`status` says in its first sentence that songs can be dropped already."""
    shown = overview(StatusReader(Spool(configuration.load(Daemon(tmp_path).config))), Health.ALIVE, 0.0)
    shown = msgspec.structs.replace(shown, daemon=heartbeat(1, "warming"))
    assert words.sentence(shown) == "demixd 1 is loading its model: songs can be dropped, and wait for it"


@pytest.mark.parametrize(
    ("worker", "doing"),
    [
        ("starting", "loading its model"),
        ("fetching", "fetching its model"),
        ("tuning", "looking for the fastest way to run its model, once on this machine"),
    ],
)
def test_a_worker_that_is_not_ready(tmp_path: Path, worker: str, doing: str) -> None:
    """A daemon that is ready is not all that songs need: the first sentence says what its worker is at."""
    beat = heartbeat(1)
    beat = msgspec.structs.replace(beat, worker=msgspec.structs.replace(beat.worker, state=worker))
    shown = overview(StatusReader(Spool(configuration.load(Daemon(tmp_path).config))), Health.ALIVE, 0.0)
    shown = msgspec.structs.replace(shown, daemon=beat)
    assert words.sentence(shown) == f"demixd 1 is {doing}: songs can be dropped, and wait for it"


@pytest.mark.parametrize(
    ("paused", "told"),
    [
        (Paused(by="file"), ": songs can be dropped, and wait until .pause is removed from the inbox"),
        (
            Paused(by="file", now=True),
            ", and the running songs wait, too: songs can be dropped, and wait until .pause is removed from the inbox",
        ),
        (Paused(by="schedule"), " by [schedule] hours: songs can be dropped, and wait"),
        (Paused(by="schedule", until="no time"), " by [schedule] hours: songs can be dropped, and wait"),
    ],
)
def test_a_pause(tmp_path: Path, paused: Paused, told: str) -> None:
    """`status` says in its first sentence that there is one, and what ends it; it is no failure."""
    shown = overview(StatusReader(Spool(configuration.load(Daemon(tmp_path).config))), Health.ALIVE, 0.0)
    shown = msgspec.structs.replace(shown, daemon=msgspec.structs.replace(heartbeat(1), paused=paused))
    assert words.sentence(shown) == f"demixd 1 is paused{told}"
    assert shown.is_well


def test_the_end_of_a_pause_is_in_local_time(tmp_path: Path) -> None:
    until = datetime.now().astimezone().replace(hour=22, minute=5, second=0, microsecond=0)
    paused = Paused(by="schedule", until=utc(until.timestamp()))
    shown = overview(StatusReader(Spool(configuration.load(Daemon(tmp_path).config))), Health.ALIVE, 0.0)
    shown = msgspec.structs.replace(shown, daemon=msgspec.structs.replace(heartbeat(1), paused=paused))
    assert "until 22:05: songs" in words.sentence(shown)


@pytest.mark.parametrize(("worker", "colour"), [("ready", 32), ("starting", 32), ("missing-model", 33), ("dead", 33)])
def test_the_light_is_green_where_songs_can_be_separated(tmp_path: Path, worker: str, colour: int) -> None:
    """A daemon that runs, but can separate nothing, has a yellow one."""
    beat = heartbeat(1)
    beat = msgspec.structs.replace(beat, worker=msgspec.structs.replace(beat.worker, state=worker))
    shown = overview(StatusReader(Spool(configuration.load(Daemon(tmp_path).config))), Health.ALIVE, 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(view.render(msgspec.structs.replace(shown, daemon=beat)))
    assert console.file.getvalue().startswith(f"\x1b[{colour}m● ")


def with_workers(*changes: dict[str, Any]) -> DaemonStatus:
    """A heartbeat of a daemon with so many workers, each as the usual one with its changes."""
    beat = heartbeat(1)
    workers = [msgspec.structs.replace(beat.worker, id=f"{n}", **each) for n, each in enumerate(changes, 1)]
    return msgspec.structs.replace(beat, worker=workers[0], workers=tuple(workers))


NO_ROOM: dict[str, Any] = {"state": "no-worker", "pid": None, "model": None, "message": "No machine has a GPU now"}


def test_workers_that_can_separate_nothing(tmp_path: Path) -> None:
    """Also where another can: the first line says so, and the table with those that can; of alike ones at once."""
    daemon = Daemon(tmp_path)
    spool = Spool(configuration.load(daemon.config))
    spool.status.mkdir(parents=True, exist_ok=True)
    gone = {"state": "without-gpu", "model": None, "message": "cuda:7 is not available"}
    beat = with_workers({"pid": None, "host": "vm"}, *[NO_ROOM] * 5, gone)
    (spool.status / "_daemon.json").write_bytes(msgspec.json.encode(beat))
    told = ["worker 2, 3, 4 and 2 more no-worker: No machine has a GPU now", f"worker 7 without-gpu: {gone['message']}"]
    assert f" is ready; {told[0]}; {told[1]}; 0 queued" in words.line(status_of(spool))
    lines = [line.strip() for line in table(spool).splitlines()]
    assert lines[1:4] == ["worker 1 on vm: htdemucs on cuda:0 (A GPU), float16", *[f"! {each}" for each in told]]


@pytest.mark.parametrize(
    ("number", "host", "who"),
    [(1, None, ""), (1, "vm", " on vm"), (2, None, " by worker 2"), (2, "vm", " by worker 2 on vm")],
)
def test_who_has_a_song(tmp_path: Path, number: int, host: str | None, who: str) -> None:
    """The worker's number where there are several, and its machine where that is one of a cluster."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    facts = {"model": "m", "model_sha256": "0", "device": "cpu", "device_name": "", "precision": "float32"}
    write(spool.status, "Mid.flac", "running", engine={**facts, "worker": f"{number}", "host": host})
    (spool.status / "_daemon.json").write_bytes(msgspec.json.encode(with_workers(*[{}] * number)))
    assert f"running Mid.flac 50 % separate{who}, 38.2x" in words.line(status_of(spool))


def test_what_is_no_song_is_explained(tmp_path: Path) -> None:
    """Covers and the like are counted in the line, and `--all` lists them; `status NAME` has each, with its reason in words.

    What programs keep for themselves is not counted.
    """
    with running(tmp_path, fake=True, status={"heartbeat_s": 0.5}) as daemon:
        for name in ("cover.jpg", ".DS_Store"):
            (daemon.inbox / name).touch()
        (daemon.inbox / "link.mp3").symlink_to("/dev/zero")
        daemon.until(lambda: len(daemon.read("_inbox.json").get("entries", [])) == 3, "they are told of")
        link = "link.mp3: no song (not-a-regular-file): it is a link, FIFO, socket or device, which is never followed or read"
        cover = (
            "cover.jpg: no song (not-audio): its name has no extension of audio: rename or convert it, if it is some"
        )
        hidden = ".DS_Store: no song (ignored-name): by such a name programs and systems mark files of their own"
        brief = daemon.command("status").stdout
        assert "; 2 entries of the inbox are no songs (`demixd status --all` lists them)\n" in brief
        lines = daemon.command("status", "--all").stdout.splitlines()[1:]
        assert sorted(lines) == sorted([hidden, cover, f"{link}: put the file itself there"])
        done = daemon.command("status", ".DS_Store", "link.mp3")
        assert (done.returncode, done.stdout) == (0, f"{hidden}\n{link}: put the file itself there\n")


def test_misnamed_option_files() -> None:
    """What has to be in the name is said where the song shows it, or that an option file has its song's name."""

    def told(name: str, reason: Kind) -> str:
        entry = InboxEntry(name=name, name_b64="", reason=reason)
        return words.entry_line(entry, ["b/wrongplace.mp3", "wp2.mp3"]).partition("): ")[2]

    assert told("b/wrongplace.job.json", Kind.LONELY_OPTIONS) == (
        "for b/wrongplace.mp3 it must be called b/wrongplace.mp3.job.json"
    )
    assert told("gone.job.json", Kind.LONELY_OPTIONS).startswith("it is an option file, and its song is not there")
    assert told("wp2.mp3.json", Kind.NOT_AUDIO) == "as an option file for wp2.mp3 it must be called wp2.mp3.job.json"
    assert told("job.json", Kind.NOT_AUDIO).endswith("such as Song.mp3.job.json")


def test_warnings_are_shown(tmp_path: Path) -> None:
    """Below the song where it is named, with `submit --wait` too; in an overview it has a mark."""
    daemon = Daemon(tmp_path)
    warnings = ["opus cannot carry 44100 Hz; the stems have 48000 Hz."]
    write(daemon.spool / "status", "song.wav", "done", warnings=warnings, output={"dir": "song", "files": []})
    done = f"song.wav: done, in {daemon.outbox / 'song'} (1 warning)"
    assert daemon.command("status").stdout.splitlines()[1] == done
    below = ["  warning: opus cannot carry 44100 Hz; the stems have 48000 Hz."]
    assert daemon.command("status", "song.wav").stdout.splitlines() == [done, *below]
    spool = Spool(configuration.load(daemon.config))
    song = Follower(spool, "song.wav")
    song._before = None
    song.refresh()
    assert song.warnings == below
    assert "done (1 warning)" in table(spool)


def test_a_missing_model_is_said_once(tmp_path: Path) -> None:
    """In the first line, and not again for each song that waits for it; a song that is named has it in its own line."""
    daemon = Daemon(tmp_path)
    missing = "The model htdemucs is not here"
    for name in ("one.wav", "two.wav"):
        write(daemon.spool / "status", name, "waiting", reason="model-missing", message=missing)
    beat = msgspec.to_builtins(heartbeat(1))
    beat["worker"] |= {"state": "missing-model", "model": None, "message": missing}
    (daemon.spool / "status" / "_daemon.json").write_text(json.dumps(beat))
    lines = daemon.command("status").stdout.splitlines()
    assert missing in lines[0] and lines[1:] == [f"{name}.wav: waiting (model-missing)" for name in ("one", "two")]
    assert daemon.command("status", "one.wav").stdout == f"one.wav: waiting (model-missing), {missing}\n"


def test_every_reason_has_words() -> None:
    """Whatever an entry of the inbox is, but a song and what belongs to it, `status` can say why; of a later version's, that."""
    jobs = {Kind.SONG, Kind.CANCEL, Kind.OPTIONS}
    assert words.NO_SONG.keys() == set(Kind) - jobs
    entry = InboxEntry(name="x", name_b64="", reason="new-reason")
    assert words.entry_line(entry) == "x: no song (new-reason): a newer demixd knows why"


def test_what_is_over_is_done_in_no_time(tmp_path: Path) -> None:
    """The heartbeat may be older than the end of a song: the time that it tells of the queue is not that song's any more."""
    daemon = Daemon(tmp_path)
    for name, state in (("gone.wav", "cancelled"), ("bad.wav", "failed"), ("next.wav", "waiting")):
        write(daemon.spool / "status", name, state)
    beat = msgspec.to_builtins(heartbeat(1))
    queue = [{"job_id": name, "name": name} for name in ("gone.wav", "bad.wav", "next.wav")]
    (daemon.spool / "status" / "_daemon.json").write_text(
        json.dumps({**beat, "queue": queue, "queue_eta_s": [82.0] * 3})
    )
    lines = daemon.command("status", "*.wav").stdout.splitlines()
    assert lines == ["bad.wav: failed", "gone.wav: cancelled", "next.wav: waiting (queued), 1:22 left"]


def test_a_result_that_was_made_before_is_said(tmp_path: Path) -> None:
    """Of a duplicate `status` says so in its lines, in the brief sentence and in the table: its folder has another's name."""
    daemon = Daemon(tmp_path)
    write(daemon.spool / "status", "dup2.wav", "done", duplicate_of="dup1.wav", output={"dir": "dup1", "files": []})
    lines = daemon.command("status").stdout.splitlines()
    assert lines[0].endswith("; last: dup2.wav done (made before)")
    assert lines[1] == f"dup2.wav: done, in {daemon.outbox / 'dup1'} (made before)"
    assert "done  in dup1 (made before)" in table(Spool(configuration.load(daemon.config)))


def test_cancelled_says_so_once(tmp_path: Path) -> None:
    """A message that is the state again is left out."""
    daemon = Daemon(tmp_path)
    write(daemon.spool / "status", "song.wav", "cancelled", message="Cancelled")
    write(daemon.spool / "status", "gone.wav", "cancelled", message="The song was deleted.")
    lines = daemon.command("status").stdout.splitlines()[1:]
    assert sorted(lines) == ["gone.wav: cancelled, The song was deleted.", "song.wav: cancelled"]


def test_the_table_has_tags_lengths_times_and_a_clock(tmp_path: Path) -> None:
    """A running song, one in the queue and a result each have their facts; what is no song is named."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    long = {"size": 1, "mtime_ns": 0, "inode": 1, "sha256": None, "duration_s": 205.0, "name_b64": ""}
    long |= {"frames": 1, "rate": 44100, "channels": 2, "format": "mp3"}
    write(spool.status, "now.mp3", "running", tag="table 4", input={**long, "name": "now.mp3"})
    write(spool.status, "next.mp3", "waiting", tag="table 5")
    write(spool.status, "past.mp3", "cancelled", message="Cancelled")
    entries = [
        {"name": name, "name_b64": "", "reason": why} for name, why in (("a.jpg", "not-audio"), (".b", "ignored-name"))
    ]
    (spool.status / "_inbox.json").write_text(json.dumps({"schema": 1, "seq": 1, "entries": entries, "updated_at": ""}))
    beat = msgspec.to_builtins(heartbeat(1))
    beat |= {"queue": [{"job_id": "next.mp3", "name": "next.mp3"}], "queue_eta_s": [65.0]}
    (spool.status / "_daemon.json").write_text(json.dumps(beat))
    text = table(spool, age_s=5.0, height=24)
    lines = {line.split()[0] if line.split() else "": line for line in text.splitlines()}
    assert re.search(r"^● demixd 1 is ready  \d\d:\d\d:\d\d$", text.splitlines()[0].rstrip())
    assert "now.mp3  3:25 long  tag: table 4" in lines["now.mp3"] and "0:11 left" in lines["now.mp3"]
    assert "next.mp3  tag: table 5" in lines["1"] and lines["1"].rstrip().endswith("1:00 left")
    assert "1 entry of the inbox is no song: a.jpg (not-audio)" in text
    assert "cancelled" in text and "Cancelled" not in text


def test_a_narrow_table_leaves_out_lengths_first(tmp_path: Path) -> None:
    """Name and tag stay whole where they fit without the length, be the song running, queued or over."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    facts = {"size": 1, "mtime_ns": 0, "inode": 1, "sha256": None, "duration_s": 205.0, "name_b64": ""}
    facts |= {"frames": 1, "rate": 44100, "channels": 2, "format": "flac"}
    for name, state in (("now.flac", "running"), ("practice/Long3.flac", "waiting"), ("Short.flac", "done")):
        write(spool.status, name, state, tag="table 4", input={**facts, "name": name})
    narrow, wide = table(spool, width=80), table(spool)
    assert "practice/Long3.flac  tag: table 4 " in narrow and "practice/Long3.flac  3:25 long  tag: table 4 " in wide
    assert " now.flac  tag: table 4 " in narrow
    assert "Short.flac  3:25 long  tag: table 4 " in narrow


@pytest.mark.parametrize(
    ("told", "is_more"), [({}, False), ({"message": "Too long."}, True), ({"warnings": ["a"]}, True)]
)
def test_the_table_says_where_all_of_a_song_is_told(tmp_path: Path, told: dict[str, Any], is_more: bool) -> None:
    """That is where a song has a sentence, which may be cut, or warnings, which are only counted."""
    spool = Spool(configuration.load(Daemon(tmp_path).config))
    write(spool.status, "song.wav", "failed", **told)
    assert (view.MORE in table(spool)) is is_more


# ---- nobody listens


SAYING = ["--help", "--version", "status", "status --json", "check", "models list", "submit SONG", "cancel --all"]


@pytest.mark.parametrize("command", SAYING)
def test_a_full_output(tmp_path: Path, command: str) -> None:
    """What cannot be written is one sentence, with status 1, and no traceback."""
    daemon = Daemon(tmp_path)
    words = [str(make_song(tmp_path / "song.wav", 0.1)) if word == "SONG" else word for word in command.split()]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            program(daemon, *words), env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "demixd: standard output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.daily
@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", [*SAYING, "status --nonsense"])
def test_closed_streams(tmp_path: Path, command: str, closed: str) -> None:
    """A closed stream is as good as /dev/null: the command does the same, and ends with the same status."""
    daemon = Daemon(tmp_path)
    words = [str(make_song(tmp_path / "song.wav", 0.1)) if word == "SONG" else word for word in command.split()]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *program(daemon, *words)]
    done = subprocess.run(shell, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    (daemon.inbox / "song.wav").unlink(missing_ok=True)
    again = subprocess.run(program(daemon, *words), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == again.returncode
    assert (done.stderr == again.stderr) or "2>&-" in closed


@pytest.mark.parametrize("module", ["demixd.cli.tour", "demixd.cli.unit"])
def test_other_programs_with_closed_streams(tmp_path: Path, module: str) -> None:
    """What `daemon/try` and the installer run does not fall over a closed stream either."""
    words = {
        "demixd.cli.tour": [str(tmp_path / "missing.wav")],
        "demixd.cli.unit": ["config", "demixd", "/srv/x", "", ""],
    }
    shell = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-P", "-m", module, *words[module]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(shell, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if module.endswith("tour") else 0)


def test_a_daemon_with_closed_streams(tmp_path: Path) -> None:
    """It runs all the same, and none of its own files gets the number of a stream."""
    daemon = Daemon(tmp_path, fake=True)
    shell = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    try:
        daemon.start(under=shell).ready()
        assert daemon.process is not None
        streams = [str(Path(f"/proc/{daemon.process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert streams == ["/dev/null"] * 3
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()
