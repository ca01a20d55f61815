"""What the commands write into an inbox into which others write as well."""

import secrets
from pathlib import Path

import pytest

from demixd import config
from demixd.client import actions
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
