"""`daemon/try`: the tour of a newcomer, on the demo model."""

import os
import subprocess
import sys
from pathlib import Path

from daemons import PATIENCE_S, ROOT, make_song


def tour(folder: Path, *songs: Path) -> subprocess.CompletedProcess[str]:
    """What `daemon/try` runs once its packages are there; its folder is below `folder`."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "demixd.cli.tour", *map(str, songs)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
    )


def test_every_stem_is_listed(tmp_path: Path) -> None:
    """Each song is dropped, followed to its end and listed with its stems, which have its number of frames."""
    songs = [make_song(tmp_path / name, 1.0) for name in ("one.wav", "two.flac")]
    done = tour(tmp_path, *songs)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("demixd-try-*")
    lines = done.stdout.splitlines()
    for song, kind in (("one", "wav"), ("two", "flac")):
        assert f"{song}.{kind}: done, in {folder}/spool/outbox/{song}" in lines
        at = lines.index(f"{song}.{kind}: 44100 frames, {kind}")
        for number, stem in enumerate(("vocals", "instrumental")):
            facts, path = lines[at + 1 + 2 * number : at + 3 + 2 * number]
            assert facts.split()[0] == stem
            assert facts.endswith("44100 frames (the song's)")
            assert Path(path.strip()) == folder / "spool" / "outbox" / song / f"{stem}.{kind}"
            assert Path(path.strip()).is_file()
    assert lines[-1].startswith(f"Everything is in {folder}")


def test_a_song_that_cannot_be(tmp_path: Path) -> None:
    """A file that is no song is refused in a sentence before the daemon starts; a broken one makes the tour end with 1."""
    done = tour(tmp_path, ROOT / "README.md")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"daemon/try: {ROOT / 'README.md'}: the daemon would leave it in the inbox (not-audio)"
    )
    assert "Starting the daemon" not in done.stdout
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no" * 5000)
    done = tour(tmp_path, broken, make_song(tmp_path / "good.wav", 0.5))
    assert done.returncode == 1
    assert "broken.mp3: failed: " in done.stderr
    assert "good.wav: done, in " in done.stdout
