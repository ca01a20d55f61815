"""Files that other programs make of one another in the inbox: none is taken from under them, and none is done twice."""

import re
from datetime import datetime
from pathlib import Path

from demixd.supervisor.inbox.readiness import DOWNLOAD_S
from simulated import Simulated, simulated
from simulated_songs import make_song


def state(daemon: Simulated, name: str) -> tuple[str, str | None]:
    told = daemon.song(name)
    return told.get("state", ""), told.get("reason")


def test_the_parts_of_a_download_are_left_to_it(tmp_path: Path) -> None:
    """Parts that yt-dlp still has to merge wait; what it makes of them is done, and nothing else."""
    with simulated(tmp_path, defaults={"format": "wav"}) as daemon:
        parts = ("Clip.f137.mp4", "Clip.f251.webm")
        for name in parts:
            make_song(daemon.inbox / name, 0.2)
            daemon.sleep(100)
            assert state(daemon, name) == ("waiting", "companion-file")
        daemon.sleep(DOWNLOAD_S - 150)  # the later part, which has come since, counts for both
        make_song(daemon.inbox / "Clip.temp.mp4", 0.3)
        daemon.sleep(60)
        assert [state(daemon, name)[0] for name in (*parts, "Clip.temp.mp4")] == ["waiting"] * 3
        (daemon.inbox / "Clip.temp.mp4").rename(daemon.inbox / "Clip.mp4")
        for name in parts:
            (daemon.inbox / name).unlink()
        assert daemon.final("Clip.mp4")["state"] == "done"
        daemon.quiet()
        assert {name.partition("/")[0] for name in daemon.results()} == {"Clip"}


def test_parts_that_nobody_merges_are_songs(tmp_path: Path) -> None:
    """Once no file of the download has changed for ten minutes its parts are songs; that one of them goes is no change."""
    with simulated(tmp_path, defaults={"format": "wav"}) as daemon:
        names = ("a/Tune.f1.m4a", "a/Tune.f2.m4a")
        (daemon.inbox / "a").mkdir()
        for name in names:
            make_song(daemon.inbox / name, 0.2)
        began, day = daemon.clock.now(), daemon.clock.wall()
        daemon.sleep(DOWNLOAD_S - 5)
        assert [state(daemon, name) for name in names] == [("waiting", "companion-file")] * 2
        told = re.search(
            r" taken at (.*) UTC if no file that begins with Tune\. changes\.$", daemon.song(names[0])["message"]
        )
        assert told and 0 <= datetime.fromisoformat(f"{told[1]}+00:00").timestamp() - day - DOWNLOAD_S <= 61
        for name in names:
            assert daemon.final(name)["state"] == "done"
        assert daemon.clock.now() < began + DOWNLOAD_S + 60


def test_a_song_that_is_being_converted_waits(tmp_path: Path) -> None:
    """A song waits while another of its name, with another extension, is being written: it is what that one is made from."""
    with simulated(tmp_path, defaults={"format": "wav"}) as daemon:
        made = make_song(tmp_path / "made.wav", 1.0, size=20000).read_bytes()
        with (daemon.inbox / "Tune.wav").open("wb") as file:
            file.write(made[:9000])
            file.flush()
            make_song(daemon.inbox / "Tune.flac", 0.2)
            daemon.sleep(30)
            assert state(daemon, "Tune.flac") == ("waiting", "companion-file")
            (daemon.inbox / "Tune.flac").unlink()
            file.write(made[9000:])
        assert daemon.final("Tune.wav")["state"] == "done"
        assert daemon.final("Tune.flac")["state"] == "cancelled"
        daemon.quiet()
        assert {name.partition("/")[0] for name in daemon.results()} == {"Tune"}


def test_an_album_in_two_formats_is_done_in_both(tmp_path: Path) -> None:
    """Songs of one name and two extensions that nobody writes are both done."""
    with simulated(tmp_path, defaults={"format": "wav"}) as daemon:
        for name in ("Tune.wav", "Tune.flac"):
            make_song(daemon.inbox / name, 0.2 if name.endswith("wav") else 0.3)
        assert [daemon.final(name)["state"] for name in ("Tune.wav", "Tune.flac")] == ["done", "done"]
        daemon.quiet()
