"""Names, options and room of songs that come in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="config/requirements-web.lock is not installed")

from starlette.requests import ClientDisconnect

from demixd import config as configuration
from demixd.config import Config
from demixd.spool import room
from demixd.spool.tree import Spool
from demixd.web import uploads
from demixd.web.problem import ProblemError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "spool" / "inbox").mkdir(parents=True)
    text = f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n[limits]\nmax_bytes = 3000000\n[profiles.k]\n'
    return configuration.parse(text, "demixd.toml")


@pytest.fixture
def inbox(config: Config) -> Path:
    return Spool(config).inbox


async def pieces(*data: bytes, broken: bool = False) -> AsyncIterator[bytes]:
    for each in data:
        yield each
    if broken:
        raise ClientDisconnect


def take(config: Config, path: str, *data: bytes, length: int | None = None, broken: bool = False, **query: str) -> Any:
    """Take a song in, as the server would; what the body ends with is raised."""
    body = pieces(*data, broken=broken)
    return asyncio.run(uploads.Uploads(config, Spool(config)).take(path.split("/"), query, length, body))


def refused(config: Config, path: str, *data: bytes, **how: Any) -> int:
    with pytest.raises(ProblemError) as found:
        take(config, path, *data, **how)
    assert found.value.sentence.endswith(".")
    return found.value.status


def test_a_song_with_folders_and_options(config: Config, inbox: Path) -> None:
    """It lies in the inbox whole, below its folders, with the options that were chosen, and nothing else does."""
    assert take(config, "Álbum/🎵.flac", b"a" * 2_000_000, b"b", profile="k", stems="vocals, drums") == "Álbum/🎵.flac"
    assert (inbox / "Álbum/🎵.flac").read_bytes() == b"a" * 2_000_000 + b"b"
    assert (inbox / "Álbum/🎵.flac.job.json").read_text() == '{"profile":"k","stems":["vocals","drums"]}\n'
    assert len(list((inbox / "Álbum").iterdir())) == 2


@pytest.mark.parametrize(
    "path",
    [
        *("a.txt", "a", ".a.wav", "a.wav.part", "a.wav.cancel", "a.wav.job.json", ".cancel", ".pause", "x.mid"),
        *("@eaDir/a.wav", ".x/a.wav", "x.json/a.wav", "x.part/a.wav", "Thumbs.db", "a.cancel/a.wav", ".../a.wav"),
        *(f"{'x' * 252}.wav", f"{'é' * 130}/a.wav", "d/" * 201 + "a.wav", f"{'long/' * 190}{'x' * 250}/" * 5 + "a.wav"),
    ],
)
def test_names_that_are_no_songs(config: Config, inbox: Path, path: str) -> None:
    """What the daemon would not take for a song, or not look into, is refused before a byte of it is written."""
    assert refused(config, path, b"a") in (400, 415)
    assert list(inbox.iterdir()) == []


def test_no_folders_where_none_are_walked(config: Config, inbox: Path) -> None:
    """With [inbox] recursive = false a folder is refused."""
    with pytest.raises(ProblemError, match="no folder"):
        uploads.name_of(["x", "a.wav"], recursive=False)


@pytest.mark.parametrize("query", [{"profile": "none"}, {"stems": "vocals,vocals"}, {"stems": ","}])
def test_options_that_cannot_be(config: Config, inbox: Path, query: dict[str, str]) -> None:
    """A profile that there is not, or stems that cannot be, are told of before the song comes."""
    assert refused(config, "a.wav", b"a", **query) == 400
    assert list(inbox.iterdir()) == []


def test_what_is_too_large(config: Config, inbox: Path) -> None:
    """[limits] max_bytes counts for what is announced, and for what comes without having been."""
    assert refused(config, "a.wav", length=10**10) == 413
    assert refused(config, "a.wav", *[b"a" * 1_000_000] * 4, length=10) == 413
    assert refused(config, "a.wav", *[b"a" * 1_000_000] * 4) == 413
    assert list(inbox.iterdir()) == []


def test_what_is_empty(config: Config, inbox: Path) -> None:
    """A song without a byte is none."""
    assert refused(config, "a.wav") == 400
    assert refused(config, "a.wav", length=0) == 400
    assert list(inbox.iterdir()) == []


def test_a_body_that_breaks_off(config: Config, inbox: Path) -> None:
    """It leaves nothing, neither song nor options."""
    with pytest.raises(ClientDisconnect):
        take(config, "x/a.wav", b"a" * 2_000_000, broken=True, profile="k")
    assert [path for path in inbox.rglob("*") if path.is_file()] == []


def test_a_name_that_is_taken(config: Config, inbox: Path) -> None:
    """A song of that name stays as it is, also one that comes while the other does."""
    (inbox / "a.wav").write_bytes(b"first")
    assert refused(config, "a.wav", b"second") == 409

    async def late() -> AsyncIterator[bytes]:
        yield b"second"
        (inbox / "b.wav").write_bytes(b"first")

    with pytest.raises(ProblemError, match="already"):
        asyncio.run(uploads.Uploads(config, Spool(config)).take(["b.wav"], {}, None, late()))
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == {"a.wav": b"first", "b.wav": b"first"}


def test_a_link_for_a_folder(config: Config, inbox: Path, tmp_path: Path) -> None:
    """A folder that somebody has made a link leads nowhere."""
    (tmp_path / "elsewhere").mkdir()
    (inbox / "x").symlink_to(tmp_path / "elsewhere")
    assert refused(config, "x/a.wav", b"a") == 404
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_disk_keeps_its_reserve(config: Config, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A song for which there is no room beyond the reserve is refused; so is one that turns out to need it."""
    monkeypatch.setattr(room, "beyond_reserve", lambda _: (1_000_000, 10**9))
    assert refused(config, "a.wav", b"a", length=1_000_001) == 507
    monkeypatch.setattr(room, "RESERVE_BYTES", 1000)
    monkeypatch.setattr(room, "beyond_reserve", lambda place: (-1 if isinstance(place, int) else 10**9, 10**9))
    assert refused(config, "a.wav", b"a" * 1_100_000) == 507
    assert list(inbox.iterdir()) == []


def test_silence_is_given_up(config: Config, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of which nothing more comes leaves nothing, and its place to others."""
    monkeypatch.setattr(uploads, "SILENT_S", 0.01)

    async def hangs() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(60)

    with pytest.raises(ProblemError, match="Nothing more") as found:
        asyncio.run(uploads.Uploads(config, Spool(config)).take(["a.wav"], {}, None, hangs()))
    assert found.value.status == 408
    assert list(inbox.iterdir()) == []


def test_a_missing_inbox_is_not_made(config: Config, inbox: Path) -> None:
    """An inbox that is not mounted stays empty for the disk that is to come."""
    inbox.rmdir()
    assert refused(config, "a.wav", b"a") == 503
    assert not inbox.exists()
