"""Whether the folders of a configuration lie apart, by real path and by device and inode."""

from itertools import combinations
from pathlib import Path

from demixd.config.sections import Paths


def check_apart(paths: Paths, parts: dict[str, Path], own: dict[str, Path]) -> None:
    """Raise ValueError where a folder lies in another: results would be taken for songs, or private files be on the share.

    `parts` are the folders of the spool and `own` the daemon's others, by their keys in `paths`.
    done and failed may be one folder; models and work may lie in state, by default they do. These three must be no file either,
    nor may any lie below one; the daemon waits for a file to go that is in place of another.
    """
    above = {part if getattr(paths, part) else "spool": folder.parent for part, folder in parts.items()}
    for part, folder in (own | above).items():
        there = next(each for each in (folder, *folder.parents) if _key(each) is not None)
        if not there.is_dir():
            value = getattr(paths, part) or folder
            raise ValueError(f"[paths] {part} ({value}): {there} is no folder: set {part} to one")
    on_the_share = (("spool", Path(paths.spool)), ("state", own["state"]))
    for (one, first), (other, second) in (*combinations((parts | own).items(), 2), on_the_share):
        if {one, other} <= own.keys() or ({one, other} == {"done", "failed"} and first == second):
            continue
        try:
            met = _lies_in(first, second) or _lies_in(second, first)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"[paths] {one} ({first}) or {other} ({second}) cannot be followed: {error}") from error
        if met:
            met_how = f"{one} ({first}) and {other} ({second}) lie in each other or are one folder"
            raise ValueError(f"[paths] {met_how}: set {one} or {other} to a folder of its own")


def _lies_in(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or below it, by real path and, for bind mounts, by device and inode."""
    real_inner, real_outer = inner.resolve(), outer.resolve()
    if real_inner.is_relative_to(real_outer):
        return True
    return (key := _key(real_outer)) is not None and key in map(_key, (real_inner, *real_inner.parents))


def _key(folder: Path) -> tuple[int, int] | None:
    """Device and inode; None where it is missing, or where this user (of `demixd submit`, say) may not stat it."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
