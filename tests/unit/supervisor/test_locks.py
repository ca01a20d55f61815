"""The lock files: whose they are, and who is named where one is held."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from demixd import config
from demixd.errors import ConfigError
from demixd.spool.processes import this_process
from demixd.spool.tree import Spool
from demixd.supervisor.locks import Locks, Owner


def locks_of(folder: Path, heartbeat_s: float = 5.0) -> Locks:
    spool = Spool(config.parse(f'[paths]\nspool = "{folder}"\n', "demixd.toml"))
    for place in (spool.status, spool.private):
        place.mkdir(parents=True, exist_ok=True)
    return Locks(folder / "state", spool, "instance", heartbeat_s)


@contextmanager
def held(lock: Path, by: Owner | None) -> Iterator[None]:
    """Somebody has locked the file, which is signed so."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("wb") as file:
        file.write(msgspec.json.encode(by) if by else b"")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def owner(pid: int) -> Owner:
    return Owner(pid=pid, instance="other", **msgspec.structs.asdict(this_process()))


def refusal(folder: Path, part: str) -> str:
    with pytest.raises(ConfigError) as error:
        locks_of(folder).take(part)
    return str(error.value)


def test_nobody_else_may_lock_them(tmp_path: Path) -> None:
    """Whoever can open a file can lock it: they are the daemon's alone, also where a former version has made them."""
    old = tmp_path / "status" / ".demixd-lock"
    old.parent.mkdir()
    old.touch()
    old.chmod(0o664)
    locks = locks_of(tmp_path)
    locks.take("status", "outbox")
    for lock in (old, tmp_path / "outbox" / ".demixd" / "lock"):
        assert lock.stat().st_mode & 0o777 == 0o600
    locks.release()


def test_a_daemon_that_lives_is_named(tmp_path: Path) -> None:
    with held(tmp_path / "status" / ".demixd-lock", owner(os.getpid())):
        said = refusal(tmp_path, "status")
    assert f"another demixd (process {os.getpid()} on " in said
    assert said.endswith("each daemon needs its own status folder.")


def test_a_process_that_has_ended_is_not_named(tmp_path: Path) -> None:
    """It holds nothing: somebody else has locked the file, who may have signed it or not."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock = tmp_path / "outbox" / ".demixd" / "lock"
    for by in (owner(gone.pid), None):
        with held(lock, by):
            said = refusal(tmp_path, "outbox")
        assert f"a process that has locked {lock} without a name" in said
        assert f"process {gone.pid}" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_lock_of_another_user() -> None:
    """It says whose it is, and what to do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        locks = locks_of(folder)
        locks.take("status")
        for place in (folder, folder / "status"):
            place.chmod(0o777)
        os.seteuid(12345)
        try:
            with pytest.raises(PermissionError) as error:
                locks_of(folder).take("status")
        finally:
            os.seteuid(0)
        locks.release()
    assert error.value.filename == str(folder / "status" / ".demixd-lock")
    assert "the file belongs to user 0, whose daemon may use its folder" in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_lock_file_that_another_user_has_put_there(tmp_path: Path) -> None:
    """Who may write to the folder can put any name into a file of their own: it is no sign of a daemon."""
    lock = tmp_path / "status" / ".demixd-lock"
    lock.parent.mkdir()
    lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(owner(1), host="elsewhere")))
    os.chown(lock, 12345, 12345)
    locks = locks_of(tmp_path)
    with pytest.raises(OSError, match="the file belongs to user 12345, whose daemon may use its folder") as error:
        locks.take("status")
    assert error.value.filename == str(lock)
    lock.unlink()
    locks.take("status")
    locks.release()


def test_what_cannot_be_a_lock_is_named_by_its_path(tmp_path: Path) -> None:
    """A folder in its place, say: there are three locks, and the error tells which it is."""
    lock = tmp_path / "status" / ".demixd-lock"
    lock.mkdir(parents=True)
    with pytest.raises(OSError, match="Is a directory") as error:
        locks_of(tmp_path).take("status")
    assert error.value.filename == str(lock)


def signed_elsewhere(folder: Path) -> Path:
    """The lock of a daemon on another machine."""
    lock = folder / "status" / ".demixd-lock"
    lock.parent.mkdir()
    lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(owner(1), host="elsewhere")))
    return lock


def test_another_machine_that_is_waited_for_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start takes longer, and says why, how long, and what to do."""
    lock = signed_elsewhere(tmp_path)
    locks = locks_of(tmp_path)
    locks.take("status")
    assert f"{lock} is signed by process 1 on elsewhere: waiting 15 s" in caplog.text
    assert "gone for good, delete the file" in caplog.text
    locks.release()


@pytest.mark.parametrize(("claimed_s", "waited_s"), [(1e300, 1800.0), (600.0, 1800.0), (20.0, 60.0), (1e-9, 15.0)])
def test_an_interval_is_believed_within_bounds(tmp_path: Path, claimed_s: float, waited_s: float) -> None:
    """Others may write the heartbeat: neither does a forged one hold a start for days, nor does it end the wait at once."""
    signed_elsewhere(tmp_path)
    heartbeat = tmp_path / "status" / "_daemon.json"
    heartbeat.write_bytes(msgspec.json.encode({"seq": 7, "interval_s": claimed_s}))
    locks = locks_of(tmp_path)
    locks.take("status")
    assert not locks.judge_rival(100.0)
    assert not locks.judge_rival(100.0 + waited_s - 1.0)
    assert locks.judge_rival(100.0 + waited_s)
    locks.release()


def test_a_heartbeat_that_is_taken_away_is_no_sign_of_life(tmp_path: Path) -> None:
    """Anybody who may write to the folder can delete it: the start is not refused for that, and waits no less."""
    signed_elsewhere(tmp_path)
    heartbeat = tmp_path / "status" / "_daemon.json"
    heartbeat.write_bytes(msgspec.json.encode({"seq": 7, "interval_s": 20.0}))
    locks = locks_of(tmp_path)
    locks.take("status")
    assert not locks.judge_rival(100.0)
    heartbeat.unlink()
    assert not locks.judge_rival(159.0)
    heartbeat.write_bytes(msgspec.json.encode({"seq": 8, "interval_s": 20.0}))
    with pytest.raises(ConfigError, match="is used by another demixd"):
        locks.judge_rival(159.5)
    locks.release()
