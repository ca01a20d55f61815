"""What others write into the share is a hint and never an authority: forged results, numbers, locks, and folders without end."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons import Daemon, make_song, running


def replaced(folder: Path) -> None:
    """Every stem is another, and the manifest has their hashes."""
    manifest = json.loads((folder / "stems.json").read_bytes())
    for file in manifest["files"]:
        (folder / file["name"]).write_bytes(b"not what was separated")
        file |= {"sha256": hashlib.sha256(b"not what was separated").hexdigest(), "bytes": 22}
    (folder / "stems.json").write_text(json.dumps(manifest))


def emptied(folder: Path) -> None:
    """No stem, and a manifest that has none."""
    manifest = json.loads((folder / "stems.json").read_bytes())
    for file in manifest["files"]:
        (folder / file["name"]).unlink()
    (folder / "stems.json").write_text(json.dumps({**manifest, "files": []}))


def endless(folder: Path) -> None:
    """A stem that is a link to a device, and the manifest as it was."""
    (folder / "vocals.wav").unlink()
    (folder / "vocals.wav").symlink_to("/dev/zero")


def grown(folder: Path) -> None:
    """A stem of a terabyte that takes no room."""
    os.truncate(folder / "vocals.wav", 1 << 40)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("forgeries"), fake=True) as made:
        yield made


@pytest.mark.parametrize("forge", [replaced, emptied, endless, grown], ids=lambda forge: forge.__name__)
def test_a_result_that_was_forged_is_computed_again(daemon: Daemon, forge: object) -> None:
    """What was published is in the ledger: a result that is another by now stands for no other song, and is not read through."""
    name = forge.__name__  # type: ignore[attr-defined]
    song = make_song(daemon.folder / f"{name}.wav", 0.3)
    shutil.copy2(song, daemon.inbox / f"{name}.wav")
    first = daemon.final(f"{name}.wav")
    forge(daemon.outbox / first["output"]["dir"])  # type: ignore[operator]
    shutil.copy2(song, daemon.inbox / f"{name} again.wav")
    again = daemon.final(f"{name} again.wav")
    assert (again["state"], again["duplicate_of"]) == ("done", None)
    assert again["output"]["dir"] == f"{name} again"


def test_a_result_that_was_not_stands(daemon: Daemon) -> None:
    song = make_song(daemon.folder / "honest.wav", 0.3)
    shutil.copy2(song, daemon.inbox / "honest.wav")
    first = daemon.final("honest.wav")
    shutil.copy2(song, daemon.inbox / "honest again.wav")
    assert daemon.final("honest again.wav")["duplicate_of"] == first["job_id"]


def test_a_song_that_is_linked_back(daemon: Daemon) -> None:
    """A second name of an original in done/ is put away too: nothing stays in the inbox, under no name."""
    make_song(daemon.inbox / "linked.wav", 0.3)
    daemon.final("linked.wav")
    daemon.quiet()
    (daemon.inbox / "linked.wav").hardlink_to(daemon.spool / "done" / "linked.wav")
    daemon.until(lambda: daemon.song("linked.wav").get("duplicate_of"), "it is done again")
    daemon.quiet()
    assert [path.name for path in daemon.inbox.iterdir() if path.name != ".demixd-lease"] == []
    assert (daemon.spool / "done" / "linked.wav").exists()


@pytest.mark.parametrize("seq", [((1 << 63) - 1) << 32, 1 << 96, 1 << 52, -1])
def test_a_number_of_starts_that_was_forged(tmp_path: Path, seq: int) -> None:
    """A sequence number that no daemon reaches does not count: it starts, also once more."""
    daemon = Daemon(tmp_path, fake=True)
    (daemon.spool / "status").mkdir()
    (daemon.spool / "status" / "x.json").write_text(json.dumps({"seq": seq}))
    try:
        for _ in range(2):
            daemon.start().ready()
            assert 0 < daemon.read("_daemon.json")["seq"] < 1 << 40
            assert daemon.stop() == 0
    finally:
        daemon.end()


def dig(folder: Path, depth: int) -> None:
    """So many folders within each other."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def fill(folder: Path) -> None:
    """Remove these folders, which are deeper than rmtree goes."""
    while (folder / "d").exists():
        deepest, rest = folder / "/".join(["d"] * 100), folder.parent / "rest"
        (deepest / "d").rename(rest) if (deepest / "d").exists() else None
        shutil.rmtree(folder / "d")
        if rest.exists():
            rest.rename(folder / "d")


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_folders_within_each_other(tmp_path: Path, state: str) -> None:
    """More of them than Python recurses, in status/ and the outbox: the daemon starts, works, and says its status."""
    with running(tmp_path, fake=True) as daemon:
        make_song(daemon.inbox / "first.wav", 0.3)
        daemon.final("first.wav")
        daemon.quiet()
        assert daemon.stop() == 0
        for folder in (daemon.spool / "status", daemon.outbox):
            dig(folder, 1500)
        if state == "lost":
            shutil.rmtree(tmp_path / "state")
            sidecar = daemon.song("first.wav")
            (daemon.spool / "status" / "first.wav.json").write_text(json.dumps({**sidecar, "state": "running"}))
        daemon.start().ready()
        make_song(daemon.inbox / "second.wav", 0.4)
        assert daemon.final("second.wav")["state"] == "done"
        assert daemon.command("status").returncode == 0
    for folder in (daemon.spool / "status", daemon.outbox):
        fill(folder)


@pytest.mark.parametrize("words", ["cancel nosuch", "cancel x*", "check"])
def test_commands_walk_an_inbox_without_end(tmp_path: Path, words: str) -> None:
    """So many folders in the inbox are no traceback of a command, which says what it would say without them."""
    daemon = Daemon(tmp_path)
    plain = daemon.command(*words.split())
    dig(daemon.inbox, 1500)
    done = daemon.command(*words.split())
    fill(daemon.inbox)
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    if words == "check":
        assert "202 folders to watch" in done.stdout


@contextmanager
def taken(lock: Path) -> Iterator[None]:
    """Somebody's own file is in the place of a lock, and is locked."""
    with lock.with_name(".x").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock.with_name(".x").rename(lock)
        yield


def test_a_damaged_result_is_made_again_once(tmp_path: Path) -> None:
    """Two copies come at once, for two workers, and both find it."""
    with running(tmp_path, fake=True, model={"device": ["cpu", "cpu"]}) as daemon:
        song = make_song(tmp_path / "song.wav", 20.0)
        shutil.copy(song, daemon.inbox / "a.wav")
        result = daemon.outbox / daemon.final("a.wav")["output"]["dir"]
        with (result / "instrumental.wav").open("r+b") as stem:
            stem.write(b"rift")
        for name in ("b.wav", "c.wav"):
            shutil.copy(song, daemon.inbox / f".{name}")
        for name in ("b.wav", "c.wav"):
            (daemon.inbox / f".{name}").rename(daemon.inbox / name)
        assert [daemon.final(name)["state"] for name in ("b.wav", "c.wav")] == ["done"] * 2
        made = [daemon.song(name)["duplicate_of"] is None for name in ("b.wav", "c.wav")]
        assert sum(made) == 1


@pytest.mark.parametrize("place", ["status/.demixd-lock", "outbox/.demixd/lock"])
def test_a_lock_that_was_forged_ends_nobody(tmp_path: Path, place: str) -> None:
    """A daemon that runs says so and waits; it goes on once the lock is free. At a start it would be another daemon's."""
    with running(tmp_path, fake=True) as daemon:
        with taken(daemon.spool / place):
            daemon.until(lambda: "is used by another demixd" in daemon.log.read_text(), "it says so")
            make_song(daemon.inbox / "song.wav", 0.3)
            daemon.until(lambda: "demixd waits until it is free" in daemon.log.read_text(), "it waits")
        assert daemon.final("song.wav")["state"] == "done"


@pytest.mark.parametrize("what", ["song.wav.cancel", ".cancel"])
def test_a_cancel_through_a_link(daemon: Daemon, what: str) -> None:
    """The command makes a file in the inbox, and touches nothing that a link there leads to."""
    victim = daemon.folder / f"victim-{what}"
    victim.write_text("mine")
    os.utime(victim, (1, 1))
    (daemon.inbox / what).symlink_to(victim)
    daemon.command("cancel", *(["--all"] if what == ".cancel" else ["song.wav"]))
    assert victim.stat().st_mtime == 1
    (daemon.inbox / what).unlink(missing_ok=True)


def test_the_state_folder_is_the_daemon_s_own(tmp_path: Path) -> None:
    """Made so, and made so where it was open to others."""
    with running(tmp_path, fake=True) as daemon:
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert daemon.stop() == 0
        (tmp_path / "state").chmod(0o755)
        daemon.start().ready()
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_state_folder_of_somebody_else(tmp_path: Path) -> None:
    """It is refused by name, and nothing in it is touched."""
    daemon = Daemon(tmp_path, fake=True)
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(timeout=60) == 78
    assert f"{tmp_path}/state cannot be used: it belongs to another user" in daemon.log.read_text()
    assert list((tmp_path / "state").iterdir()) == []
