"""Which files of a folder are run: those that nobody but root and ourselves may change."""

import os
from pathlib import Path

import pytest

from demixd.cli.hooks.executables import MOST, NotTrustedError, check, listed

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    folder = tmp_path / "hooks.d"
    folder.mkdir(mode=0o755)
    path = folder / "ntfy"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_which_are_meant(hook: Path) -> None:
    """Files in the order of their names; none that an editor or a package has left, no folder, no README."""
    for name in ("apprise", "20-rescan", ".hidden", "ntfy~", "ntfy.dpkg-old", "README", "_off"):
        (hook.parent / name).touch()
    (hook.parent / "folder").mkdir()
    assert [path.name for path in listed(hook.parent)] == ["20-rescan", "apprise", "ntfy"]


def test_there_is_a_bound(hook: Path) -> None:
    """Thousands of files are not thousands of threads."""
    for number in range(MOST + 20):
        (hook.parent / f"{number:03}").touch()
    assert len(listed(hook.parent)) == MOST


def test_our_own_is_run(hook: Path) -> None:
    """A file of ours in a folder of ours is trusted, and so is a link to another such file."""
    check(hook)
    link = hook.parent / "link"
    link.symlink_to(hook)
    check(link)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_others_may_write_it(hook: Path, mode: int) -> None:
    """Neither the file nor its folder may be open to group or others; the sentence names it and says what to do."""
    hook.chmod(mode)
    with pytest.raises(NotTrustedError, match=f"{hook} can be written to by others.*chmod go-w {hook}"):
        check(hook)
    hook.chmod(0o755)
    hook.parent.chmod(mode)
    with pytest.raises(NotTrustedError, match=f"{hook.parent} can be written to by others"):
        check(hook)


def test_a_link_into_an_open_folder(hook: Path, tmp_path: Path) -> None:
    """What a link leads to counts as well, and so does each folder on the way to it."""
    there = tmp_path / "open" / "inner"
    there.mkdir(parents=True)
    there.parent.chmod(0o777)
    target = there / "script"
    target.write_text("#!/bin/sh\n")
    target.chmod(0o755)
    link = hook.parent / "link"
    link.symlink_to(target)
    with pytest.raises(NotTrustedError, match=f"{there.parent} can be written to by others"):
        check(link)
    there.parent.chmod(0o1777)
    check(link)


@as_root
def test_another_users(hook: Path) -> None:
    """A file or a folder of another user's than root and ourselves is not run."""
    os.chown(hook, 12345, 0)
    with pytest.raises(NotTrustedError, match=f"{hook} is another user's.*chown root {hook}"):
        check(hook)
    os.chown(hook, 0, 0)
    os.chown(hook.parent, 12345, 0)
    with pytest.raises(NotTrustedError, match=f"{hook.parent} is another user's"):
        check(hook)


def test_what_cannot_be_run(hook: Path, tmp_path: Path) -> None:
    """A file without the permission, a pipe, a link to nowhere or in a circle, and a file that has gone say so."""
    hook.chmod(0o644)
    with pytest.raises(NotTrustedError, match="is not executable, and is not run: chmod"):
        check(hook)
    os.mkfifo(hook.parent / "pipe", 0o755)
    with pytest.raises(NotTrustedError, match="is no file"):
        check(hook.parent / "pipe")
    (hook.parent / "nowhere").symlink_to(tmp_path / "nothing")
    (hook.parent / "circle").symlink_to(hook.parent / "circle")
    for name in ("nowhere", "circle", "gone"):
        with pytest.raises(NotTrustedError):
            check(hook.parent / name)
