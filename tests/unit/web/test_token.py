"""The token's file, and the link."""

import os
import socket
import stat
from pathlib import Path

import pytest

from demixd.errors import RefusedError
from demixd.web import token


def test_it_is_made_once(tmp_path: Path) -> None:
    """The first start makes it, for this user alone; later ones find it."""
    folder = tmp_path / "a" / "demixd-web"
    made = token.keep(folder)
    assert len(made) >= 43 and token.keep(folder) == token.read(folder) == made
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_that_is_none(tmp_path: Path) -> None:
    """What is too short for a token, or something else, is replaced; a link is not followed."""
    for text in ("", "short", "with blanks " * 5, "x" * 500):
        (tmp_path / "token").write_text(text)
        assert token.read(tmp_path) is None
    assert token.read(tmp_path / "nowhere") is None
    assert token.keep(tmp_path) == token.read(tmp_path)
    (tmp_path / "token").rename(tmp_path / "other")
    (tmp_path / "token").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        token.read(tmp_path)


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """systemd's, else that of XDG, else the usual one; who asks for the link without having one is told whose it is."""
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/demixd-web")
    assert token.folder() == Path("/var/lib/demixd-web")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert token.folder() == tmp_path / "demixd-web"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token.folder() == tmp_path / ".local/state/demixd-web"
    monkeypatch.setattr(token, "SERVICE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert token.folder_to_show() == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RefusedError, match="sudo demixd web --token"):
        token.folder_to_show()
    token.folder().mkdir(parents=True)
    (token.folder() / "token").touch()
    assert token.folder_to_show() == token.folder()


def test_the_link() -> None:
    """It has the address that a phone reaches, whatever the server listens at."""
    assert token.link("127.0.0.1:8377", "T") == "http://127.0.0.1:8377/?token=T"
    assert token.link("nas.local:80", None) == "http://nas.local/"
    assert token.link("[::1]:8377", None) == "http://[::1]:8377/"
    own = token.own_address(socket.AF_INET)
    assert own != "0.0.0.0"
    assert token.link("0.0.0.0:8377", None) == f"http://{own}:8377/"


def test_the_address(tmp_path: Path) -> None:
    """The link is that of the server that ran last, which may listen elsewhere than the configuration says."""
    assert token.address(tmp_path, "127.0.0.1:1") == "127.0.0.1:1"
    token.write_address(tmp_path, "0.0.0.0:2")
    assert token.address(tmp_path, "127.0.0.1:1") == "0.0.0.0:2"
