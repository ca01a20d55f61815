"""One look at the inbox after another: what counts as it was, and what is asked for anew."""

import os
from pathlib import Path

import pytest

from demixd.supervisor.inbox.scan import Listing, scan


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "album").mkdir()
    for name in ("a.wav", "album/b.flac", "cover.jpg"):
        (tmp_path / name).write_bytes(b"song")
    return tmp_path


def look(inbox: Path, before: Listing, *, by_inode: bool = False) -> Listing:
    return scan(inbox, recursive=True, before=before, by_inode=by_inode)


@pytest.mark.parametrize("by_inode", [False, True])
def test_nothing_is_new(inbox: Path, by_inode: bool) -> None:
    """The listing is the one before itself."""
    before = scan(inbox, recursive=True)
    assert sorted(before.songs) == ["a.wav", "album/b.flac"]
    assert look(inbox, before, by_inode=by_inode) is before


@pytest.mark.parametrize("name", ["a.wav", "album/b.flac"])
def test_a_song_that_is_written_to(inbox: Path, name: str) -> None:
    """Its status tells; its inode does not."""
    before = scan(inbox, recursive=True)
    with (inbox / name).open("ab") as song:
        song.write(b"more")
    assert look(inbox, before, by_inode=True) is before
    assert look(inbox, before).songs[name].identity.size == 8


@pytest.mark.parametrize("name", ["a.wav", "album/b.flac"])
def test_a_song_that_is_replaced_or_goes(inbox: Path, name: str) -> None:
    """Its inode tells of another file, of a link in its place, and of none."""
    before = scan(inbox, recursive=True)
    (inbox / "new").write_bytes(b"song")
    (inbox / "new").rename(inbox / name)
    now = look(inbox, before, by_inode=True)
    assert now.songs[name].identity != before.songs[name].identity
    (inbox / name).unlink()
    assert name not in look(inbox, now, by_inode=True).songs
    os.link(inbox / "cover.jpg", inbox / name)
    assert look(inbox, now, by_inode=True).songs[name].identity.inode == (inbox / "cover.jpg").stat().st_ino


@pytest.mark.parametrize("name", ["a.wav.cancel", "a.wav.job.json", "album/new.mp3", "notes.txt"])
def test_a_file_that_comes(inbox: Path, name: str) -> None:
    before = scan(inbox, recursive=True)
    (inbox / name).touch()
    assert name in look(inbox, before, by_inode=True).files


def test_an_option_file_that_is_written_to(inbox: Path) -> None:
    """Only songs are taken by their inode."""
    (inbox / "a.wav.job.json").write_text("{}")
    before = scan(inbox, recursive=True)
    (inbox / "a.wav.job.json").write_text('{"priority": 1}')
    assert look(inbox, before, by_inode=True).songs["a.wav"].options != before.songs["a.wav"].options
