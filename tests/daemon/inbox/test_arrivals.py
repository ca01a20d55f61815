"""Every way in which a song can come: none is begun before it is whole, each is done exactly once.

The ways themselves are in tests/support/drops/writers.py.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile

from daemons import Daemon, below, running
from writers import AT_ONCE, COMPANION, EMPTY, KEEPING, OPEN, TRUNCATED, frames_in, in_parts, song

SETTLE_S = 0.3
PAUSE_S = 2.5 * SETTLE_S
"""What slow writers wait between two parts: they look finished for longer than a file needs to settle."""

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync: apt-get install rsync")


@pytest.fixture(scope="module", params=["events", "poll"])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all songs, told by events or by looking alone. At its end no song has two results."""
    inbox = {"settle": SETTLE_S, "scan_interval": 0.3, "watch": request.param}
    with running(tmp_path_factory.mktemp(request.param), fake=True, inbox=inbox) as one:
        assert one.read("_daemon.json")["watch"]["mode"] == request.param
        yield one
        songs = [
            json.loads(manifest.read_bytes())["song"] for manifest in below(one.outbox) if manifest.name == "stems.json"
        ]
        assert sorted(songs) == sorted(set(songs))


def orders(daemon: Daemon, name: str | None = None) -> list[dict[str, Any]]:
    """What the worker was told to separate: all of it, or the song whose path below the inbox is `name`."""
    lines = (daemon.folder / "orders").read_bytes().splitlines() if (daemon.folder / "orders").exists() else []
    told = [order for line in lines if (order := json.loads(line))["type"] == "separate"]
    return [order for order in told if name is None or order["name"] == name.rpartition("/")[2]]


def waits(daemon: Daemon, name: str, *reasons: str) -> str:
    """Wait until the song waits for one of `reasons`, and on through a writer's pause; its job. Nobody has begun it."""
    daemon.until(lambda: daemon.song(name).get("reason") in reasons, f"{name} {reasons}")
    time.sleep(PAUSE_S)
    # A daemon that was held up sees the last bytes only now: what it says of them then is why the song waits.
    passing = ("changing", "queued")
    daemon.until(
        lambda: daemon.song(name)["reason"] not in passing or daemon.song(name)["state"] != "waiting", "a reason"
    )
    sidecar = daemon.song(name)
    assert (sidecar["state"], sidecar["attempt"]) == ("waiting", 0), sidecar
    assert sidecar["reason"] in reasons
    if reasons != (TRUNCATED,):
        assert orders(daemon, name) == []
    return str(sidecar["job_id"])


def done_once(daemon: Daemon, name: str, whole: bytes, orders_: int = 1) -> dict[str, Any]:
    """Wait for the song's end. It is done whole, with one result and one original; its sidecar.

    `orders_` is how often the worker was told of that job; more than once only after `truncated`.
    """
    sidecar = daemon.state(name, "done", "failed")
    assert sidecar["state"] == "done", sidecar
    done, result = daemon.spool / "done" / name, daemon.outbox / sidecar["output"]["dir"]
    daemon.until(done.exists, f"{name} in done/")
    assert done.read_bytes() == whole
    assert not daemon.spool.joinpath("inbox", name).exists()
    assert (sidecar["input"]["size"], sidecar["input"]["sha256"]) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert sidecar["attempt"] == 1
    for file in sidecar["output"]["files"]:
        assert soundfile.info(str(result / file["name"])).frames == frames_in(whole)
    for place in (done, result):
        numbered = f"{done.stem} ("
        assert [each.name for each in place.parent.iterdir() if each.name.startswith(numbered)] == [], "twice"
    assert [order["job_id"] for order in orders(daemon, name)].count(sidecar["job_id"]) == orders_
    return sidecar


def waited_for(daemon: Daemon, way: str) -> set[str]:
    """The jobs that one writer's song had from its first byte to its end."""
    name = f"{way}.wav"
    whole = song(name)
    jobs = {waits(daemon, name, *reasons) for reasons in KEEPING[way](daemon.inbox / name, in_parts(whole))}
    return jobs | {done_once(daemon, name, whole)["job_id"]}


@pytest.fixture(scope="module")
def writers(daemon: Daemon) -> Iterator[dict[str, Future[set[str]]]]:
    """All slow writers, who write at the same time."""
    with ThreadPoolExecutor(len(KEEPING)) as pool:
        yield {way: pool.submit(waited_for, daemon, way) for way in KEEPING}


@pytest.mark.parametrize("way", KEEPING)
def test_a_writer_is_waited_for(writers: dict[str, Future[set[str]]], way: str) -> None:
    """However long a writer pauses, the song waits with the reason why, and its first job is the one that does it."""
    assert len(writers[way].result()) == 1


@pytest.mark.parametrize(("suffix", "form"), [(".wav", "WAV"), (".flac", "FLAC")])
def test_a_copy_that_was_interrupted_is_healed_by_the_rest(daemon: Daemon, suffix: str, form: str) -> None:
    """A closed file that is shorter than its header says waits as `truncated`; the rest, added later, makes it whole."""
    name = f"resumed {form}{suffix}"
    whole = song(name, frames=200_000, form=form, knows_its_length=True)
    first, *rest = in_parts(whole)
    (daemon.inbox / name).write_bytes(first)
    job = waits(daemon, name, TRUNCATED)
    with (daemon.inbox / name).open("ab") as file:
        file.write(b"".join(rest))
    assert done_once(daemon, name, whole, orders_=2)["job_id"] == job


def test_short_pauses_of_a_writer_that_closes_are_waited_for(tmp_path: Path) -> None:
    """A file that is opened, added to and closed again and again is begun once that has stopped for the settle time."""
    name = "append.wav"
    whole = song(name)
    step = len(whole) // 16 + 1
    with running(tmp_path, fake=True, inbox={"settle": 3.0, "scan_interval": 0.3}) as daemon:
        last = time.monotonic()
        for at in range(0, len(whole), step):
            time.sleep(0.25)
            sidecar, now = daemon.song(name), time.monotonic()
            if now - last > 2.5:
                pytest.skip("this machine was held up for as long as a file needs to settle")
            if at:
                assert sidecar.get("state", "waiting") == "waiting"
                assert not orders(daemon, name)
            with (daemon.inbox / name).open("ab") as file:
                file.write(whole[at : at + step])
            last = time.monotonic()
        assert daemon.state(name, "waiting", "done")["reason"] in ("changing", OPEN)
        done_once(daemon, name, whole)


@pytest.mark.parametrize("way", AT_ONCE)
def test_a_song_that_comes_at_once_is_done_once(daemon: Daemon, way: str) -> None:
    """By copy, rename or link, with any time stamp: the song is done once, whole, and its time stamp goes with it."""
    name = f"{way}.wav"
    whole = song(name)
    AT_ONCE[way](daemon.inbox / name, whole)
    sidecar = done_once(daemon, name, whole)
    assert sidecar["input"]["mtime_ns"] == (daemon.spool / "done" / name).stat().st_mtime_ns


@contextlib.contextmanager
def rsync(*words: str | Path) -> "Iterator[subprocess.Popen[bytes]]":
    """So slow that a song takes a second or two. Times are kept, as most people have it."""
    with subprocess.Popen(["rsync", "--times", "--bwlimit=700", *words], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@needs_rsync
@pytest.mark.parametrize("how", [(), ("--inplace",), ("--partial",), ("--temp-dir",), ("--delay-updates",)])
def test_rsync_is_waited_for(daemon: Daemon, tmp_path: Path, how: tuple[str, ...]) -> None:
    """rsync in each of its modes: while it transfers, nothing has begun, and then the song is done once."""
    name = f"rsync{''.join(how)}.wav"
    whole, looks = song(name, frames=200_000), 0
    (tmp_path / name).write_bytes(whole)
    if how == ("--temp-dir",):
        how = (f"--temp-dir={tmp_path}",)
    with rsync(*how, tmp_path / name, daemon.inbox) as process:
        while process.poll() is None:
            sidecar, size = daemon.song(name), size_of(daemon.inbox / name)
            if "--inplace" in how and 0 < size < len(whole):
                looks += 1
                assert sidecar.get("state", "waiting") == "waiting"
            elif "--inplace" not in how and not orders(daemon, name) and not sidecar:
                looks += 1
            time.sleep(0.02)
        assert process.returncode == 0
    assert looks > 10, "it was not seen on its way"
    done_once(daemon, name, whole)


@needs_rsync
@pytest.mark.parametrize("how", ["--partial", "--inplace"])
def test_an_rsync_that_was_killed_is_resumed(daemon: Daemon, tmp_path: Path, how: str) -> None:
    """A part under the final name waits as `truncated`; the next rsync makes it whole, and it is done once."""
    name = f"killed{how}.wav"
    whole = song(name, frames=400_000, knows_its_length=True)
    (tmp_path / name).write_bytes(whole)
    with rsync(how, tmp_path / name, daemon.inbox) as process:
        pattern = name if how == "--inplace" else f".{name}.*"
        daemon.until(lambda: any(size_of(each) > 300_000 for each in daemon.inbox.glob(pattern)), "a part")
        process.send_signal(signal.SIGINT)
        process.wait()
    daemon.until(lambda: 0 < size_of(daemon.inbox / name) < len(whole), "the part under the final name")
    waits(daemon, name, TRUNCATED)
    subprocess.run(["rsync", "--times", how, tmp_path / name, daemon.inbox], check=True)
    # In place it is the same file still; else another one has replaced it, which is another job's.
    done_once(daemon, name, whole, orders_=2 if how == "--inplace" else 1)


def test_a_download_of_firefox_is_done_once(daemon: Daemon) -> None:
    """Firefox holds the final name by an empty file, writes NAME.part, and renames that over it."""
    name = "firefox.wav"
    whole = song(name)
    final, part = daemon.inbox / name, daemon.inbox / f"{name}.part"
    final.touch()
    waits(daemon, name, EMPTY)
    with part.open("wb", buffering=0) as file:
        for each in in_parts(whole):
            file.write(each)
            waits(daemon, name, EMPTY, COMPANION)
    part.rename(final)
    done_once(daemon, name, whole)


def test_a_download_of_chrome_is_done_once(daemon: Daemon) -> None:
    """Chrome writes NAME.crdownload and renames it: until then there is no job, and `_inbox.json` says why."""
    name = "chrome.wav"
    whole = song(name)
    part = daemon.inbox / f"{name}.crdownload"
    with part.open("wb", buffering=0) as file:
        for each in in_parts(whole):
            file.write(each)
            (entry,) = daemon.until(lambda: entries(daemon, part.name), "an entry")
            assert entry["reason"] == "ignored-name"
            time.sleep(PAUSE_S)
            assert daemon.song(name) == {}
    part.rename(daemon.inbox / name)
    done_once(daemon, name, whole)
    daemon.until(lambda: not entries(daemon, part.name), "no entry any more")


def entries(daemon: Daemon, name: str) -> list[dict[str, str]]:
    """What `_inbox.json` says of `name`."""
    return [entry for entry in daemon.read("_inbox.json")["entries"] if entry["name"] == name]


def test_a_folder_that_is_moved_in_is_mirrored(daemon: Daemon) -> None:
    """An album moved in whole: sidecars, results and originals lie below the same folders, and the rest is explained."""
    album = daemon.folder / "Album"
    names = ["Album/one.wav", "Album/CD 2/two.wav", "Album/CD 2/b/c/d/e/f/three.wav"]
    wholes = {name: song(name) for name in names}
    for name, whole in wholes.items():
        (daemon.folder / name).parent.mkdir(parents=True)
        (daemon.folder / name).write_bytes(whole)
    (album / "CD 2" / "cover.jpg").write_bytes(b"\xff\xd8")
    album.rename(daemon.inbox / "Album")
    for name, whole in wholes.items():
        sidecar = done_once(daemon, name, whole)
        assert sidecar["input"]["name"] == name
        assert sidecar["output"]["dir"] == name.removesuffix(".wav")
    (entry,) = daemon.until(lambda: entries(daemon, "Album/CD 2/cover.jpg"), "the cover explained")
    assert entry["reason"] == "not-audio"


def test_a_drop_into_a_deep_folder_is_mirrored(daemon: Daemon) -> None:
    """A folder made just now is walked: a song put into it is found and its places mirror the folder."""
    name = "/".join(["deep", *"abcdefgh", "deep.wav"])
    whole = song(name)
    (daemon.inbox / name).parent.mkdir(parents=True)
    (daemon.inbox / name).write_bytes(whole)
    assert done_once(daemon, name, whole)["output"]["dir"] == name.removesuffix(".wav")


def test_the_same_file_again_is_a_new_job(daemon: Daemon, tmp_path: Path) -> None:
    """`cp -p` of what was done before: a new job, which names the one before it and need not compute anything again."""
    name = "again.wav"
    whole = song(name)
    (tmp_path / name).write_bytes(whole)
    subprocess.run(["cp", "-p", tmp_path / name, daemon.inbox], check=True)
    first = done_once(daemon, name, whole)
    subprocess.run(["cp", "-p", tmp_path / name, daemon.inbox], check=True)
    second = daemon.until(
        lambda: (s := daemon.song(name))["job_id"] != first["job_id"] and s["state"] == "done" and s, "another job"
    )
    assert second["previous"] == {"job_id": first["job_id"], "state": "done", "output": first["output"]}
    assert second["duplicate_of"] == first["job_id"]
    assert second["output"] == first["output"]
    daemon.until(lambda: not (daemon.inbox / name).exists(), "the second original to be put away")
    assert [path.name for path in (daemon.spool / "done").glob("again*")] == [name]
    assert (daemon.spool / "done" / name).read_bytes() == whole
    assert len(orders(daemon, name)) == 1


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that soon gives up hope for what is truncated."""
    inbox = {"settle": SETTLE_S, "scan_interval": 0.3}
    folder = tmp_path_factory.mktemp("hasty")
    with running(folder, fake=True, inbox=inbox, limits={"truncated_grace_s": 2.0}) as one:
        yield one


def with_a_hole(path: Path, whole: bytes) -> tuple[int, int]:
    """Write `whole` but for a hole in its middle, which reads as zeros; from where to where."""
    start, end = 1 << 16, 3 << 16
    with path.open("wb", buffering=0) as file:
        file.write(whole[:start])
        os.ftruncate(file.fileno(), len(whole))
        os.pwrite(file.fileno(), whole[end:], end)
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) >= len(whole):
            pytest.skip("the temporary folder's filesystem does not tell of holes")
    return start, end


def test_a_song_with_a_hole_is_done_after_its_grace(hasty: Daemon) -> None:
    """An upload that left a hole waits as `truncated`; nobody fills it in: the song is done, with a warning."""
    name = "hole.wav"
    whole = song(name, frames=100_000, knows_its_length=True)
    start, end = with_a_hole(hasty.folder / name, whole)
    (hasty.folder / name).rename(hasty.inbox / name)
    waiting = hasty.until(lambda: (s := hasty.song(name)).get("reason") == TRUNCATED and s, "truncated")
    assert (waiting["state"], waiting["attempt"], orders(hasty, name)) == ("waiting", 0, [])
    sidecar = done_once(hasty, name, whole[:start] + bytes(end - start) + whole[end:])
    assert any("has-holes" in warning for warning in sidecar["warnings"])
    assert sidecar["job_id"] == waiting["job_id"]


def test_what_was_allocated_and_never_written_is_a_hole(hasty: Daemon) -> None:
    """Also after others have read the file, and the daemon itself has: the song is done after its grace, with a warning."""
    name = "allocated.wav"
    whole = song(name, frames=100_000, knows_its_length=True)
    written = whole[: 1 << 16]
    with (hasty.folder / name).open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(whole))
        file.write(written)
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) >= len(whole):
            pytest.skip("the temporary folder's filesystem does not tell of blocks that were never written")
    (hasty.folder / name).read_bytes()
    (hasty.folder / name).rename(hasty.inbox / name)
    hasty.until(lambda: hasty.song(name).get("reason") == TRUNCATED, "truncated")
    sidecar = done_once(hasty, name, written + bytes(len(whole) - len(written)))
    assert any("has-holes" in warning for warning in sidecar["warnings"])


def test_a_hole_that_is_filled_in_is_forgotten(daemon: Daemon) -> None:
    """While a song with a hole waits, its missing part comes: it is done whole, without a warning."""
    name = "filled.wav"
    whole = song(name, frames=100_000, knows_its_length=True)
    start, end = with_a_hole(daemon.folder / name, whole)
    (daemon.folder / name).rename(daemon.inbox / name)
    daemon.until(lambda: daemon.song(name).get("reason") == TRUNCATED, "truncated")
    assert not orders(daemon, name)
    with (daemon.inbox / name).open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), whole[start:end], start)
    assert done_once(daemon, name, whole)["warnings"] == []


def test_silence_is_no_hole(daemon: Daemon) -> None:
    """Zeros that somebody wrote are a song's own."""
    name = "silence.wav"
    whole = song(name, frames=100_000, knows_its_length=True)
    whole = whole[: 1 << 16] + bytes(1 << 17) + whole[3 << 16 :]
    (daemon.inbox / name).write_bytes(whole)
    assert done_once(daemon, name, whole)["warnings"] == []


def promise(inbox: Path, name: str) -> Path:
    """Say which hash the song will have once it is complete."""
    part, options = inbox / f".{name}.options.part", inbox / f"{name}.job.json"
    part.write_text(json.dumps({"wait_for_sha256": hashlib.sha256(song(name)).hexdigest()}))
    part.rename(options)
    return options


LONG_S = 8.0
AWAITED = ("changing", TRUNCATED)
"""What a song waits for that has not got its hash yet; the contract does not say which."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for which files take long to settle; the options in its inbox have."""
    folder = tmp_path_factory.mktemp("patient")
    with running(folder, fake=True, inbox={"settle": LONG_S, "scan_interval": 0.3}) as one:
        for name in ("hashed.wav", "hashed and open.wav"):
            promise(one.inbox, name)
        time.sleep(LONG_S + 1)
        yield one


def test_a_hash_replaces_the_settle_time(patient: Daemon) -> None:
    """A song that says its hash is begun as soon as it has it, however long files need to settle."""
    name = "hashed.wav"
    whole = song(name)
    (patient.inbox / name).write_bytes(whole[:-1])
    waits(patient, name, *AWAITED)
    with (patient.inbox / name).open("ab", buffering=0) as file:
        file.write(whole[-1:])
    began = time.monotonic()
    done_once(patient, name, whole)
    assert time.monotonic() - began < LONG_S / 2
    patient.until((patient.spool / "done" / f"{name}.job.json").exists, "its options with it")
    assert not (patient.inbox / f"{name}.job.json").exists()


def test_a_hash_does_not_replace_the_lease(patient: Daemon) -> None:
    """A song that has its hash waits while somebody still has it open for writing."""
    name = "hashed and open.wav"
    whole = song(name)
    with (patient.inbox / name).open("wb", buffering=0) as file:
        file.write(whole)
        waits(patient, name, OPEN)
    done_once(patient, name, whole)


def test_a_copy_that_pauses_is_not_begun_before_its_hash_is_right(daemon: Daemon) -> None:
    """However often a copy looks finished, a song that says its hash is not begun without it."""
    name = "promised.wav"
    whole = song(name)
    promise(daemon.inbox, name)
    for part in in_parts(whole)[:-1]:
        with (daemon.inbox / name).open("ab", buffering=0) as file:
            file.write(part)
        waits(daemon, name, *AWAITED)
    with (daemon.inbox / name).open("ab", buffering=0) as file:
        file.write(whole[-1:])
    done_once(daemon, name, whole)
