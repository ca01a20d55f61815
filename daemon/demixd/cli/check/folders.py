"""The checks of the folders: whether they are there, on which filesystems, and whether these do what the daemon needs."""

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from demixd.cli.check.finding import Finding, Level
from demixd.client.text import size
from demixd.config import Config
from demixd.spool.files import refuses_files, rename_new
from demixd.spool.leases import lease_fails, survive_lease_breaks
from demixd.spool.mounts import is_remote, mount_of
from demixd.spool.tree import PAUSE, Spool, closed_file

SONG_BYTES = 1 << 30
"""The free space that the copy and the stems of a song of twenty minutes may need."""

LEDGER_BYTES = 100 << 20
"""The free space that a ledger of 100,000 songs needs."""


def checks(spool: Path, parts: Mapping[str, Path], config: Config) -> list[tuple[str, Callable[[], Finding]]]:
    """The check of each part; of those below a spool that is not there, one for all of them."""
    below = [part for part, path in parts.items() if path.is_relative_to(spool)]
    if len(below) < 2 or is_hidden(spool) or spool.is_dir():
        below = []
    missing = [("spool", partial(_no_spool, spool, below))] if below else []
    return [*missing, *((part, partial(folder, part, parts[part], config)) for part in parts if part not in below)]


def _no_spool(path: Path, parts: Sequence[str]) -> Finding:
    there = f"mount it, or make it with `mkdir -p {quote(str(path))}`"
    return Finding(Level.FAIL, "spool", f"{path} is not there, and {', '.join(parts)} belong in it: {there}")


def folder(part: str, path: Path, config: Config) -> Finding:
    """Whether this user can read and write a part of the spool."""
    if not path.is_dir():
        return _no_folder(part, path) if path.exists() else _absent(part, path)
    kind = mount_of(path).kind
    remote = is_remote(kind)
    place = f"{path}, on {kind}{', which is remote' if remote else ''}"
    if not os.access(path, os.R_OK | os.X_OK):
        return Finding(Level.FAIL, part, f"{path} cannot be read by this user: change its owner or mode")
    if not os.access(path, os.W_OK):
        if part == "inbox":
            return Finding(Level.NOTE, part, f"{place}, cannot be written by this user: originals would stay in it")
        return Finding(Level.FAIL, part, f"{path} cannot be written by this user: change its owner or mode")
    if part == "inbox" and remote:
        settle = f"{config.inbox.settle_remote:g} s"
        return Finding(
            Level.NOTE, part, f"{place}: it is polled, and a song is taken once it has not changed for {settle}"
        )
    if part == "inbox" and path.parent == Path(config.paths.spool) and _is_closed_to_group(path):
        mend = f"`chmod g+w {quote(str(path))}`, and start the daemon with `umask 002`"
        return Finding(Level.NOTE, part, f"{place}: the group may write to {path.parent} and not to it: {mend}")
    return Finding(Level.OK, part, place)


def pause(config: Config, inbox: Path) -> Finding:
    """Whether songs are begun at present."""
    hours = config.schedule.hours
    if os.path.lexists(inbox / PAUSE):
        return Finding(
            Level.NOTE, "pause", f"{inbox / PAUSE} is there: nothing is begun before it is removed (`demixd resume`)"
        )
    if not hours:
        return Finding(Level.OK, "pause", "none: songs are begun at all hours")
    is_open = config.schedule.is_open(time.time())
    told = f"songs are begun {hours}, local time, which is {time.strftime('%H:%M')}: {'now' if is_open else 'not now'}"
    return Finding(Level.OK if is_open else Level.NOTE, "pause", f"by [schedule] hours {told}")


def _is_closed_to_group(inbox: Path) -> bool:
    """Whether the spool's group, which may write to the spool, may not drop songs: a umask of 022 has made the inbox so."""
    above, own = inbox.parent.stat(), inbox.stat()
    return bool(above.st_mode & stat.S_IWGRP) and not own.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _no_folder(part: str, path: Path) -> Finding:
    return Finding(Level.FAIL, part, f"{path} is no folder: put one in its place, or set [paths] {part} to one")


def _absent(part: str, path: Path) -> Finding:
    """The finding of a folder that is not there. The first `demixd run` makes it, but not its parent: that may be a share."""
    if path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK):
        return Finding(Level.NOTE, part, f"{path} is not there yet: mount it, or let the first `demixd run` make it")
    if path.parent.is_dir():
        return Finding(
            Level.FAIL,
            part,
            f"{path} is not there, and this user cannot make it in {path.parent}: make it, or mount it",
        )
    made = f"`mkdir -p -- {quote(str(path.parent))}`"
    return Finding(Level.FAIL, part, f"{path.parent} is not there: mount it, or make it with {made}")


def is_hidden(path: Path) -> bool:
    """Whether this user may not see what is there: the daemon's state folder is its own."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def state(path: Path) -> Finding:
    """Whether this user can use the state folder, and SQLite too."""
    if not path.is_dir():
        above = _nearest(path)
        if os.access(above, os.W_OK | os.X_OK):
            return Finding(Level.OK, "state", f"{path} is not there yet; `demixd run` makes it")
        return Finding(Level.FAIL, "state", f"{path} is not there and cannot be made in {above}: change [paths] state")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(Level.NOTE, "state", f"{path} is the daemon's own, and not visible to you")
    if (closed := closed_file(path)) is not None:
        return Finding(Level.FAIL, "state", f"{closed} cannot be written by this user: change its owner or mode")
    kind = mount_of(path).kind
    reason = "SQLite is not safe there" if is_remote(kind) else refuses_files(path)
    if reason is not None:
        return Finding(Level.FAIL, "state", f"{path} is on {kind}, and {reason}: put [paths] state on a disk")
    return Finding(Level.OK, "state", f"{path}, on {kind}")


def _nearest(path: Path) -> Path:
    """The folder if it is there, else the nearest parent that is."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def work(spool: Spool) -> Finding:
    """Whether results can be renamed from the private folder into the outbox; copies and samples may lie elsewhere."""
    outbox, private = _nearest(spool.outbox), _nearest(spool.private)
    if mount_of(outbox).id != mount_of(private).id:
        return Finding(
            Level.FAIL,
            "work",
            f"{private} is on another mount than {outbox}, so that no rename can publish: unmount it",
        )
    scratch = _nearest(spool.scratch)
    if spool.own_work and os.access(scratch, os.W_OK) and (reason := refuses_files(scratch)) is not None:
        return Finding(Level.FAIL, "work", f"{scratch} is of no use, {reason}: set [paths] work to a folder on a disk")
    return Finding(
        Level.OK, "work", f"{scratch}, on {mount_of(scratch).kind}; stems are written on the outbox's filesystem"
    )


def rename(outbox: Path) -> Finding:
    """Whether the outbox can publish: rename a folder to a name that is taken, then to one that is free."""
    if not outbox.is_dir():
        return Finding(Level.NOTE, "rename", "not tried: the outbox is not there")
    if not os.access(outbox, os.W_OK | os.X_OK):
        return Finding(Level.NOTE, "rename", "not tried: the outbox cannot be written by this user")
    taken, made = (outbox / f".demixd-check-{secrets.token_hex(4)}" for _ in range(2))
    try:
        taken.mkdir()
        made.mkdir()
        with contextlib.suppress(FileExistsError):
            rename_new(made, taken)
            return Finding(Level.FAIL, "rename", f"{outbox} lets a result replace another: use another filesystem")
        taken.rmdir()
        rename_new(made, taken)
    except OSError as error:
        return Finding(
            Level.FAIL, "rename", f"{outbox} does not rename folders ({error.strerror}): use another filesystem"
        )
    finally:
        for folder in (taken, made):
            with contextlib.suppress(OSError):
                folder.rmdir()
    return Finding(Level.OK, "rename", "a result appears by one rename and never replaces another")


def space(path: Path, least: int, otherwise: str) -> Finding:
    """Whether `least` bytes are free at `path`; `otherwise` says what happens if not."""
    folder = _nearest(path)
    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free at {folder}"
    if free >= least:
        return Finding(Level.OK, "space", text)
    return Finding(Level.FAIL, "space", f"{text}: {otherwise}; make room for {size(least)}")


def lease(inbox: Path) -> Finding:
    """Whether read leases tell if a file is being written: one is taken on a scratch file, with and without a writer."""
    alone = "the settle time alone decides when a song is complete"
    if not inbox.is_dir():
        return Finding(Level.NOTE, "lease", "not tried: the inbox is not there")
    if is_remote(kind := mount_of(inbox).kind):
        return Finding(Level.NOTE, "lease", f"not used on {kind}: {alone}; drop by rename, or with wait_for_sha256")
    if not os.access(inbox, os.W_OK | os.X_OK):
        return Finding(Level.NOTE, "lease", "not tried: the inbox cannot be written by this user")
    survive_lease_breaks()
    if reason := lease_fails(inbox):
        return Finding(Level.NOTE, "lease", f"{reason}; {alone}; CAP_LEASE or another filesystem would help")
    return Finding(Level.OK, "lease", "refused while a file is written, granted afterwards: no song is taken too early")
