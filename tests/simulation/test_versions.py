"""Somebody goes back a version: what the newer one has begun stays for it, and everything else goes on."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from simulated import Simulated
from simulated_songs import make_song


def rewrite(daemon: Simulated, name: str, change: dict[str, Any]) -> bytes:
    """Change the row of a song as another version would have written it; the row as it was."""
    with sqlite3.connect(daemon.folder / "state" / "ledger.sqlite3") as ledger:
        (before,) = ledger.execute("SELECT record FROM jobs WHERE name = ?", (name.encode(),)).fetchone()
        row = json.loads(before)
        ledger.execute("UPDATE jobs SET record = ? WHERE name = ?", (json.dumps(row | change).encode(), name.encode()))
    ledger.close()
    return bytes(before)


def restore(daemon: Simulated, name: str, record: bytes) -> None:
    with sqlite3.connect(daemon.folder / "state" / "ledger.sqlite3") as ledger:
        ledger.execute("UPDATE jobs SET record = ? WHERE name = ?", (record, name.encode()))
    ledger.close()


def test_back_and_forth(tmp_path: Path) -> None:
    """The row, song and work of a job that cannot be read stay, and are told of; with the newer version they go on."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start(at={"6-rename": "kill"}).ready()
        make_song(daemon.inbox / "song.wav", 0.2)
        daemon.until_dead()
        work = daemon.works()
        assert len(work) == 1
        told = daemon.song("song.wav")
        record = rewrite(daemon, "song.wav", {"reason": "full-moon"})
        daemon.start().ready()
        make_song(daemon.inbox / "other.wav", 0.3)
        assert daemon.final("other.wav")["state"] == "done"
        daemon.sleep(30)
        assert daemon.works() == work
        assert (daemon.inbox / "song.wav").exists()
        assert daemon.song("song.wav") == told
        entries = {each["name"]: each["reason"] for each in daemon.read("_inbox.json")["entries"]}
        assert entries == {"song.wav": "other-version"}
        assert any("newer demixd" in warning for warning in daemon.read("_daemon.json")["warnings"])
        assert daemon.stop() == 0
        restore(daemon, "song.wav", record)
        daemon.start().ready()
        assert daemon.final("song.wav")["state"] == "done"
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_new_drop_of_the_name(tmp_path: Path) -> None:
    """A newer drop under the name of a job that cannot be read is a song like any other."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        make_song(daemon.inbox / "song.wav", 0.2)
        first = daemon.final("song.wav")["job_id"]
        assert daemon.stop() == 0
        rewrite(daemon, "song.wav", {"state": "asleep"})
        daemon.start().ready()
        make_song(daemon.inbox / "song.wav", 0.4)
        sidecar = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] != first and s["state"] == "done" and s, "done"
        )
        assert sidecar["previous"] is None
        assert daemon.stop() == 0
    finally:
        daemon.end()
