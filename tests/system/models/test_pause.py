"""A real worker is stopped by a pause, and gets the same song again."""

import shutil
from pathlib import Path

from daemons import make_song, running


def test_a_pause_of_a_running_song(tmp_path: Path) -> None:
    """The song waits again with no attempt counted, its model stays warm, and after the pause it is done in one attempt."""
    make_song(tmp_path / "long.flac", 90.0)
    with running(tmp_path / "d") as daemon:
        worker = daemon.read("_daemon.json")["worker"]["pid"]
        shutil.copy(tmp_path / "long.flac", daemon.inbox)
        daemon.until(lambda: daemon.song("long.flac").get("step") == "separate", "separate")
        (daemon.inbox / ".pause").write_text("now\n")
        daemon.until(lambda: daemon.song("long.flac").get("reason") == "paused", "it waits")
        assert daemon.song("long.flac")["attempt"] == 0
        daemon.until(lambda: not daemon.works(), "no work folder")
        (daemon.inbox / ".pause").unlink()
        final = daemon.final("long.flac")
        assert (final["state"], final["attempt"]) == ("done", 1)
        assert daemon.read("_daemon.json")["worker"]["pid"] == worker
