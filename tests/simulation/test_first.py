from pathlib import Path
import time

from simulated import Simulated, simulated
from simulated_songs import make_song


def test_a_song(tmp_path: Path) -> None:
    t = time.time()
    with simulated(tmp_path) as daemon:
        t1 = time.time()
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        t2 = time.time()
        daemon.quiet()
        print(daemon.read("song.wav.json"), daemon.points, daemon.turns, daemon.clock.now())
    print(t1 - t, t2 - t1, time.time() - t2)
