"""What becomes of an original, on real files: moved, put back, never replaced."""

import os
from pathlib import Path

import pytest

from demixd.protocol.identity import Identity
from demixd.protocol.result_names import numbered
from demixd.supervisor.runs import originals


def test_an_original_gets_its_name_back(tmp_path: Path) -> None:
    """One that could not be put away has its name again, and is known by what it is there."""
    song, taken = tmp_path / "song.wav", tmp_path / ".demixd-job"
    song.write_text("old")
    identity = Identity.of(song.stat())
    assert originals.take(song, taken, identity)
    left = originals.put_back(taken, song, identity)
    assert left == Identity.of(song.stat())
    assert not taken.exists()


def test_a_new_drop_keeps_the_name(tmp_path: Path) -> None:
    """Where a new drop has the name by then, the original is numbered, and the new drop is not taken for answered."""
    song, taken = tmp_path / "song.wav", tmp_path / ".demixd-job"
    song.write_text("old")
    identity = Identity.of(song.stat())
    assert originals.take(song, taken, identity)
    song.write_text("a new drop")
    assert originals.put_back(taken, song, identity) is None
    assert song.read_text() == "a new drop"
    assert (tmp_path / "song (2).wav").read_text() == "old"


def test_only_the_song_itself_is_taken(tmp_path: Path) -> None:
    """What is not what the snapshot was made of stays where it is, with its change time."""
    song = tmp_path / "song.wav"
    song.write_text("old")
    identity = Identity.of(song.stat())
    song.write_text("a new drop")
    before = Identity.of(song.stat())
    assert not originals.take(song, tmp_path / ".demixd-job", identity)
    assert Identity.of(song.stat()) == before


def test_numbers_fit_into_a_name(tmp_path: Path) -> None:
    """Names of 255 bytes are numbered too, at the cost of characters before the extension."""
    name = "é" * 125 + "a.wav"
    (tmp_path / name).write_text("first")
    (tmp_path / "other").write_text("second")
    stored = originals.move(tmp_path / "other", tmp_path / name)
    assert stored.name.endswith(" (2).wav")
    assert len(stored.name.encode()) <= 255
    assert (tmp_path / name).read_text() == "first"


def test_numbers_fit_behind_a_dot_that_begins_no_extension() -> None:
    """Where hardly anything stands before the last dot, the name is shortened at its end, and still numbered."""
    for name in ("a." + "x" * 253, "." + "é" * 127, "x" * 222 + "." + "y" * 32):
        leaf = numbered(name, 10**6)
        assert " (1000000)" in leaf
        assert len(leaf.encode()) == 255
    assert numbered("x" * 10 + "." + "y" * 33, 2).endswith("y (2)")


def test_a_twin_is_replaced(tmp_path: Path) -> None:
    """A file of the same content makes room for the original, whichever number it has; another content keeps its name."""
    done = tmp_path / "done"
    done.mkdir()
    for name, text in (("song.wav", "one"), ("song (2).wav", "two")):
        (done / name).write_text(text)
    for number, text in enumerate(("one", "two", "new", "new", "one")):
        song = tmp_path / f"{number}.wav"
        song.write_text(text)
        inode = song.stat().st_ino
        assert originals.move(song, done / "song.wav").stat().st_ino == inode
    assert {path.name: path.read_text() for path in done.iterdir()} == {
        "song.wav": "one",
        "song (2).wav": "two",
        "song (3).wav": "new",
    }


def test_what_is_no_file_is_no_twin(tmp_path: Path) -> None:
    """A link, a FIFO or a folder with the original's name is left as it is, and is not waited for."""
    done = tmp_path / "done"
    done.mkdir()
    (tmp_path / "elsewhere").write_text("same")
    (done / "song.wav").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(done / "song (2).wav")
    (done / "song (3).wav").mkdir()
    (tmp_path / "song.wav").write_text("same")
    assert originals.move(tmp_path / "song.wav", done / "song.wav").name == "song (4).wav"
    assert (done / "song.wav").is_symlink()


def test_only_so_much_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that are compared for one original are bounded in all: beyond that it gets the next number."""
    done = tmp_path / "done"
    done.mkdir()
    for name, text in (("song.wav", "other"), ("song (2).wav", "again"), ("song (3).wav", "twin!")):
        (done / name).write_text(text)
    monkeypatch.setattr(originals, "LARGEST_TWIN", 2 * len("twin!"))
    (tmp_path / "song.wav").write_text("twin!")
    assert originals.move(tmp_path / "song.wav", done / "song.wav").name == "song (4).wav"


def test_thousands_of_taken_names_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others have made thousands of numbered names, few are looked at; the original gets the number behind them."""
    done = tmp_path / "done"
    done.mkdir()
    (done / "song.wav").write_text("one")
    for number in range(2, 3001):
        (done / numbered("song.wav", number)).hardlink_to(done / "song.wav")
    asked: list[int] = []
    monkeypatch.setattr(originals, "numbered", lambda name, number: asked.append(number) or numbered(name, number))
    (tmp_path / "song.wav").write_text("new")
    assert originals.move(tmp_path / "song.wav", done / "song.wav").name == "song (3001).wav"
    assert len(asked) < 50
