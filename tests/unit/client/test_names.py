"""Which songs a word of the command line means."""

import pytest

from demixd.client import names
from demixd.errors import RefusedError

SONGS = ("03 c.wav", "box/03 b.wav", "03 a.wav", "other.wav")


def test_songs_are_in_the_order_of_paths() -> None:
    """Whatever the order is in which a folder lists them: those that a pattern means, and those that a refusal names."""
    assert names.meant("03*", SONGS, "known") == ["03 a.wav", "03 c.wav", "box/03 b.wav"]
    with pytest.raises(RefusedError, match=r"3 songs begin so, 03 a.wav, 03 c.wav, box/03 b.wav: give more"):
        names.meant("03", SONGS, "known")
    with pytest.raises(
        RefusedError, match=r"no song of that name is known; there are 03 a.wav, 03 c.wav, box/03 b.wav"
    ):
        names.meant("zzz", SONGS, "known")


def test_a_beginning_may_mean_several_songs() -> None:
    """To a command that only shows them, in the order of paths."""
    assert names.meant("03", SONGS, "known", several=True) == ["03 a.wav", "03 c.wav", "box/03 b.wav"]


def test_a_folder_means_its_songs() -> None:
    """Those below it too, but only where no song's name begins so; nothing of a folder whose name begins so."""
    assert names.meant("box", (*SONGS, "box/deep/d.wav", "box2/e.wav"), "known") == ["box/03 b.wav", "box/deep/d.wav"]
    assert names.meant("box", (*SONGS, "boxer.wav"), "known") == ["boxer.wav"]


@pytest.mark.parametrize("word", ["box/03", "box/03 b.wav", "oth"])
def test_a_beginning_will_do(word: str) -> None:
    """That of a file name, or of a path whose folders are whole, where no other song begins so."""
    assert names.meant(word, SONGS, "known") == [{"oth": "other.wav"}.get(word, "box/03 b.wav")]
