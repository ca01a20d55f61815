"""Hostile files in a real spool: bombs, terabytes that are not there, links where folders were, songs that kill the worker."""

import contextlib
import hashlib
import os
import random
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import Daemon, below, make_song, running
from mounts import mounts, needs_mounts, tmpfs
from mutants import many_channels, silence, without_length

ENDS = ("done", "failed", "cancelled")


def drop(daemon: Daemon, path: Path, name: str | None = None) -> None:
    target = daemon.inbox / (name or path.name)
    target.parent.mkdir(exist_ok=True)
    path.rename(target)


def held(folder: Path) -> int:
    """Bytes that a folder holds on the disk."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(root) / name).lstat().st_blocks * 512
    return total


# ---- files that are more than they look


def sparse(path: Path, size: int) -> Path:
    """A WAV that claims its size, and holds nothing but its head."""
    path.write_bytes(many_channels(2, 1))
    os.truncate(path, size)
    return path


def bombs(folder: Path) -> dict[str, str]:
    """Songs that are small until they are read, and what becomes of them where a minute and 64 MiB are the limits."""
    silence(folder / "says-so.flac", 7200, format="FLAC", subtype="PCM_16")
    shutil.copy(folder / "says-so.flac", folder / "says-nothing.flac")
    without_length(folder / "says-nothing.flac")
    silence(folder / "bomb.mp3", 1200, format="MP3", subtype="MPEG_LAYER_III")
    silence(folder / "bomb.ogg", 1200, format="OGG", subtype="VORBIS")
    silence(folder / "bomb.opus", 1200, format="OGG", subtype="OPUS")
    (folder / "head.wav").write_bytes(many_channels(2, 1)[:40] + b"\xf0\xff\xff\xef" + bytes(400))
    sparse(folder / "terabyte.wav", 1 << 40)
    sparse(folder / "terabyte.flac", 1 << 40)
    sparse(folder / "more.mp3", (64 << 20) + 1)
    too_long = dict.fromkeys(("says-so.flac", "says-nothing.flac", "bomb.mp3", "bomb.ogg", "bomb.opus"), "too-long")
    return (
        too_long | {"head.wav": "truncated"} | dict.fromkeys(("terabyte.wav", "terabyte.flac", "more.mp3"), "too-large")
    )


def test_bombs_are_stopped_by_the_limits(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A song that unfolds to hours, or is a terabyte of nothing, fails by a limit; nothing of that size is ever written."""
    songs = bombs(tmp_path)
    limits = {"max_duration_s": 60, "max_bytes": 64 << 20, "truncated_grace_s": 0}
    with running(tmp_path, fake=True, limits=limits) as daemon:
        make_song(tmp_path / "good.wav")
        for name in (*songs, "good.wav"):
            drop(daemon, tmp_path / name)
        most = 0
        while any(daemon.song(name).get("state") not in ("failed", "done") for name in (*songs, "good.wav")):
            most = max(most, held(daemon.spool))
            daemon.until(lambda: True, "it lives")
            time.sleep(0.05)
        assert {name: (daemon.song(name)["error"] or {}).get("code") for name in songs} == songs
        assert daemon.song("good.wav")["state"] == "done"
        for name in ("terabyte.wav", "terabyte.flac", "more.mp3"):
            sidecar = daemon.song(name)
            assert (sidecar["attempt"], sidecar["timing"]) == (0, {})  # never copied, never decoded
            assert (daemon.spool / "failed" / name).stat().st_blocks < 100
        assert most < 200 << 20
        daemon.quiet()
    record_property("bombs defused", len(songs))


@needs_mounts
def test_a_terabyte_goes_to_another_filesystem_as_a_hole(tmp_path: Path) -> None:
    """Where failed/ is another filesystem, a sparse terabyte is moved there without a terabyte of zeros."""
    failed = tmp_path / "other" / "failed"
    with (
        mounts(tmpfs(tmp_path / "other", 8 << 20)),
        running(tmp_path, fake=True, paths={"failed": str(failed)}) as daemon,
    ):
        drop(daemon, sparse(tmp_path / "song.wav", 1 << 40))
        assert daemon.final("song.wav")["error"]["code"] == "too-large"
        daemon.quiet()
        moved = (failed / "song.wav").stat()
        assert moved.st_size == 1 << 40
        assert moved.st_blocks < 100
        assert not (daemon.inbox / "song.wav").exists()


# ---- songs that kill


def test_poison_among_others(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A song that the worker dies of is tried three times and given up; ten others around it are done, each in order."""
    daemon = Daemon(tmp_path, fake=True)
    names = [f"song-{number:02}.wav" for number in range(10)]
    for name in names:
        make_song(daemon.inbox / name, 0.3)
    poison = make_song(tmp_path / "song-04-poison.wav", 0.3)
    poison.write_bytes(poison.read_bytes()[:44] + b"POISON" + poison.read_bytes()[50:])
    poison.rename(daemon.inbox / poison.name)
    try:
        daemon.start().ready()
        sidecar = daemon.final(poison.name)
        assert (sidecar["state"], sidecar["error"]["code"], sidecar["attempt"]) == ("failed", "gave-up", 3)
        for name in names:
            good = daemon.final(name)
            assert (good["state"], good["error"]) == ("done", None), name
        daemon.quiet()
        assert (tmp_path / "orders").read_bytes().count(b'"warm"') <= 1 + 3 + 1  # once with another song in the worker
        assert daemon.stop() == 0
    finally:
        daemon.end()
    record_property("songs beside poison", len(names))


# ---- trees that are no trees


def test_a_bottomless_folder(tmp_path: Path) -> None:
    """Two thousand folders in each other are listed as what cannot be read; songs beside them are served."""
    with running(tmp_path, fake=True) as daemon:
        top = here = os.open(daemon.inbox, os.O_RDONLY)
        for _ in range(2000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            if here != top:
                os.close(here)
            here = below
        os.close(here)
        os.close(top)
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        entries = daemon.until(lambda: daemon.read("_inbox.json").get("entries"), "it is listed")
        assert [entry["reason"] for entry in entries] == ["permission"]
        subprocess.run(["rm", "-r", str(daemon.inbox / "d")], check=True)  # shutil.rmtree would go too deep


def test_something_else_has_the_name_of_a_folder_in_the_outbox(tmp_path: Path) -> None:
    """What is no folder, where a result's folder should be, is left alone, and the result goes beside it."""
    (tmp_path / "elsewhere").mkdir()
    with running(tmp_path, fake=True) as daemon:
        (daemon.outbox / "file").write_text("mine")
        (daemon.outbox / "link").symlink_to(tmp_path / "elsewhere")
        (daemon.outbox / "dangling").symlink_to(tmp_path / "nowhere")
        os.mkfifo(daemon.outbox / "fifo")
        for thing in ("file", "link", "dangling", "fifo"):
            drop(daemon, make_song(tmp_path / f"{thing}.wav", 0.3), f"{thing}/{thing}.wav")
        for thing in ("file", "link", "dangling", "fifo"):
            sidecar = daemon.final(f"{thing}/{thing}.wav")
            assert (sidecar["state"], sidecar["output"]["dir"]) == ("done", f"{thing} (2)/{thing}")
            assert (daemon.outbox / f"{thing} (2)" / thing / "stems.json").exists()
        assert not list((tmp_path / "elsewhere").iterdir())
        assert not (tmp_path / "nowhere").exists()


def test_planted_names(tmp_path: Path) -> None:
    """Links and second names of others' files, under the very names that the daemon writes by, are not written through."""
    victim = tmp_path / "victim"
    victim.write_text("{}")
    daemon = Daemon(tmp_path, fake=True)
    status = daemon.spool / "status"
    status.mkdir()
    for number, name in enumerate(("_daemon.json", "_inbox.json", "song.wav.json")):
        part = f".demixd-{hashlib.sha256(name.encode()).hexdigest()[:16]}.tmp"
        (status / part).symlink_to(victim) if number else (status / part).hardlink_to(victim)
        (status / name).symlink_to(victim)
    try:
        daemon.start().ready()
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert victim.read_text() == "{}"
    assert not any(path.is_symlink() for path in status.iterdir())


def test_a_lock_that_is_somebody_s_file(tmp_path: Path) -> None:
    """A lock file that is a second name of another file is not signed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    daemon = Daemon(tmp_path, fake=True)
    (daemon.spool / "status").mkdir()
    (daemon.spool / "status" / ".demixd-lock").hardlink_to(victim)
    try:
        daemon.start()
        daemon.until(lambda: "cannot be locked" in daemon.log.read_text(), "it says so")
        assert victim.read_text() == "mine"
        (daemon.spool / "status" / ".demixd-lock").unlink()
        daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_garbage_is_only_what_is_ours(tmp_path: Path) -> None:
    """Whatever lies in [paths] work outlives a start, and so does what `.demixd` was swapped for; a work area there goes."""
    work, precious = tmp_path / "work", tmp_path / "precious"
    (work / ("0" * 32) / "tmp").mkdir(parents=True)
    (precious / ("1" * 32)).mkdir(parents=True)
    daemon = Daemon(tmp_path, fake=True, paths={"work": str(work)})
    for name in ("mine", "0" * 32):
        (daemon.outbox / ".demixd" / name).mkdir(parents=True)
    try:
        daemon.start().ready()
        assert daemon.stop() == 0
        assert (work / ("0" * 32) / "tmp").exists()
        private = daemon.outbox / ".demixd"
        assert [path.name for path in private.iterdir() if path.is_dir()] == ["mine"]
        private.rename(tmp_path / "aside")
        private.symlink_to(precious)
        daemon.start()
        daemon.until(lambda: "is a link" in daemon.log.read_text(), "it says so")
        time.sleep(0.5)
        assert [path.name for path in precious.iterdir()] == ["1" * 32]
        private.unlink()
        (tmp_path / "aside").rename(private)
        daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize(
    "part", ["outbox", *(pytest.param(part, marks=pytest.mark.daily) for part in ("status", "done", "failed"))]
)
def test_a_folder_that_became_a_link_while_nobody_looked(tmp_path: Path, part: str) -> None:
    """A folder of the spool that was one and is a link at the next start is said to be so, and nothing is written there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start().ready()
        assert daemon.stop() == 0
        (daemon.spool / part).rename(tmp_path / "aside")
        (daemon.spool / part).symlink_to(elsewhere)
        daemon.log.write_text("")
        daemon.start()
        daemon.until(lambda: f"({part}) is a link" in daemon.log.read_text(), "it says so")
        make_song(daemon.inbox / "song.wav", 0.3)
        time.sleep(1.0)
        assert not list(elsewhere.iterdir())
        (daemon.spool / part).unlink()
        (tmp_path / "aside").rename(daemon.spool / part)
        assert daemon.stop() == 0
        daemon.start().ready()
        assert daemon.final("song.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_an_inbox_that_becomes_a_link(tmp_path: Path) -> None:
    """While the daemon runs, and at its next start: songs where the link leads are nobody's, and all is well once it is back."""
    private = tmp_path / "private"
    private.mkdir()
    make_song(private / "diary.wav", 0.3)
    with running(tmp_path, fake=True) as daemon:
        daemon.inbox.rename(tmp_path / "aside")
        daemon.inbox.symlink_to(private)
        daemon.until(lambda: "(inbox) is a link" in daemon.log.read_text(), "it says so")
        time.sleep(0.5)
        assert daemon.stop() == 0
        daemon.log.write_text("")
        daemon.start()
        daemon.until(lambda: "(inbox) is a link" in daemon.log.read_text(), "it says so again")
        time.sleep(0.5)
        assert [path.name for path in private.iterdir()] == ["diary.wav"]
        assert daemon.song("diary.wav") == {} and daemon.results() == set()
        daemon.inbox.unlink()
        (tmp_path / "aside").rename(daemon.inbox)
        assert daemon.stop() == 0
        daemon.start().ready()
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"


def test_an_inbox_that_is_a_link_from_the_start(tmp_path: Path) -> None:
    """It is the folder that it led to at the start; where it leads from then on counts at the next one."""
    daemon = Daemon(tmp_path, fake=True)
    daemon.inbox.rmdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    daemon.inbox.symlink_to(tmp_path / "one")
    try:
        daemon.start().ready()
        daemon.inbox.unlink()
        daemon.inbox.symlink_to(tmp_path / "two")
        make_song(tmp_path / "one" / "first.wav", 0.3)
        make_song(tmp_path / "two" / "second.wav", 0.3)
        assert daemon.final("first.wav")["state"] == "done"
        assert daemon.song("second.wav") == {}
        assert daemon.stop() == 0
        daemon.start().ready()
        assert daemon.final("second.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


# ---- between a look and an open


def picture(folder: Path) -> dict[str, Any]:
    """Everything that is in a folder, and when it was changed."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


def outside(folder: Path) -> Path:
    """What must not be touched: the very names that the daemon looks for in the folders that are swapped for it."""
    folder.mkdir()
    for name in ("secret.wav", "song-0.wav", "song-1.wav"):
        make_song(folder / name, 0.4)
    (folder / "song-0.wav.cancel").touch()
    (folder / "song-0.wav.json").write_text("{}")
    for name in ("out", "tmp", "sub", "0" * 32):
        (folder / name).mkdir()
        (folder / name / "vocals.wav").write_text("mine")
    return folder


class Swapper:
    """Puts links where folders are, and folders back, as fast as it can; `swaps` counts them."""

    def __init__(self, spool: Path, outside: Path, seed: int) -> None:
        self.spool, self.outside, self.rng = spool, outside, random.Random(seed)
        self.swaps = 0

    def targets(self) -> list[Path]:
        spool = self.spool
        parts = [spool / part / "sub" for part in ("inbox", "status", "outbox", "done", "failed")]
        roots = [spool / part for part in ("status", "outbox", "done", "failed")]
        work = [Path(root) / each for root, names, _ in os.walk(spool / "outbox" / ".demixd") for each in names]
        work = [path for path in work if path.name in ("out", "tmp")]
        return [*parts, *parts, *roots, spool / "outbox" / ".demixd", *(path.parent for path in work), *work]

    def swap(self) -> None:
        target = self.rng.choice(self.targets())
        aside = self.spool / "aside"
        try:
            if target.is_symlink():
                return
            target.rename(aside)
        except OSError:
            return  # it is not there just now
        link = self.rng.choice((self.outside, self.outside / target.name, self.outside / "nowhere"))
        try:
            target.symlink_to(link)
            time.sleep(self.rng.choice((0, 0.0001, 0.001, 0.02)))
            target.unlink(missing_ok=True)
        except OSError:
            pass  # somebody has made it anew meanwhile; the old one is put back if that can be
        with contextlib.suppress(OSError):
            aside.rename(target)
            self.swaps += 1
        if aside.exists():
            shutil.rmtree(aside, ignore_errors=True)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                self.swap()
                time.sleep(0.002)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def true_folder(path: Path) -> Iterator[int]:
    """The folder, where it is one just now: the test must not fall for its own links."""
    handle = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def swap_away(folder: Path, seed: int, seconds: float, *, fake: bool) -> int:
    """Songs come while folders are swapped; then it is quiet, and every song that is still there is done."""
    there = outside(folder / "outside")
    before = picture(there)
    with running(folder, fake=fake, limits={"max_attempts": 50}) as daemon:
        (daemon.inbox / "sub").mkdir()
        swapper = Swapper(daemon.spool, there, seed)
        with swapper.at_work():
            limit = time.monotonic() + seconds
            number = 0
            while time.monotonic() < limit:
                daemon.until(lambda: len(daemon.read("_daemon.json").get("queue", ())) < 20, "it keeps up")
                song = make_song(folder / f"song-{number}.wav", 0.3)
                with contextlib.suppress(OSError), true_folder(daemon.inbox / "sub") as sub:
                    os.rename(song, song.name, dst_dir_fd=sub)
                    number += 1
                    if number % 3 == 0:
                        os.close(os.open(f"{song.name}.cancel", os.O_CREAT | os.O_WRONLY, dir_fd=sub))
                time.sleep(0.3)
                assert daemon.process is not None
                assert daemon.process.poll() is None, daemon.log.read_text()[-3000:]
        after = {path: picture(there).get(path) for path in before}
        assert picture(there).keys() == before.keys()
        assert after == before
        for part in ("inbox", "status", "outbox", "done", "failed"):
            (daemon.spool / part / "sub").mkdir(exist_ok=True)
        make_song(daemon.inbox / "last.wav", 0.3)
        assert daemon.final("last.wav")["state"] == "done"
        # An original whose place was a link just then stays in the inbox, answered; its sidecar may have been swapped away.
        songs = [path.relative_to(daemon.inbox).as_posix() for path in daemon.inbox.rglob("*.wav")]
        daemon.until(
            lambda: all(daemon.song(name).get("state", "done") in ENDS for name in songs), "every song has ended"
        )
        assert not [path for path in below(daemon.spool) if path.name.startswith("secret")]
    assert picture(there) == before
    return swapper.swaps


@pytest.mark.slow
@pytest.mark.parametrize("fake", [True, False])
def test_many_swaps_are_harmless(
    tmp_path: Path, day: int, fake: bool, record_property: Callable[[str, object], None]
) -> None:
    """The same for ten minutes, also with the real worker and its own files."""
    record_property("folders swapped for links", swap_away(tmp_path, day + 1, 600.0, fake=fake))


def test_a_song_that_is_something_else_each_time(
    tmp_path: Path, day: int, record_property: Callable[[str, object], None]
) -> None:
    """A song that is a link, a FIFO, a device and itself in turn is never what the link leads to, and holds nothing up."""
    secret = make_song(tmp_path / "secret.wav", 0.4)
    hidden = hashlib.sha256(secret.read_bytes()).hexdigest()
    make_song(tmp_path / "true.wav", 0.3)
    rng, swaps = random.Random(day), 0
    with running(tmp_path, fake=True, inbox={"settle": 0.0, "after": "keep"}) as daemon:
        song, next_to_it = daemon.inbox / "song.wav", daemon.inbox / ".next"
        limit, beats, seen = time.monotonic() + 6.0, set(), set()
        while time.monotonic() < limit:
            kind = rng.choice(("link", "fifo", "device", "song", "song", "song"))
            match kind:
                case "link":
                    next_to_it.symlink_to(secret)
                case "fifo":
                    os.mkfifo(next_to_it)
                case "device":
                    next_to_it.symlink_to("/dev/zero")
                case _:
                    shutil.copy(tmp_path / "true.wav", next_to_it)
            next_to_it.rename(song)
            swaps += 1
            time.sleep(rng.choice((0.0, 0.001, 0.01, 0.3)))
            beats.add(daemon.read("_daemon.json")["seq"])
            seen.add((daemon.song("song.wav").get("input") or {}).get("sha256"))
        assert len(beats) > 8
        shutil.copy(tmp_path / "true.wav", next_to_it)
        next_to_it.rename(song)
        daemon.until(lambda: daemon.song("song.wav").get("state") == "done", "the song is done")
        daemon.quiet()
        assert hidden not in seen
        assert hidden not in {file.stem for file in below(daemon.outbox)}
    assert secret.exists()
    record_property("songs swapped for something else", swaps)


def test_swaps_are_harmless(tmp_path: Path, day: int, record_property: Callable[[str, object], None]) -> None:
    """Folders of the spool are swapped for links to elsewhere all the time: nothing there is read, made, changed or removed."""
    record_property("folders swapped for links", swap_away(tmp_path, day, 8.0, fake=True))
