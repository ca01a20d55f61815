"""What the README promises, seen from outside: order, bytes, levels, and room on the disk."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from daemons import Daemon, make_song, running
from demixd.engine.models.demo.songs import make_song as make_music


def stems(daemon: Daemon, name: str) -> dict[str, Any]:
    """The manifest of a song that must be done."""
    sidecar = daemon.final(name)
    assert sidecar["state"] == "done", sidecar
    manifest: dict[str, Any] = json.loads((daemon.outbox / sidecar["output"]["dir"] / "stems.json").read_text())
    return manifest


def test_ten_songs_dropped_before_the_start_are_done_in_order(tmp_path: Path) -> None:
    """Songs dropped while the daemon was not running: begun, and done, by the time they became ready and name."""
    names = [f"{number:02d}.wav" for number in range(10)]
    daemon = Daemon(tmp_path, fake=True)
    for name in names:
        make_song(daemon.inbox / name, 0.3)
    try:
        daemon.start().ready()
        for name in names:
            assert daemon.final(name)["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()
    told = re.findall(r"(\d\d\.wav): (running \(snapshot\)|done)", daemon.log.read_text())
    for state in ("running (snapshot)", "done"):
        assert [name for name, each in told if each == state] == names


@pytest.mark.parametrize("kind", ["wav", *(pytest.param(kind, marks=pytest.mark.daily) for kind in ("flac", "mp3"))])
def test_the_same_song_twice_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    """Two drops of one content under two names have stems of the same sha256."""
    song = make_song(tmp_path / f"song.{kind}", 1.0)
    with running(tmp_path / "d") as daemon:
        for name in ("one", "two"):
            shutil.copy(song, daemon.inbox / f"{name}.{kind}")
        first, second = (
            [file["sha256"] for file in stems(daemon, f"{name}.{kind}")["files"]] for name in ("one", "two")
        )
    assert first == second


@pytest.mark.daily
def test_a_song_that_clips_has_one_gain(tmp_path: Path) -> None:
    """All stems get the gain that the manifest gives; divided by it they are what the engine made."""
    song = np.sum(list(make_music(seed=3, seconds=3.0).values()), axis=0).T
    soundfile.write(tmp_path / "loud.wav", 4 * song / np.abs(song).max(), 44100, subtype="FLOAT")
    made = {}
    for clip in ("joint", "none"):
        with running(tmp_path / clip, defaults={"clip": clip}) as daemon:
            shutil.copy(tmp_path / "loud.wav", daemon.inbox)
            manifest = stems(daemon, "loud.wav")
            folder = daemon.outbox / "loud"
            read = {
                file["stem"]: soundfile.read(folder / file["name"], dtype="float64")[0] for file in manifest["files"]
            }
            made[clip] = (manifest, read)
    manifest, joint = made["joint"]
    assert manifest["gain_db"] < 0
    assert {file["gain_db"] for file in manifest["files"]} == {manifest["gain_db"]}
    assert max(np.abs(stem).max() for stem in joint.values()) <= 1
    for name, stem in joint.items():
        np.testing.assert_allclose(stem / 10 ** (manifest["gain_db"] / 20), made["none"][1][name], atol=1e-6)


@pytest.mark.daily
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small filesystem: sudo tests/run")
def test_no_space_waits_until_there_is_room(tmp_path: Path) -> None:
    """A song that needs more room than there is waits as `no-space` before it is separated; then it is done."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], check=True)
    work, outbox = disk / "work", disk / "outbox"
    work.mkdir()
    outbox.mkdir()
    try:
        paths = {"work": str(work), "outbox": str(outbox)}
        with running(tmp_path / "d", paths=paths, limits={"memory_bytes": 0}) as daemon:
            (disk / "filler").write_bytes(bytes(24 << 20))
            make_song(daemon.inbox / "song.flac", 10.0)
            waiting = daemon.until(
                lambda: (s := daemon.song("song.flac")).get("reason") == "no-space" and s, "no-space"
            )
            assert "MB are free" in waiting["message"]
            assert waiting["state"] == "waiting"
            daemon.until(lambda: not list(work.iterdir()) and not daemon.works(), "nothing left behind")
            (disk / "filler").unlink()
            assert daemon.final("song.flac")["state"] == "done"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
