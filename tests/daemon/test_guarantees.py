"""What a consumer may rely on: the statements (a) to (h) of the contract's section 1.8, by their names."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from daemons import Daemon, make_song, running
from watching import MOVED_TO, Events, Histories, again_and_again, faults, needs_strace, sha256, traced

FINAL = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that leave it as it was. Its stems lie in folders of their own."""
    with running(tmp_path_factory.mktemp("daemon"), fake=True, defaults={"naming": "by stem/{stem}.{ext}"}) as one:
        yield one


def drop(daemon: Daemon, name: str, seconds: float = 0.5, **how: Any) -> Path:
    """A song that was written elsewhere is renamed to `name`; a copy of it, with its times, stays where it was."""
    source = make_song(daemon.folder / f"dropped-{Path(name).name}", seconds, **how)
    target = daemon.inbox / name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copy2(source, part)
    part.rename(target)
    return source


# ---- (a)


def test_a_complete_at_first_sight(daemon: Daemon) -> None:
    """A folder in the outbox that holds `stems.json` is complete: at its very first sight it is as its manifest says."""
    found: dict[Path, list[str]] = {}

    def look() -> None:
        for folder in (daemon.outbox, daemon.outbox / "deep"):
            for name in os.listdir(folder):  # noqa: PTH208 - as fast as can be
                path = folder / name
                if name not in (".demixd", "deep") and path not in found:
                    assert (path / "stems.json").exists(), "a result without its manifest"
                    found[path] = faults(path)

    names = ["first.wav", "second.flac", "deep/third.wav"]
    (daemon.outbox / "deep").mkdir()
    events = Events(daemon.outbox, daemon.outbox / "deep")
    with again_and_again(look) as raised:
        for name in names:
            drop(daemon, name, 20.0)
        for name in names:
            assert daemon.final(name)["state"] == "done"
    assert raised == []
    places = {daemon.outbox / Path(name).with_suffix("") for name in names}
    assert places <= found.keys()
    assert [fault for each in found.values() for fault in each] == []
    told = [(folder / name, what) for folder, name, what in events.take()]
    assert sorted(told) == [(place, MOVED_TO) for place in sorted(places)], "they come by a rename, and nothing else"


def test_a_nothing_changes_afterwards(daemon: Daemon) -> None:
    """A published folder never changes, not even where a later song's folder has its name."""
    drop(daemon, "Song.wav")
    daemon.final("Song.wav")
    place = daemon.outbox / "Song"
    daemon.until((daemon.spool / "done" / "Song.wav").exists, "put away")
    before = {path: path.stat() for path in (place, *place.rglob("*"))}
    events = Events(place, place / "by stem")
    drop(daemon, "Song/inner.wav")
    drop(daemon, "SONG.wav", 0.4)
    drop(daemon, "Song (2)/inner.wav", 0.3)
    dirs = {name: daemon.final(name)["output"]["dir"] for name in ("Song/inner.wav", "SONG.wav", "Song (2)/inner.wav")}
    drop(daemon, "Song.wav", 0.6)
    daemon.until(lambda: (s := daemon.song("Song.wav"))["previous"] and s["state"] == "done", "again")
    assert dirs["Song/inner.wav"] == "Song (2)/inner"
    assert dirs["Song (2)/inner.wav"] == "Song (2)/inner (2)"
    assert dirs["SONG.wav"].startswith("SONG (")
    assert faults(place) == []
    after = {path: path.stat() for path in (place, *place.rglob("*"))}
    assert {path: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for path, s in after.items()} == {
        path: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for path, s in before.items()
    }
    assert events.take() == []


PATHS = re.compile(r'<([^>]*)>|"((?:[^"\\]|\\.)*)"')


class Calls:
    """What strace has written, in order: each call with the paths in it, or what is written."""

    def __init__(self, log: Path) -> None:
        self.all: list[tuple[str, list[str]]] = []
        pending: dict[str, str] = {}
        for line in log.read_text(errors="replace").splitlines():
            pid, _, rest = line.partition(" ")
            if "<unfinished ...>" in rest:
                pending[pid] = rest.split("<unfinished")[0]
                continue
            if "resumed>" in rest:
                rest = pending.pop(pid, "") + rest.split("resumed>")[1]
            found = re.match(r"\s*(\w+)\((.*)\)\s+= (-?\d+)", rest)
            if found and found[3] != "-1":
                self.all.append((found[1], [a or b for a, b in PATHS.findall(found[2])]))

    def first(self, call: str, *paths: str, after: int = -1) -> int:
        """Where a call with all those texts among its own comes first, and none otherwise: -1."""
        for number, (name, texts) in enumerate(self.all):
            if number > after and name.startswith(call) and all(any(path in text for text in texts) for path in paths):
                return number
        return -1

    def sync(self, path: Path, after: int = -1) -> int:
        """Where fsync(2) of just that path comes first; past the end where it never does."""
        found = (
            n for n, (name, texts) in enumerate(self.all) if n > after and name == "fsync" and texts == [str(path)]
        )
        return next(found, len(self.all))


@contextmanager
def asked(daemon: Daemon, *what: str) -> Iterator[Path]:
    """Where strace, told `what` to trace, writes what daemon and worker ask of the kernel meanwhile."""
    log, told = daemon.folder / "calls", daemon.read("_daemon.json")
    with traced(log, [told["pid"], told["worker"]["pid"]], "-y", "-s", "200", *what):
        yield log


@needs_strace
def test_a_durable_before_done_is_shown(daemon: Daemon) -> None:
    """Every file and folder of a result is on the disk before its rename, and the rename before the sidecar says `done`."""
    with asked(daemon, "-e", "trace=fsync,renameat,renameat2,write") as log:
        drop(daemon, "new folder/newer/durable.wav")
        sidecar = daemon.final("new folder/newer/durable.wav")
        daemon.until((daemon.spool / "done" / "new folder/newer/durable.wav").exists, "put away")
        daemon.until(lambda: not daemon.works(), "finished")
    calls = Calls(log)
    work = daemon.outbox / ".demixd" / sidecar["job_id"] / "out"
    place = daemon.outbox / "new folder/newer/durable"
    renamed = calls.first("renameat2", str(work.parent), str(place.parent), place.name)
    assert renamed > 0
    files = [path.relative_to(place) for path in place.rglob("*")]
    assert {path.name for path in files} == {"by stem", "vocals.wav", "instrumental.wav", "peaks.json", "stems.json"}
    assert [path for path in (Path(), *files) if calls.sync(work / path) > renamed] == []
    shown = calls.first("write", "status/new folder/newer", r"\"state\":\"done\"")
    assert shown > renamed
    for folder in (place.parent, place.parent.parent, daemon.outbox):
        assert renamed < calls.sync(folder, after=renamed) < shown, f"{folder} is not durable"
    moved = calls.first("renameat", str(daemon.inbox / "new folder/newer"), "durable.wav")
    assert moved > shown, "(e): the original is moved after (a)"


# ---- (b)


@pytest.mark.parametrize("stems", [["vocals"], ["drums", "bass", "other", "vocals", "instrumental", "no_drums"]])
def test_b_the_manifest_lists_every_file(daemon: Daemon, stems: list[str]) -> None:
    """`stems.json` lists every file with size and sha256, and nothing else; the sidecar names the same."""
    name = f"listed {len(stems)}.wav"
    (daemon.inbox / f"{name}.job.json").write_text(json.dumps({"stems": stems}))
    drop(daemon, name)
    sidecar = daemon.final(name)
    folder = daemon.outbox / sidecar["output"]["dir"]
    manifest = json.loads((folder / "stems.json").read_bytes())
    assert [file["stem"] for file in manifest["files"]] == stems
    assert faults(folder) == []
    keys = ("stem", "name", "sha256", "bytes")
    assert sidecar["output"]["files"] == [{key: file[key] for key in keys} for file in manifest["files"]]
    assert manifest["job_id"] == sidecar["job_id"]
    assert manifest["song_sha256"] == sha256(daemon.folder / f"dropped-{name}")


# ---- (c) and (d)


def test_c_every_read_parses(daemon: Daemon) -> None:
    """Every read of a sidecar parses, at any moment of many songs; no sidecar goes away, `seq` and `fraction` never fall."""
    histories = Histories(daemon.spool / "status")
    with again_and_again(histories.look) as raised, again_and_again(lambda: daemon.read("_daemon.json") and None):
        for number in range(8):
            drop(daemon, f"many/{number}.wav", 1.0)
        for number in range(8):
            daemon.final(f"many/{number}.wav")
    assert raised == []
    assert histories.reads > 300
    assert sum(states[-1] == "done" for states in histories.of.values()) >= 8


def test_c_a_sidecar_changes_by_rename_alone(daemon: Daemon) -> None:
    """Nobody ever has one open that is being written: it is written under another name, and takes the place of the old."""
    events = Events(daemon.spool / "status")
    drop(daemon, "whole.wav", 1.0)
    daemon.final("whole.wav")
    done = [
        (name, what) for _, name, what in events.take() if not name.startswith((".", "_ends"))
    ]  # that is appended to
    assert ("whole.wav.json", MOVED_TO) in done
    assert {what for _, what in done} == {MOVED_TO}, done


def test_d_final_states_are_final(tmp_path: Path) -> None:
    """A job that is done, failed or cancelled stays so: whatever is asked of it later, and across a kill."""
    daemon = Daemon(tmp_path, fake=True)
    names = ["done.wav", "failed.mp3", "cancelled.wav"]
    histories = Histories(daemon.spool / "status")
    try:
        daemon.start().ready()
        with again_and_again(histories.look) as raised:
            daemon.hold.touch()
            drop(daemon, "cancelled.wav")
            daemon.until(lambda: daemon.song("cancelled.wav").get("step") == "separate", "it runs")
            (daemon.inbox / "cancelled.wav.cancel").touch()
            daemon.final("cancelled.wav")
            daemon.hold.unlink()
            drop(daemon, "done.wav")
            (daemon.inbox / "failed.mp3").write_bytes(b"no music\n" * 400)
            ends = {name: daemon.final(name) for name in names}
            daemon.quiet()
            for name in names:
                (daemon.inbox / f"{name}.cancel").touch()
            daemon.until(lambda: not list(daemon.inbox.iterdir()), "the cancels are answered")
            (daemon.inbox / ".cancel").touch()
            daemon.until(lambda: not list(daemon.inbox.iterdir()), "the bare cancel is answered")
            assert daemon.process is not None
            daemon.process.kill()
            daemon.process.wait()
            daemon.start().ready().quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert raised == []
    for name, end in ends.items():
        now = daemon.song(name)
        assert [now[key] for key in ("job_id", "state", "output")] == [
            end[key] for key in ("job_id", "state", "output")
        ]
        assert [state for state in histories.of[end["job_id"]] if state in FINAL] == [end["state"]]
    assert {name: end["state"] for name, end in ends.items()} == dict(zip(names, FINAL, strict=True))


@pytest.mark.parametrize("when", ["separate", pytest.param("5-publishing", marks=pytest.mark.daily), "6-rename"])
def test_d_after_cancelled_nothing_appears(tmp_path: Path, when: str) -> None:
    """After `cancelled` no output of that job ever appears: not while it stops, not later, not after a restart."""
    daemon = Daemon(tmp_path, fake=True)
    found: set[str] = set()
    daemon.hold.touch()
    drop(daemon, "song.wav", 5.0)
    try:
        daemon.start({} if when == "separate" else {when: "cancel:song.wav"}).ready()
        with again_and_again(lambda: found.update(os.listdir(daemon.outbox))):  # noqa: PTH208 - as fast as can be
            daemon.until(lambda: daemon.song("song.wav").get("step") == "separate", "it runs")
            if when == "separate":
                (daemon.inbox / "song.wav.cancel").touch()
                daemon.final("song.wav")
            daemon.hold.unlink()
            assert daemon.final("song.wav")["state"] == "cancelled"
            drop(daemon, "next.wav")
            assert daemon.final("next.wav")["state"] == "done"
            daemon.quiet()
            assert daemon.stop() == 0
            daemon.start().ready().quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert found == {".demixd", "next"}
    assert daemon.song("song.wav")["state"] == "cancelled"
    assert daemon.song("song.wav")["output"] is None


# ---- (e)


@pytest.mark.parametrize(
    "point", [pytest.param("4-separate", marks=pytest.mark.daily), "6-rename", "8-sidecar", "9-original"]
)
def test_e_originals_stay_until_the_result_is_there(tmp_path: Path, point: str) -> None:
    """Until its result is there the original is where it was, untouched; then it is in done/, the very same file."""
    daemon = Daemon(tmp_path, fake=True)
    source = drop(daemon, "song.wav")
    song = daemon.inbox / "song.wav"
    song.chmod(0o640)
    before = song.stat()
    try:
        daemon.start({point: "kill"})
        assert daemon.process is not None
        assert daemon.process.wait(timeout=60) == -signal.SIGKILL
        there = song.stat()
        assert (there.st_ino, there.st_mtime_ns, there.st_ctime_ns) == (
            before.st_ino,
            before.st_mtime_ns,
            before.st_ctime_ns,
        )
        assert song.read_bytes() == source.read_bytes()
        daemon.start().ready().quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    done = daemon.spool / "done" / "song.wav"
    after = done.stat()
    assert done.read_bytes() == source.read_bytes()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    assert faults(daemon.outbox / "song") == []


@pytest.mark.parametrize("after", ["move", "keep", "delete"])
def test_e_originals_are_never_modified(tmp_path: Path, after: str) -> None:
    """Under each policy the originals have their bytes still, wherever they are; only one that is done is ever deleted."""
    daemon = Daemon(tmp_path, fake=True, inbox={"after": after})
    originals = {"done.wav": "done", "failed.wav": "failed", "cancelled.wav": "failed"}
    try:
        daemon.start().ready()
        drop(daemon, "done.wav")
        daemon.final("done.wav")
        source = make_song(tmp_path / "dropped-failed.wav")
        with source.open("r+b") as file:
            file.write(b"what")
        shutil.copy2(source, daemon.inbox / "failed.wav")
        assert daemon.final("failed.wav")["state"] == "failed"
        daemon.hold.touch()
        drop(daemon, "cancelled.wav")
        daemon.until(lambda: daemon.song("cancelled.wav").get("step") == "separate", "it runs")
        (daemon.inbox / "cancelled.wav.cancel").touch()
        assert daemon.final("cancelled.wav")["state"] == "cancelled"
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    for name, place in originals.items():
        where = daemon.inbox if after == "keep" else daemon.spool / place
        if (after, name) == ("delete", "done.wav"):
            assert list((daemon.spool / "done").iterdir()) == []
            continue
        source = tmp_path / f"dropped-{name}"
        assert (where / name).read_bytes() == source.read_bytes()
        assert (where / name).stat().st_mtime_ns == source.stat().st_mtime_ns


# ---- (f)


SCAN_S = 2.0

ENTRIES = {
    "text.txt": "not-audio",
    "notes.mid": "unsupported-format",
    "half.wav.part": "ignored-name",
    ".hidden.wav": "ignored-name",
    "link.wav": "not-a-regular-file",
    "fifo.wav": "not-a-regular-file",
    "folder.json": "reserved-name",
    "@eaDir": "ignored-name",
    "nobody.wav.cancel": "no-such-job",
    "nobody.wav.job.json": "options-without-song",
    "deep/er/notes.txt": "not-audio",
    "deep/er/song.wav": None,
    "whole.wav": None,
    "empty.wav": "empty",
    "open.wav": "changing",
    "loading.wav": "companion-file",
    "loading.wav.part": "ignored-name",
}
"""Entries of the inbox, each with its reason in `_inbox.json`, that of its job, or None: any job will do."""


def make_entries(inbox: Path) -> None:
    (inbox / "deep" / "er").mkdir(parents=True)
    (inbox / "folder.json").mkdir()
    (inbox / "@eaDir").mkdir()
    (inbox / "link.wav").symlink_to("/etc/passwd")
    os.mkfifo(inbox / "fifo.wav")
    for name in ENTRIES:
        path = inbox / name
        if not path.is_symlink() and not path.exists():
            path.touch() if name.startswith(("empty", "nobody")) else path.write_bytes(b"something")
    for name in ("deep/er/song.wav", "whole.wav"):
        make_song(inbox / name, 0.2)


def test_f_everything_is_explained_within_one_scan(tmp_path: Path) -> None:
    """Every inbox entry is explained within one scan: as somebody's job, or in `_inbox.json`."""
    inbox = {"watch": "poll", "scan_interval": SCAN_S, "settle": 30.0}
    with running(tmp_path, fake=True, inbox=inbox) as daemon:

        def explained() -> dict[str, str]:
            return {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json").get("entries", ())}

        (daemon.inbox / "first.txt").touch()
        daemon.until(lambda: "first.txt" in explained(), "a scan")  # the next one is SCAN_S away
        began = time.monotonic()
        make_entries(daemon.inbox)
        names = {name for name in ENTRIES if ENTRIES[name] not in ("empty", "changing", "companion-file", None)}
        jobs = ENTRIES.keys() - names
        daemon.until(lambda: explained().keys() >= names and all(daemon.song(name) for name in jobs), "explained")
        assert time.monotonic() - began < 1.5 * SCAN_S
        reasons = explained() | {name: daemon.song(name)["reason"] for name in jobs}
        assert {name: reason for name, reason in ENTRIES.items() if reason and reasons[name] != reason} == {}
        assert all(daemon.song(name)["state"] == "waiting" for name in jobs)


# ---- (g)


BEAT_S = 0.4


def gaps(daemon: Daemon, seconds: float) -> list[float]:
    """How long each `seq` of the heartbeat stood, by our clock, while the test looks on."""
    end = time.monotonic() + seconds
    last, since = daemon.read("_daemon.json")["seq"], time.monotonic()
    found = []
    while (now := time.monotonic()) < end:
        seq = daemon.read("_daemon.json")["seq"]
        if seq != last:
            assert seq > last
            found.append(now - since)
            last, since = seq, now
        time.sleep(0.01)
    return [*found, time.monotonic() - since]


def test_g_the_heart_beats(tmp_path: Path) -> None:
    """`seq` of `_daemon.json` grows every `interval_s`: idle, during a long job, and while the inbox is away."""
    with running(tmp_path, fake=True, status={"heartbeat_s": BEAT_S}) as daemon:
        assert daemon.read("_daemon.json")["interval_s"] == BEAT_S
        idle = gaps(daemon, 5 * BEAT_S)
        daemon.hold.touch()
        drop(daemon, "long.wav")
        daemon.until(lambda: daemon.song("long.wav").get("step") == "separate", "it runs")
        busy = gaps(daemon, 5 * BEAT_S)
        daemon.inbox.rename(tmp_path / "away")
        away = gaps(daemon, 5 * BEAT_S)
        (tmp_path / "away").rename(daemon.inbox)
        daemon.hold.unlink()
        assert daemon.final("long.wav")["state"] == "done"
        for heard in (idle, busy, away):
            assert max(heard) < 3 * BEAT_S
            assert len(heard) >= 4
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
        assert len(gaps(daemon, 3 * BEAT_S)) == 1, "it stands still: the daemon is not running"
        daemon.start().ready()


@needs_strace
def test_g_the_heart_beats_on_a_slow_disk(tmp_path: Path) -> None:
    """`seq` grows while sixty songs are cancelled at once, or deleted, on a disk that takes 10 ms for each fsync."""
    daemon = Daemon(tmp_path, fake=True, status={"heartbeat_s": BEAT_S})
    song = make_song(tmp_path / "song.wav", 0.05)
    names = [f"{number:03d}.wav" for number in range(60)]
    found: list[float] = []
    last = [0, time.monotonic()]

    def look() -> None:
        seq, now = daemon.read("_daemon.json")["seq"], time.monotonic()
        if seq != last[0]:
            found.append(now - last[1])
            last[:] = [seq, now]
        time.sleep(0.005)

    daemon.hold.touch()
    slow = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=10000"]
    try:
        daemon.start().ready()
        last[1] = time.monotonic()
        with asked(daemon, *slow), again_and_again(look) as raised:
            for cancel in (True, False):
                for name in names:
                    os.link(song, daemon.inbox / name)
                daemon.until(lambda: len(daemon.read("_daemon.json")["queue"]) == len(names) - 1, "all wait")
                if cancel:
                    (daemon.inbox / ".cancel").touch()
                else:
                    for name in names:
                        (daemon.inbox / name).unlink()
                daemon.until(
                    lambda: not daemon.read("_daemon.json")["queue"] and not any(daemon.inbox.iterdir()), "none waits"
                )
        daemon.hold.unlink()
        daemon.quiet()
        assert raised == []
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert max(found) < 3 * BEAT_S


# ---- (h)


SONGS: dict[str, dict[str, Any]] = {
    "even.wav": {},
    "odd.flac": {"rate": 8000, "seconds": 0.7337},
    "mono.wav": {"rate": 22050, "channels": 1},
    "fine.flac": {"rate": 96000, "subtype": "PCM_24"},
    "lossy.mp3": {"rate": 48000},
    "lossy.ogg": {"rate": 44100},
    "short.wav": {"seconds": 0.001},
}


RARE = ("mono.wav", "lossy.ogg")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With the demo model, since resampling and alignment are the work of the real worker."""
    with running(tmp_path_factory.mktemp("real")) as one:
        yield one


def lag(stem: np.ndarray, song: np.ndarray) -> int:
    """By how many frames `stem` comes after `song`, by their correlation."""
    size = 2 * len(song)
    spectrum = np.fft.rfft(stem, size) * np.conj(np.fft.rfft(song, size))
    found = int(np.argmax(np.fft.irfft(spectrum, size)))
    return found - size if found > size // 2 else found


def check_h(daemon: Daemon, source: Path, name: str, rate: int, frames: int) -> dict[str, Any]:
    sidecar = daemon.final(name)
    assert sidecar["state"] == "done", sidecar
    folder = daemon.outbox / sidecar["output"]["dir"]
    manifest = json.loads((folder / "stems.json").read_bytes())
    assert len(manifest["files"]) == 2
    total: np.ndarray | float = 0.0
    for file in manifest["files"]:
        stem, found = soundfile.read(folder / file["name"], always_2d=True)
        assert (found, len(stem)) == (rate, frames) == (file["rate"], file["frames"])
        total = total + stem.mean(axis=1)
    song, song_rate = soundfile.read(source, always_2d=True)
    mono = song.mean(axis=1)
    if song_rate == rate and len(mono) > 1000:
        assert lag(np.asarray(total), mono) == 0
    return sidecar


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.daily] if n in RARE else []) for n in SONGS])
def test_h_stems_have_the_song_s_frames(real: Daemon, name: str) -> None:
    """All stems of a song have the song's number of frames at its rate, and are sample-aligned with it."""
    source = drop(real, name, **{"seconds": 0.4, **SONGS[name]})
    info = soundfile.info(str(source))
    sidecar = check_h(real, source, name, info.samplerate, info.frames)
    assert (sidecar["input"]["frames"], sidecar["input"]["rate"]) == (info.frames, info.samplerate)
    assert sidecar["warnings"] == []


def test_h_a_rate_that_the_format_cannot_carry(real: Daemon) -> None:
    """Where a format cannot carry the song's rate the stems have the next higher one, with a warning."""
    name = "too fine.flac"
    (real.inbox / f"{name}.job.json").write_text('{"format": "mp3"}')
    source = drop(real, name, 0.5, rate=96000)
    sidecar = check_h(real, source, name, 48000, 24000)
    assert any("96000" in warning and "48000" in warning for warning in sidecar["warnings"])
