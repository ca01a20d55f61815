"""Fetches a model from the hub into the models folder.

    MODELS/.fetch/lock                             held while a process fetches into MODELS
    MODELS/.fetch/955717e8.safetensors.HASH.part   the bytes so far of the file with that hash (its first 16 digits)

Rules. A file is recorded and renamed to its final name once its bytes have the hash that the hub states. The bag comes
last, so a model that can be located is complete. A part survives any interruption, and the next fetch continues it; a
part with a wrong hash is deleted. All files of a model come from one commit.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from demixd.engine.models import bag as bags
from demixd.engine.models import hub, records
from demixd.engine.models.catalog import PUBLISHED, hub_repo
from demixd.engine.models.store import DEMO, ModelFiles, command, locate
from demixd.errors import AudioProcessingError, Code, disk_code
from demixd.spool.files import open_own

FETCH = ".fetch"
LOCK = "lock"
LOCK_POLL_S = 0.2
MAIN = "main"
"""The hub's newest commit."""
RETRIES = 3
"""How often in a row a download may bring no new byte before the fetch fails."""
RETRY_PAUSE_S = 1.0


class FetchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a fetch is; `file` is empty while another process fetches into the same folder, and this one waits."""

    model: str
    file: str = ""
    bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.file:
            return f"Fetching {self.model}: waiting for another fetch into the folder"
        percent = 100 * self.bytes // self.total_bytes
        return f"Fetching {self.model}: {self.file}, {percent}% of {self.total_bytes / 1e6:.1f} MB"


Tell = Callable[[FetchProgress], None]
"""Called at every chunk, and five times a second while waiting. What it raises ends the fetch, which can be resumed."""


class _Session(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    models: Path
    endpoint: str
    tell: Tell


def fetch(name: str, models: Path, *, progress: Tell, endpoint: str | None = None) -> ModelFiles:
    """Fetch the files of the model `name` into the folder `models`, and replace those that differ from the hub's.

    Raises `AudioProcessingError`: BAD_OPTIONS (unknown), MODEL_MISSING (offline, no network, refused), BAD_MODEL (a wrong hash),
    NO_SPACE or IO_ERROR.
    """
    if name == DEMO:
        return locate(name, repo=None, models=models, allow_pickle=False)  # it is in the package
    if name not in PUBLISHED:
        sentence = f"Demucs publishes no model {name!r}: fetch one of {', '.join(PUBLISHED)}."
        raise AudioProcessingError(Code.BAD_OPTIONS, sentence)
    if hub.is_offline():
        sentence = (
            f"The model {name} is not fetched, since HF_HUB_OFFLINE keeps this process from the hub: run "
            f"`{command('fetch', name, models)}` where that is not set, or {_by_hand(name, models, hub.default_endpoint())}."
        )
        raise AudioProcessingError(Code.MODEL_MISSING, sentence)
    endpoint = (endpoint or hub.default_endpoint()).rstrip("/")
    session = _Session(model=name, models=models, endpoint=endpoint, tell=progress)
    try:
        (models / FETCH).mkdir(parents=True, exist_ok=True)
        with _lock(session):
            _fetch_model(session)
    except hub.HubError as error:
        sentence = (
            f"The model {name} could not be fetched from {endpoint}: {error.reason}; {error.remedy} and run "
            f"`{command('fetch', name, models)}`, or {_by_hand(name, models, endpoint)}."
        )
        raise AudioProcessingError(Code.MODEL_MISSING, sentence, repr(error.__cause__)) from error
    except OSError as error:
        code, by = disk_code(error), command("fetch", name, models)
        remedy = "make room there" if code is Code.NO_SPACE else f"let this user write there, or run `{by}`"
        sentence = f"The model {name} cannot be written to {models} ({error.strerror}): {remedy}."
        raise AudioProcessingError(code, sentence, repr(error)) from error
    return locate(name, repo=None, models=models, allow_pickle=False)


def _by_hand(name: str, models: Path, endpoint: str) -> str:
    """What to do where this machine has no network, as a part of a sentence: which files, where they come from, where they go."""
    *others, last = (f"{name}{bags.SUFFIX}", *(f"{sig}.safetensors" for sig in PUBLISHED[name].members))
    address = f"{endpoint.rstrip('/')}/{hub_repo(name)}/resolve/{PUBLISHED[name].commit or MAIN}"
    return f"get {', '.join(others)} and {last} on another machine, each at {address}/FILE, and put them into {models}"


@contextmanager
def _lock(session: _Session) -> Iterator[None]:
    """Let one process at a time fetch into a folder, whichever models: they share members."""
    # Neither does "a+" wait where it is a FIFO, nor does it change what it opens.
    with (session.models / FETCH / LOCK).open("ab+", buffering=0) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                session.tell(FetchProgress(model=session.model))
                time.sleep(LOCK_POLL_S)
        yield


def _fetch_model(session: _Session) -> None:
    repo, pinned = hub_repo(session.model), PUBLISHED[session.model]
    name = f"{session.model}{bags.SUFFIX}"
    bag = hub.ask(session.endpoint, repo, name, pinned.commit or MAIN, max_bytes=bags.MAX_BYTES)
    part = _download(session, bag)
    _check_pin(session, name, records.hash_file(part))
    for sig in dict.fromkeys(bags.read(part).sigs):
        member = f"{sig}.safetensors"
        remote = hub.ask(session.endpoint, repo, member, bag.commit, max_bytes=records.MAX_BYTES)
        _check_pin(session, member, remote.sha256)
        _fetch_member(session, remote, session.models / member)
    records.write_commit(session.models / name, bag.commit)
    part.replace(session.models / name)


def _check_pin(session: _Session, name: str, sha256: str) -> None:
    """Raise BAD_MODEL where the hub's file is not the one that the catalogue pins."""
    pinned = PUBLISHED[session.model].sha256.get(name, sha256)
    if pinned != sha256:
        sentence = (
            f"{session.endpoint} has {name} of the model {session.model} with the sha256 {sha256}, and demixd's catalogue pins "
            f"{pinned}: use another HF_ENDPOINT, or a demixd that pins the new one."
        )
        raise AudioProcessingError(Code.BAD_MODEL, sentence)


def _fetch_member(session: _Session, remote: hub.RemoteFile, final: Path) -> None:
    record = final.with_name(f"{final.name}{records.SUFFIX}")
    if final.is_file() and records.hash_file(final) == remote.sha256:
        records.write(record, final, remote.sha256)
        return
    part = _download(session, remote)
    final.unlink(missing_ok=True)  # a former file of this name must not lie beside the new record
    records.write(record, final, remote.sha256)
    part.replace(final)


def _download(session: _Session, remote: hub.RemoteFile) -> Path:
    """The complete part, whose hash is the one that the hub states."""
    folder = session.models / FETCH
    part = folder / f"{remote.name}.{remote.hash[:16]}.part"
    for old in set(folder.glob(f"{remote.name}.*.part")) - {part}:
        old.unlink()
    part.touch()
    failures = 0
    while (have := part.stat().st_size) < remote.size:
        if shutil.disk_usage(folder).free < remote.size - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        problem = _receive(session, remote, part, have)
        failures = 0 if part.stat().st_size > have else failures + 1
        if problem.final or failures > RETRIES:
            raise problem
        time.sleep(RETRY_PAUSE_S if failures else 0)
    if _hash(part, remote) != remote.hash:
        part.unlink()
        sentence = (
            f"{remote.name} came from {session.endpoint} with another hash than the {remote.hash} stated there, and "
            f"was deleted: run `demixd models fetch {session.model}` again, or use another HF_ENDPOINT."
        )
        raise AudioProcessingError(Code.BAD_MODEL, sentence)
    return part


def _receive(session: _Session, remote: hub.RemoteFile, part: Path, have: int) -> hub.HubError:
    """Add bytes to `part` until the connection ends; the error to raise if they are not enough."""
    with open_own(part, "r+b") as file:
        try:
            for position, chunk in hub.stream(remote, have):
                if position > remote.size:  # more than the hub stated
                    break
                if position == 0:
                    file.truncate(0)
                file.seek(position)
                file.write(chunk)
                done = position + len(chunk)
                session.tell(FetchProgress(model=session.model, file=remote.name, bytes=done, total_bytes=remote.size))
        except hub.HubError as error:
            return error
        finally:
            file.flush()
            os.fsync(file.fileno())
    return hub.HubError(f"{remote.name} ended before its {remote.size} bytes", "try later", final=False)


def _hash(part: Path, remote: hub.RemoteFile) -> str:
    """The hash of `part`, of the kind that the hub states: sha256, or git's sha1 of a blob for a small file."""
    if len(remote.hash) == len(hashlib.sha256().hexdigest()):
        return records.hash_file(part)
    data = part.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
