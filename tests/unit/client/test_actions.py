"""What the commands write into an inbox into which others write as well."""

import json
import secrets
from pathlib import Path

import pytest

from demixd import config
from demixd.client import actions
from demixd.errors import AudioProcessingError, RefusedError
from demixd.spool.tree import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool" / "inbox").mkdir(parents=True)
    (tmp_path / "song.wav").write_bytes(b"song")
    return Spool(config.parse(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n', "demixd.toml"))


def test_a_link_under_the_temporary_name_is_not_followed(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever guesses the name under which song or options are written has no file of the submitter's overwritten."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "beef")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for part in (".song.wav.beef.part", ".song.wav.beef.options.part", ".song.wav.job.json.beef.part"):
        (spool.inbox / part).symlink_to(victim)
    actions.drop(spool, tmp_path / "song.wav", options=b"{}")
    assert victim.read_bytes() == b"precious"
    assert (spool.inbox / "song.wav").read_bytes() == b"song"
    assert (spool.inbox / "song.wav.job.json").read_bytes() == b"{}"
    assert not (spool.inbox / "song.wav").is_symlink()


def test_the_options_have_a_name_of_their_own(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The song's temporary name, which others see while it is copied, does not tell that of its options."""
    drawn: list[str] = []
    monkeypatch.setattr(secrets, "token_hex", lambda _: drawn.append(f"{len(drawn):08x}") or drawn[-1])
    actions.drop(spool, tmp_path / "song.wav", options=b"{}")
    assert len(drawn) == 2


def test_a_folder_that_became_a_link_is_not_written_to(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A song goes into the folder that was there when it was looked at, whatever others put in its place meanwhile."""
    (tmp_path / "elsewhere").mkdir()

    def swap(_: int) -> str:
        if not (spool.inbox / "Album").is_symlink():
            (spool.inbox / "Album").rename(spool.inbox / "Away")
            (spool.inbox / "Album").symlink_to(tmp_path / "elsewhere")
        return "beef"

    monkeypatch.setattr(secrets, "token_hex", swap)
    actions.drop(spool, tmp_path / "song.wav", "Album/song.wav", b"{}")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {path.name for path in (spool.inbox / "Away").iterdir()} == {"song.wav", "song.wav.job.json"}


def test_nothing_is_left_where_the_song_cannot_be_read(spool: Spool, tmp_path: Path) -> None:
    """A song that went meanwhile leaves neither an option file nor a temporary one."""
    with pytest.raises(FileNotFoundError):
        actions.drop(spool, tmp_path / "gone.wav", options=b"{}")
    assert list(spool.inbox.iterdir()) == []


def test_a_drop_that_breaks_off_leaves_nothing(spool: Spool) -> None:
    """An error while somebody writes the song leaves neither that nor its options."""
    with pytest.raises(ZeroDivisionError), actions.dropping(spool, "x/song.wav", b"{}") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [path for path in spool.inbox.rglob("*") if path.is_file()] == []


def test_other_options_for_a_song_that_waits(spool: Spool) -> None:
    """One key is changed, and the others stay; a song without an option file gets one."""
    (spool.inbox / "a.wav").write_bytes(b"a")
    actions.set_options(spool, "a.wav", {"priority": 5})
    actions.set_options(spool, "a.wav", {"tag": "é"})
    assert actions.options_of(spool, "a.wav") == {"priority": 5, "tag": "é"}
    (spool.inbox / "a.wav.job.json").write_bytes(b'\xef\xbb\xbf{"stems": ["vocals"], "priority": 1}')
    actions.set_options(spool, "a.wav", {"priority": 2})
    assert json.loads((spool.inbox / "a.wav.job.json").read_text()) == {"stems": ["vocals"], "priority": 2}
    assert len(list(spool.inbox.iterdir())) == 2


def test_options_that_cannot_be_changed(spool: Spool, tmp_path: Path) -> None:
    """A song that is not there, options that cannot be, and a file that is none stay as they are."""
    with pytest.raises(RefusedError):
        actions.set_options(spool, "gone.wav", {"priority": 5})
    (spool.inbox / "a.wav").write_bytes(b"a")
    with pytest.raises(AudioProcessingError):
        actions.set_options(spool, "a.wav", {"priority": 5000})
    (spool.inbox / "a.wav.job.json").write_bytes(b"{broken")
    with pytest.raises(AudioProcessingError):
        actions.set_options(spool, "a.wav", {"priority": 5})
    assert (spool.inbox / "a.wav.job.json").read_bytes() == b"{broken"
    (tmp_path / "victim").write_bytes(b"{}")
    (spool.inbox / "a.wav.job.json").unlink()
    (spool.inbox / "a.wav.job.json").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        actions.set_options(spool, "a.wav", {"priority": 5})


def test_pause(spool: Spool) -> None:
    """The file says whether songs in flight wait, too; to go on twice is no error."""
    actions.pause(spool)
    assert (spool.inbox / ".pause").read_text() == ""
    actions.pause(spool, now=True)
    assert (spool.inbox / ".pause").read_text() == "now\n"
    actions.go_on(spool)
    actions.go_on(spool)
    assert list(spool.inbox.iterdir()) == []
