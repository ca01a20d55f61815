"""What systemd is told, heard on a socket of the test's own."""

import shutil
import socket
import threading
from pathlib import Path

from daemons import ROOT, Daemon, heard, make_song


def test_systemd_hears_the_life_of_the_daemon(tmp_path: Path) -> None:
    """READY after warm-up, STATUS with the song, WATCHDOG from the loop, STOPPING at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(60)
        heard: list[str] = []

        def listen() -> None:
            # All the time: the kernel holds ten datagrams, and then the sender waits.
            while "STOPPING=1" not in heard:
                heard.extend(line.recv(4096).decode().splitlines())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        daemon = Daemon(tmp_path)
        make_song(tmp_path / "song.flac", 20.0)
        try:
            daemon.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000").ready()
            shutil.copy(tmp_path / "song.flac", daemon.inbox)
            assert daemon.final("song.flac")["state"] == "done"
            assert daemon.stop() == 0
        finally:
            daemon.end()
        listener.join(timeout=60)
    assert heard.count("READY=1") == 1
    assert "WATCHDOG=1" in heard
    assert any(text.startswith("STATUS=song.flac: ") for text in heard)
    assert heard[-1] == "STOPPING=1"


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
