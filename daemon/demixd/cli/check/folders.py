"""`demixd check`: are the folders there, on which filesystems, and do those do what is needed of them?"""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from demixd.cli.check.finding import Finding, Level
from demixd.config import Config
from demixd.spool.files import rename_new
from demixd.spool.leases import lease_fails, survive_lease_breaks
from demixd.spool.mounts import is_remote, mount_of
from demixd.spool.tree import Spool

ROOM = 2 << 30
"""Bytes that a song of twenty minutes may need while it is separated."""

LEDGER_ROOM = 100 << 20
"""Bytes; 100,000 songs fit."""


def folder(part: str, path: Path, config: Config) -> Finding:
    if not path.is_dir():
        return _absent(part, path)
    kind = mount_of(path).kind
    remote = is_remote(kind)
    told = f"{path}, on {kind}{', which is remote' if remote else ''}"
    if not os.access(path, os.R_OK | os.X_OK):
        return Finding(Level.FAIL, part, f"{path} cannot be read by this user: change its owner or mode")
    if not os.access(path, os.W_OK):
        if part == "inbox":
            return Finding(Level.NOTE, part, f"{told}, cannot be written by this user: originals would stay in it")
        return Finding(Level.FAIL, part, f"{path} cannot be written by this user: change its owner or mode")
    if part == "inbox" and remote:
        settle = f"{config.inbox.settle_remote:g} s"
        return Finding(Level.NOTE, part, f"{told}: it is polled, and a song must have looked the same for {settle}")
    return Finding(Level.OK, part, told)


def _absent(part: str, path: Path) -> Finding:
    """`demixd run` makes a folder in its first days only, and never what it lies in: that may be a share."""
    if path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK):
        return Finding(Level.NOTE, part, f"{path} is not there yet: the first `demixd run` makes it; else mount it")
    if path.parent.is_dir():
        return Finding(
            Level.FAIL,
            part,
            f"{path} is not there, and this user cannot make it in {path.parent}: make it, or mount it",
        )
    return Finding(Level.FAIL, part, f"{path.parent} is not there: mount it, or make it with `mkdir -p {path.parent}`")


def state(path: Path) -> Finding:
    if not path.is_dir():
        above = _nearest(path)
        if os.access(above, os.W_OK | os.X_OK):
            return Finding(Level.OK, "state", f"{path} is not there yet; `demixd run` makes it")
        return Finding(Level.FAIL, "state", f"{path} is not there and cannot be made in {above}: change [paths] state")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(Level.FAIL, "state", f"{path} cannot be used by this user: run check as the daemon's user")
    kind = mount_of(path).kind
    if is_remote(kind):
        return Finding(
            Level.FAIL, "state", f"{path} is on {kind}, where SQLite is not safe: put [paths] state on a disk"
        )
    return Finding(Level.OK, "state", f"{path}, on {kind}")


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def work(spool: Spool) -> Finding:
    """Results are renamed out of the outbox's own private folder; only songs and spools lie elsewhere."""
    outbox, private = _nearest(spool.outbox), _nearest(spool.private)
    if mount_of(outbox).id != mount_of(private).id:
        return Finding(
            Level.FAIL, "work", f"{private} is another mount than {outbox}: a rename cannot publish; unmount it"
        )
    scratch = _nearest(spool.scratch)
    if mount_of(outbox).id == mount_of(scratch).id:
        return Finding(Level.OK, "work", "on the outbox's filesystem")
    return Finding(Level.OK, "work", f"{scratch} is on {mount_of(scratch).kind}, apart from the outbox: stems are not")


def rename(outbox: Path) -> Finding:
    """Rename a folder to a name that is taken, then to one that is free, as results are published."""
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
    folder = _nearest(path)
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free at {folder}"
    if free >= least:
        return Finding(Level.OK, "space", text)
    return Finding(Level.FAIL, "space", f"{text}: {otherwise}; make room for {least / 1e9:.1f} GB")


def lease(inbox: Path) -> Finding:
    """Take a read lease on a scratch file, with and without a writer, as readiness does with songs."""
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
