"""A job's private folder, and the files in it: what others put in their place is neither opened nor believed."""

import errno
import os
from pathlib import Path

import pytest

from demixd.spool import nofollow, private
from demixd.spool.files import open_own, open_song

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")


def is_refused(share: Path, folder: Path, number: int) -> bool:
    """Whether the folder is refused with that errno, also when it is looked at again."""
    for _ in range(2):
        with pytest.raises(OSError) as error, private.inside(share, folder / "out"):
            pass
        if error.value.errno != number:
            return False
    return True


def test_nobody_else_looks_into_it(tmp_path: Path) -> None:
    """Whatever the umask; what is in it gets its mode from that, for after its rename."""
    before = os.umask(0o002)
    try:
        private.make(tmp_path, tmp_path / "job", ("out", "tmp"))
    finally:
        os.umask(before)
    assert (tmp_path / "job").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "job" / "out").stat().st_mode & 0o777 == 0o775
    with private.inside(tmp_path, tmp_path / "job" / "out") as handle:
        assert os.fstat(handle).st_ino == (tmp_path / "job" / "out").stat().st_ino


def test_what_is_there_is_not_taken(tmp_path: Path) -> None:
    """A private folder is new, or there is none."""
    (tmp_path / "job").mkdir(mode=0o700)
    with pytest.raises(FileExistsError):
        private.make(tmp_path, tmp_path / "job", ("out",))


def test_another_folder_in_its_place(tmp_path: Path) -> None:
    """One of ours that others may write to, such as an earlier result, and a link to one that is private."""
    private.make(tmp_path, tmp_path / "job", ("out",))
    (tmp_path / "job").rename(tmp_path / "aside")
    (tmp_path / "job" / "out").mkdir(parents=True)
    (tmp_path / "job").chmod(0o775)
    assert is_refused(tmp_path, tmp_path / "job", errno.EPERM)
    assert (tmp_path / "job").stat().st_mode & 0o777 == 0o775, "as it was"
    (tmp_path / "job" / "out").rmdir()
    (tmp_path / "job").rmdir()
    (tmp_path / "job").symlink_to(tmp_path / "aside")
    assert is_refused(tmp_path, tmp_path / "job", errno.ENOTDIR)


@needs_root
def test_somebody_else_s_private_folder(tmp_path: Path) -> None:
    """Root could look into it, and does not."""
    private.make(tmp_path, tmp_path / "job", ("out",))
    os.chown(tmp_path / "job", 12345, 12345)
    assert is_refused(tmp_path, tmp_path / "job", errno.EPERM)


def test_a_link_in_the_place_of_a_file(tmp_path: Path) -> None:
    """Neither read nor written, nor replaced by anything but a new file."""
    victim, name = tmp_path / "victim", tmp_path / "vocals.flac"
    victim.write_text("mine")
    name.symlink_to(victim)
    for mode in ("rb", "r+b"):
        with pytest.raises(OSError) as error:
            open_own(name, mode)  # type: ignore[arg-type]
        assert error.value.errno == errno.ELOOP
    with open_own(name, "x+b") as file:
        file.write(b"new")
    assert (victim.read_text(), name.read_text()) == ("mine", "new")


def test_a_second_name_of_another_file(tmp_path: Path) -> None:
    """A hard link is another file's; a song may have as many names as its owner likes."""
    victim, name = tmp_path / "victim", tmp_path / "vocals.flac"
    victim.write_text("mine")
    name.hardlink_to(victim)
    with pytest.raises(PermissionError):
        open_own(name, "r+b")
    with open_song(name) as file:
        assert file.read() == b"mine"


def test_an_error_names_the_whole_path(tmp_path: Path) -> None:
    """What is done to a name in an open folder fails with the path, of which the kernel got only the name."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught, nofollow.reach(tmp_path, tmp_path / "a" / "b") as folder:
        os.rename("x", "y", src_dir_fd=folder, dst_dir_fd=folder)
    assert (caught.value.filename, caught.value.filename2) == (f"{tmp_path}/a/b/x", f"{tmp_path}/a/b/y")


def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "song")
    with pytest.raises(PermissionError):
        open_song(tmp_path / "song")
    with pytest.raises(PermissionError):
        open_own(tmp_path / "song", "r+b")
