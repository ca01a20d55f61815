"""What only a real process shows of its beginning and its end."""

import os
import signal
import time
from pathlib import Path

from daemons import PATIENCE_S, Daemon, make_song
from walk_watch import Eyes
from watching import again_and_again, needs_strace


@needs_strace
def test_a_song_that_ran_when_the_daemon_died(tmp_path: Path) -> None:
    """The next daemon shows it waiting at once: never as running, with less progress than it had. On a slow disk too."""
    daemon = Daemon(tmp_path, fake=True)
    eyes = Eyes(daemon.spool / "status", daemon.outbox)
    slow = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=50000")
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until(lambda: daemon.song("song.wav").get("progress", {}).get("fraction", 0) > 0.1, "some progress")
        with again_and_again(eyes.look) as raised:
            daemon.end()
            daemon.start(under=("strace", "-f", "-qq", *slow, "-o", "/dev/null"))
            daemon.until(lambda: daemon.song("song.wav")["reason"] == "retry", "it waits again")
        os.kill(daemon.read("_daemon.json")["pid"], signal.SIGTERM)  # not strace, which is our child
        assert daemon.process is not None
        daemon.process.wait(timeout=PATIENCE_S)
    finally:
        daemon.end()
    assert (raised, eyes.wrong) == ([], [])


def test_stopped_as_it_begins(tmp_path: Path) -> None:
    """SIGTERM stops the daemon within 5 s also where it comes before the first look, as soon as there is a worker."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start()
        assert daemon.process is not None
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        while not children.read_text():
            time.sleep(0.001)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=5) == 0
    finally:
        daemon.end()
