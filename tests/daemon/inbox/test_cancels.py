"""Cancel files, point by point: whom each one means, what becomes of it, and what it must not do."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from daemons import Daemon, make_song, running


def reasons(daemon: Daemon) -> dict[str, str]:
    """What `_inbox.json` says."""
    return {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json").get("entries", [])}


def separating(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.until(
        lambda: (s := daemon.song(name)).get("step") == "separate" and s, f"{name} being separated"
    )
    return found


def immutable(path: Path, on: bool) -> None:
    """A file that even root cannot delete."""
    done = subprocess.run(["chattr", "+i" if on else "-i", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs root and a filesystem with chattr +i")


@pytest.mark.parametrize("name", ["song.wav.cancel", ".cancel"])
def test_a_cancel_that_cannot_be_removed(tmp_path: Path, name: str) -> None:
    """1.5.1: it ends its job once; the next drop of the name is served, also after a restart, while it lies there."""
    daemon = Daemon(tmp_path, fake=True)
    cancel = daemon.inbox / name
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        first = separating(daemon, "song.wav")
        cancel.touch()
        immutable(cancel, True)
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.hold.unlink()
        daemon.until(lambda: reasons(daemon).get(name) == "answered-cancel", "listed as answered")
        for length in (0.3, 0.4):
            make_song(tmp_path / "again.wav", length).rename(daemon.inbox / "song.wav")
            daemon.until(
                lambda n=length: (s := daemon.song("song.wav"))["state"] == "done" and s["input"]["duration_s"] == n,
                "the new drop done",
            )
            daemon.quiet()
            assert daemon.stop() == 0
            daemon.start().ready()
        assert daemon.song("song.wav")["job_id"] != first["job_id"]
        assert cancel.exists()
        assert daemon.stop() == 0
    finally:
        daemon.end()
        immutable(cancel, False)


def test_a_worker_that_does_not_stop(tmp_path: Path) -> None:
    """1.5.3: after the grace it is killed, the song is cancelled, and a new worker does the next one."""
    with running(tmp_path, fake=True, limits={"cancel_grace_s": 0.5}) as daemon:
        worker = daemon.read("_daemon.json")["worker"]["pid"]
        daemon.hold.touch()
        (tmp_path / "deaf").touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        separating(daemon, "song.wav")
        (daemon.inbox / "song.wav.cancel").touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.hold.unlink()
        make_song(daemon.inbox / "next.wav", 0.2)
        assert daemon.final("next.wav")["state"] == "done"
        assert daemon.read("_daemon.json")["worker"]["pid"] != worker
        daemon.quiet()
        files = ("vocals.wav", "instrumental.wav", "peaks.json", "stems.json")
        assert daemon.results() == {"next", *(f"next/{file}" for file in files)}
