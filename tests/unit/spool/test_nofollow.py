"""Files below a folder that others may write to: what has been put in their place is not followed, nor waited for."""

import errno
import os
from pathlib import Path

import pytest

from demixd.spool import nofollow


def test_a_link_is_not_read(tmp_path: Path) -> None:
    """Neither one in the place of the file, nor one in the place of a folder on the way."""
    (tmp_path / "secret").write_text("private")
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "root" / "folder" / "song").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "way").symlink_to(tmp_path)
    for path, number in (("folder/song", errno.ELOOP), ("way/secret", errno.ENOTDIR)):
        with pytest.raises(OSError) as error:
            nofollow.read_file(tmp_path / "root", tmp_path / "root" / path)
        assert error.value.errno == number


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into it; who reads looks at what it has got."""
    os.mkfifo(tmp_path / "song")
    handle = nofollow.read_file(tmp_path, tmp_path / "song")
    assert os.read(handle, 10) == b""
    os.close(handle)
