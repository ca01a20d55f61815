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


def locks_of(folder: Path) -> Locks:
    spool = Spool(config.parse(f'[paths]\nspool = "{folder}"\n', "demixd.toml"))
    for place in (spool.status, spool.private):
        place.mkdir(parents=True, exist_ok=True)
    return Locks(folder / "state", spool, "instance")


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
    assert "it is of user 0, whose daemon may use the folder" in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_lock_file_that_another_user_has_put_there(tmp_path: Path) -> None:
    """Who may write to the folder can put any name into a file of their own: it is no sign of a daemon."""
    lock = tmp_path / "status" / ".demixd-lock"
    lock.parent.mkdir()
    lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(owner(1), host="elsewhere")))
    os.chown(lock, 12345, 12345)
    locks = locks_of(tmp_path)
    with pytest.raises(OSError, match="it is of user 12345, whose daemon may use the folder") as error:
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


def test_another_machine_that_is_waited_for_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start takes longer, and says why."""
    lock = tmp_path / "status" / ".demixd-lock"
    lock.parent.mkdir()
    lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(owner(1), host="elsewhere")))
    locks = locks_of(tmp_path)
    locks.take("status")
    assert f"{lock} is signed by process 1 on elsewhere: waiting" in caplog.text
    locks.release()
