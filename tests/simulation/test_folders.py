"""Folders that go away in the middle of something: nothing is made in their place, and nothing is lost."""

import json
from pathlib import Path

import pytest

from simulated import Simulated, simulated
from simulated_songs import make_song


def go(folder: Path) -> Path:
    """The folder goes away, to what is given back."""
    return folder.rename(folder.with_name(f"away-{folder.name}"))


def listed(daemon: Simulated) -> dict[str, str]:
    """What `_inbox.json` says."""
    return {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json").get("entries", [])}


@pytest.mark.parametrize("folder", ["inbox", "done"])
def test_a_folder_that_goes_as_the_original_is_put_away(tmp_path: Path, folder: str) -> None:
    """1.7.9: an original that is not found, or cannot be stored, since a folder has just gone is put away once it is back."""
    with simulated(tmp_path) as daemon:
        away = daemon.spool / f"away-{folder}"
        daemon.at["9-original"] = [lambda: go(daemon.spool / folder) and None]
        make_song(daemon.inbox / "song.wav", 0.3)
        job = daemon.state("song.wav", "done")["job_id"]
        daemon.sleep(30)
        away.rename(daemon.spool / folder)
        daemon.quiet()
        assert (daemon.song("song.wav")["job_id"], daemon.song("song.wav")["warnings"]) == (job, [])
        assert [path.name for path in (daemon.spool / "done").iterdir()] == ["song.wav"]
        assert list(daemon.inbox.iterdir()) == []


@pytest.mark.parametrize("crash", [False, True])
def test_a_song_that_is_deleted_while_status_is_away(tmp_path: Path, crash: bool) -> None:
    """1.3: its end is shown once the sidecar can be written, also where the daemon dies before."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "a.wav", 0.2)
        make_song(daemon.inbox / "b.wav", 0.2)
        daemon.until(lambda: daemon.song("b.wav").get("reason") == "queued", "queued")
        status = go(daemon.spool / "status")
        (daemon.inbox / "b.wav").unlink()
        daemon.sleep(5)
        if crash:
            daemon.kill()
            daemon.start()
            daemon.sleep(5)
        daemon.hold.unlink()
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("a.wav")["state"] == "done"
        assert (daemon.song("b.wav")["state"], daemon.song("b.wav")["message"]) == (
            "cancelled",
            "The song was deleted.",
        )


def test_a_late_cancel_while_status_is_away(tmp_path: Path) -> None:
    """1.5.1: it is answered, and goes, once the answer can be written."""
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", 0.2)
        daemon.final("song.wav")
        daemon.quiet()
        status = go(daemon.spool / "status")
        (daemon.inbox / "song.wav.cancel").touch()
        daemon.sleep(5)
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("song.wav")["cancel"]["result"] == "too-late"
        assert list(daemon.inbox.iterdir()) == []


def test_a_drop_that_ended_first_while_status_is_away(tmp_path: Path) -> None:
    """1.2: a new drop that ended before the old one of its name is shown after it, also where status was away then."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until(lambda: daemon.song("song.wav").get("step") == "separate", "separating")
        (daemon.inbox / "song.wav.job.json").write_text(json.dumps({"what": 1}))
        make_song(tmp_path / "song.wav", 0.5).rename(daemon.inbox / "song.wav")
        daemon.until(lambda: (daemon.spool / "failed" / "song.wav").exists(), "the new drop has failed")
        status = go(daemon.spool / "status")
        assert daemon.worker is not None
        daemon.worker.die()
        daemon.sleep(5)
        daemon.hold.unlink()
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("song.wav")["error"]["code"] == "bad-options"
