"""What systemd is told, heard on a socket of the test's own."""

import json
from pathlib import Path

from daemons import ROOT, Daemon, heard, make_song


def test_systemd_hears_the_life_of_the_daemon(tmp_path: Path) -> None:
    """READY after warm-up, STATUS with the song, WATCHDOG from the loop, STOPPING at the end."""
    daemon = Daemon(tmp_path)
    try:
        with heard(tmp_path) as (address, lines):
            daemon.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000").ready()
            make_song(tmp_path / "song.flac", 20.0).rename(daemon.inbox / "song.flac")
            assert daemon.final("song.flac")["state"] == "done"
            assert daemon.stop() == 0
            daemon.until(lambda: "STOPPING=1" in lines, "STOPPING")
    finally:
        daemon.end()
    assert lines.count("READY=1") == 1
    assert "WATCHDOG=1" in lines
    assert any(text.startswith("STATUS=song.flac: ") for text in lines)
    said_of_life = [text for text in lines if text in ("READY=1", "STOPPING=1")]
    assert said_of_life == ["READY=1", "STOPPING=1"]


def test_systemd_hears_what_a_start_waits_for(tmp_path: Path) -> None:
    """Another machine's sign may be waited for longer than systemd waits for READY (TimeoutStartSec=): STATUS tells of it."""
    daemon = Daemon(tmp_path, fake=True)
    status = daemon.spool / "status"
    status.mkdir(exist_ok=True)
    other = {"host": "elsewhere", "boot": "another", "pid": 4711, "instance": "other"}
    (status / ".demixd-lock").write_text(json.dumps(other))
    (status / "_daemon.json").write_text('{"seq": 1, "interval_s": 600.0}')
    waits = (
        f"STATUS=waiting 1800 s to see whether process 4711 on elsewhere still uses {status}; the log says what to do"
    )
    try:
        with heard(tmp_path) as (address, lines):
            daemon.start(NOTIFY_SOCKET=address)
            daemon.until(lambda: "READY=1" in lines, "READY")
            daemon.until(lambda: any(text.startswith(waits) for text in lines), "what it waits for")
            assert daemon.stop() == 0
    finally:
        daemon.end()


def test_without_systemd_python(tmp_path: Path) -> None:
    """NOTIFY_SOCKET is ignored with one line in the log, and everything works. A folder of that name is no library."""
    (tmp_path / "path" / "systemd").mkdir(parents=True)
    (tmp_path / "path" / "systemd" / "__init__.py").touch()
    daemon = Daemon(tmp_path, fake=True)
    path = f"{tmp_path / 'path'}:{ROOT / 'daemon'}"
    try:
        with heard(tmp_path) as (address, lines):
            daemon.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000", PYTHONPATH=path).ready()
            make_song(daemon.inbox / "song.wav", 0.3)
            assert daemon.final("song.wav")["state"] == "done"
            assert daemon.stop() == 0
        assert lines == []
    finally:
        daemon.end()
    assert daemon.log.read_text().count("NOTIFY_SOCKET is ignored") == 1
