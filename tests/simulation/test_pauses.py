"""The whole daemon is paused, its worker too: a frozen container, a SIGSTOP to all of it. No limit runs out by that."""

from pathlib import Path

from queues import running
from simulated import Simulated, simulated
from simulated_songs import make_song

PAUSE_S = 3600.0
"""Longer than any limit."""


def begun(daemon: Simulated, name: str) -> int:
    """The process id of the worker that is separating the song of that name."""
    daemon.hold.touch()
    make_song(daemon.inbox / name)
    running(daemon, name)
    assert daemon.worker is not None
    return daemon.worker.pid


def test_a_pause_is_no_stall(tmp_path: Path) -> None:
    """The song that is being separated goes on: the worker is not ended, and no attempt is lost."""
    with simulated(tmp_path) as daemon:
        pid = begun(daemon, "song.wav")
        daemon.pause(PAUSE_S)
        daemon.hold.unlink()
        song = daemon.final("song.wav")
        assert (song["state"], song["attempt"]) == ("done", 1)
        assert daemon.worker is not None and daemon.worker.pid == pid


def test_a_pause_after_a_cancel(tmp_path: Path) -> None:
    """The worker has its grace afterwards: it stays warm."""
    with simulated(tmp_path) as daemon:
        pid = begun(daemon, "song.wav")
        deaf = tmp_path / "deaf"
        deaf.touch()
        (daemon.inbox / "song.wav.cancel").touch()
        daemon.until(lambda: "cancel seen" in daemon.log.read_text(), "the cancel is seen")
        daemon.pause(PAUSE_S)
        deaf.unlink()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.quiet()
        assert daemon.worker is not None and daemon.worker.pid == pid


def test_a_pause_while_a_model_is_loaded(tmp_path: Path) -> None:
    """The worker may go on loading it."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().turn()
        assert daemon.worker is not None
        pid = daemon.worker.pid
        daemon.pause(PAUSE_S)
        daemon.ready()
        assert daemon.worker.pid == pid
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_pause_while_a_song_is_copied_in(tmp_path: Path) -> None:
    """It may be that of its writer too: the song settles afterwards."""
    with simulated(tmp_path) as daemon:
        whole = make_song(tmp_path / "song.wav", 0.6).read_bytes()
        song = daemon.inbox / "song.wav"
        song.write_bytes(whole[:1000])
        daemon.until(lambda: daemon.song("song.wav"), "it is seen")
        daemon.pause(PAUSE_S)
        assert daemon.song("song.wav")["reason"] == "changing"
        song.write_bytes(whole)
        assert daemon.final("song.wav")["input"]["size"] == len(whole)
