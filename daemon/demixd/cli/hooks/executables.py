"""The executables of a folder, and whether they can be trusted: whoever may write one may do all that we may."""

import os
import stat
from pathlib import Path

MOST = 64
"""Executables at most: each has a thread, and a process at times."""

LEFT_OVER = ("~", ".bak", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".orig", ".rej", ".swp")
"""Ends of names that editors and packages leave beside files."""


class NotTrustedError(Exception):
    """A file is not run. The message says which one, and what to do."""


def listed(folder: Path) -> list[Path]:
    """The files in the folder that are meant to be run, in the order of names. Raises OSError."""
    found = [path for path in folder.iterdir() if path.name[0] not in "._" and not path.name.endswith(LEFT_OVER)]
    return sorted(path for path in found if path.name != "README" and not path.is_dir())[:MOST]


def check(path: Path) -> None:
    """Raise NotTrustedError where another user than root and ourselves may change what would be run at `path`.

    A link counts as what it leads to. In a folder with the sticky bit, /tmp, nobody renames what is another's.
    """
    try:
        _check_file(path.resolve(strict=True))
        for place in (path.absolute(), path.resolve()):
            for folder in place.parents:
                _check_owner(folder, may_be_sticky=True)
    except RuntimeError as error:
        raise NotTrustedError(f"{path} is a link that leads in a circle") from error
    except OSError as error:
        raise NotTrustedError(f"{error.filename}: {error.strerror}") from error


def _check_file(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotTrustedError(f"{path} is no file, and is not run")
    _check_owner(path, may_be_sticky=False)
    if not os.access(path, os.X_OK, effective_ids=True):
        raise NotTrustedError(f"{path} is not executable, and is not run: chmod +x {path}")


def _check_owner(path: Path, *, may_be_sticky: bool) -> None:
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise NotTrustedError(f"{path} is another user's, so that nothing there is run: chown root {path}")
    is_open = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_open and not (may_be_sticky and status.st_mode & stat.S_ISVTX):
        raise NotTrustedError(f"{path} can be written to by others, so that nothing there is run: chmod go-w {path}")
