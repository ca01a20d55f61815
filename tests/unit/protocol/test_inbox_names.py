"""Names in the inbox: what an entry is by its name alone."""

import pytest

from demixd.protocol.inbox_names import Kind, beginnings, download_of, kind_of_file, kind_of_folder


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("Clip.f137.mp4", "Clip"),
        ("a/Clip.f251.webm", "a/Clip"),
        ("Clip.f140-drc.m4a", "Clip"),
        ("Clip.fhls-1080p.mp4", "Clip"),
        ("Clip.temp.mp4", "Clip"),
        ("v1.0.f137.mp4", "v1.0"),
        ("Clip.mp4", None),
        ("Clip.feat.mp3", None),
        ("Clip.flac.wav", None),
        (".f137.mp4", None),
        ("a/.temp.mp4", None),
        ("a.f137.b/Clip.mp4", None),
        ("temp.mp4", None),
    ],
)
def test_a_part_of_a_download_tells_its_whole(name: str, whole: str | None) -> None:
    """yt-dlp puts the number of a format, or `temp`, before the extension; no folder counts, and no word of a title."""
    assert download_of(name) == whole


def test_beginnings() -> None:
    """A path begins as what stands before each dot of its last part, but for a dot that is its first character."""
    assert beginnings("a.b/.c.d.e") == {"a.b/.c", "a.b/.c.d"}
    assert beginnings("song") == set()


@pytest.mark.parametrize("extension", ["weba", "m4r", "m4v", "3gp", "3ga", "mpga", "adts", "bwf", "qt", "wmv"])
def test_names_of_phones_and_browsers_are_songs(extension: str) -> None:
    """What phones, browsers and recorders call their files is a song."""
    assert kind_of_file(f"x.{extension.upper()}") is Kind.SONG


@pytest.mark.parametrize(("leaf", "kind"), [(".cancel", Kind.CANCEL), (".pause", Kind.PAUSE)])
def test_what_means_all_songs(leaf: str, kind: Kind) -> None:
    """It counts at the top of the inbox alone, and in a folder it is said to be misplaced."""
    assert kind_of_file(leaf) is kind
    assert kind_of_file(leaf, at_root=False) is Kind.MISPLACED


@pytest.mark.parametrize("suffix", ["", ".cancel", ".job.json"])
def test_dots_in_front_of_a_title_hide_nothing(suffix: str) -> None:
    """Two dots or more in front hide neither a song nor its companions; one dot, or nothing but dots, does."""
    kind = {"": Kind.SONG, ".cancel": Kind.CANCEL, ".job.json": Kind.OPTIONS}[suffix]
    assert kind_of_file(f"..x.flac{suffix}") is kind_of_file(f"...x.flac{suffix}") is kind
    assert kind_of_file(f".x.flac{suffix}") is Kind.IGNORED
    assert kind_of_file("...flac") is kind_of_file("..x.txt") is kind_of_file("...x.flac.part") is Kind.IGNORED
    assert kind_of_folder("...And Justice for All") is None
    assert kind_of_folder("...") is Kind.IGNORED
