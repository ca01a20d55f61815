"""What `stemd check` looks at: configuration, folders, filesystem, lease, model. One finding a line, with its remedy."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stemd.config import Config
from stemd.errors import AudioProcessingError
from stemd.inbox.ready import survive_lease_breaks
from stemd.models import store
from stemd.spool import Spool

ROOM = 2 << 30
"""Bytes that a song of twenty minutes may need while it is separated."""


class Finding(msgspec.Struct, frozen=True):
    ok: bool
    subject: str
    text: str


def findings(config: Config) -> Iterator[Finding]:
    """Everything that was looked at, good or bad."""
    spool = Spool(config)
    for part in ("inbox", "outbox", "status", "done", "failed"):
        yield _folder(part, getattr(spool, part))
    yield _folder("state", config.state)
    yield _space(spool)
    yield _lease(spool.inbox)
    yield _model(config)


def _folder(part: str, path: Path) -> Finding:
    if not path.is_dir():
        parent = next(folder for folder in path.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding(True, part, f"{path} is not there yet; `stemd run` makes it")
        return Finding(
            False, part, f"{path} is not there and cannot be made in {parent}: make it, or change [paths] {part}"
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(False, part, f"{path} cannot be written by this user: change its owner or mode")
    return Finding(True, part, str(path))


def _space(spool: Spool) -> Finding:
    folder = next(each for each in (spool.outbox, *spool.outbox.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free at {folder}"
    return Finding(free >= ROOM, "space", text if free >= ROOM else f"{text}: songs may wait as no-space; make room")


def _lease(inbox: Path) -> Finding:
    """Take a read lease on a scratch file, as readiness does with songs."""
    if not inbox.is_dir():
        return Finding(True, "lease", "not tried, the inbox is not there yet")
    survive_lease_breaks()
    scratch = inbox / ".stemd-check"
    try:
        handle = os.open(scratch, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return Finding(False, "lease", f"{inbox} takes no files from this user: {error.strerror}")
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Finding(True, "lease", f"not to be had here ({error.strerror}); the settle time alone decides")
    finally:
        os.close(handle)
        scratch.unlink()
    return Finding(True, "lease", "works: a song is not started while it is open for writing")


def _model(config: Config) -> Finding:
    try:
        files = store.locate(
            config.model.name, repo=config.repo, models=config.models, allow_pickle=config.model.allow_pickle
        )
    except AudioProcessingError as error:
        return Finding(False, "model", error.message)
    return Finding(True, "model", f"{files.name} in {files.folder}")
