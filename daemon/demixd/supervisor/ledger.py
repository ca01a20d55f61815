"""The ledger: what the daemon has promised, in one SQLite file that survives a pulled plug.

A row a job: accepted, started, publishing, final, finished. The stage and the whole job go in together, so a row always
says enough to go on from. WAL with synchronous=FULL: a commit is on the disk when it returns.

    jobs    job_id, name (bytes), short (what its companions are called), stage, key (of its result), record (the Job)
    facts   what else must outlive the daemon, by name
    starts  a row a start

A newer version may have written rows that this one cannot read, before somebody went back. Such a row stays as it is, its job
is left alone with its song and its work, and `foreign` tells of it.
"""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from demixd.errors import StateError
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job, Stage, State
from demixd.spool.tree import closed_file, companion

log = logging.getLogger(__name__)

VERSION = 4
"""Goes up with every change of the tables or of `Job`, so that an older version knows that it may not be able to read them."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (job_id TEXT PRIMARY KEY, number INTEGER NOT NULL, name BLOB NOT NULL, short BLOB NOT NULL,
                                 stage TEXT NOT NULL, key TEXT, record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_by_number ON jobs (number);
CREATE INDEX IF NOT EXISTS jobs_by_short ON jobs (short, number);
CREATE INDEX IF NOT EXISTS jobs_unfinished ON jobs (number) WHERE stage != 'finished';
CREATE INDEX IF NOT EXISTS jobs_by_key ON jobs (key, number) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS starts (number INTEGER PRIMARY KEY AUTOINCREMENT);
"""


T = TypeVar("T")

_COLUMNS = ("job_id", "number", "name", "short", "stage", "key", "record")


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """A job that another version has written: the part of it that every version can read."""

    identity: Identity | None = None
    kept: Identity | None = None

    def answers(self, seen: Identity) -> bool:
        """Whether a song in the inbox is still that job's, and not a new drop of its name."""
        own = self.kept or self.identity
        return own is None or own.is_same_drop(seen)


class UnreadableError(Exception):
    """The file is no ledger of ours that can be read."""


class Ledger:
    """The jobs on disk. `starts` counts the daemon's starts, this one included.

    Where the disk is full or fails, a call is made again until it succeeds: `in_trouble` is called each time before, with
    the reason, and may wait a while, or end it by raising StateError.
    """

    def __init__(self, path: Path, in_trouble: Callable[[str], None]) -> None:
        """Raises OSError, StateError, and UnreadableError where the file is damaged or of another version."""
        self.path = path
        self._in_trouble = in_trouble
        self.foreign: dict[str, Foreign] = {}
        """The unfinished jobs that cannot be read, by id; their work is to be kept."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connect()
            self._file = path.stat()
            try:
                self._open()
            except sqlite3.DatabaseError:
                self._db.close()
                raise
        except sqlite3.OperationalError as error:  # of the disk, not of the file: it may be as good as ever
            if (closed := closed_file(path.parent)) is not None:
                raise StateError(f"{closed} cannot be written by this user: change its owner or mode") from error
            raise StateError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise UnreadableError(f"{path}: {error}") from error

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA cache_size=-512")  # KiB: the kernel has the file in its own cache
        except sqlite3.Error:
            self._db.close()
            raise

    def _open(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        columns = {name for _, name, *_ in self._db.execute("PRAGMA table_info(jobs)")}
        if tables and (version == 0 or not columns.issuperset(_COLUMNS)):
            raise sqlite3.DatabaseError(f"it is of version {version}, whose tables version {VERSION} cannot use")
        if version > VERSION:
            log.warning("%s was written by a newer demixd (version %d, here %d)", self.path, version, VERSION)
        if self._db.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("it is damaged")
        self._db.executescript(_SCHEMA + f"PRAGMA user_version={max(version, VERSION)};")
        self.starts = self._start()

    def _patiently(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is done whole or not at all, and again until the disk allows it."""
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                self._renew(str(error))

    def _renew(self, reason: str) -> None:
        """Wait, and connect anew: a lock that could not be given back would be in our own way for ever (SQLITE_PROTOCOL)."""
        while True:
            self._in_trouble(reason)
            if not self.is_there:
                continue  # to connect would make an empty one
            self._db.close()  # what was begun is rolled back
            try:
                self._connect()
            except sqlite3.OperationalError as error:
                reason = str(error)
            else:
                return

    def _start(self) -> int:
        return int(self._db.execute("INSERT INTO starts DEFAULT VALUES").lastrowid or 0)

    def count_on(self, starts: int) -> None:
        """Number this start higher than `starts`, which sidecars tell of."""
        if self.starts <= starts:
            self._patiently(lambda: self._db.execute("INSERT OR IGNORE INTO starts VALUES (?)", (starts,)))
            self.starts = self._patiently(self._start)

    @property
    def is_empty(self) -> bool:
        """Whether there has never been a job: the ledger is new, or its like was lost."""
        return self._patiently(lambda: self._db.execute("SELECT 1 FROM jobs LIMIT 1").fetchone()) is None

    @property
    def is_there(self) -> bool:
        """Whether the file that is open still has its name: if not, what is written into it is lost with the next start."""
        try:
            return os.path.samestat(self._file, self.path.stat())
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)

    def close(self) -> None:
        self._db.close()

    def put(self, jobs: Iterable[Job]) -> None:
        """Write all of `jobs` or none."""
        every = list(jobs)
        self._patiently(lambda: self._put(map(_row, every)))

    def _put(self, rows: Iterable[tuple[object, ...]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.executemany(
                f"INSERT INTO jobs ({', '.join(_COLUMNS)})"
                " VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM jobs), ?, ?, ?, ?, ?)"
                " ON CONFLICT (job_id) DO UPDATE SET stage = excluded.stage, key = excluded.key, record = excluded.record",
                rows,
            )

    def unfinished(self) -> list[Job]:
        """Every job that is not finished, oldest first, but those in `foreign`."""
        found = self._jobs(f"stage != '{Stage.FINISHED}' ORDER BY number")
        self.foreign = {job_id: job for job_id, job in found if isinstance(job, Foreign)}
        for job_id in self.foreign:
            log.error("The job %s was written by another version of demixd, and is left to it, with its song", job_id)
        return [job for _, job in found if isinstance(job, Job)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence about the jobs of another version, which stay for it; none where there are none."""
        count = len(self.foreign)
        told = f"{count} unfinished {'job' if count == 1 else 'jobs'} of a newer demixd cannot be read: install that again."
        return (told,) if count else ()

    def latest(self, name: str) -> Job | Foreign | None:
        """The newest job of a song (its path below the inbox); a long one may be given as its companions are called."""
        short = os.fsencode(companion(name, ""))
        return next((job for _, job in self._jobs("short = ? ORDER BY number DESC LIMIT 1", short)), None)

    def result(self, key: str) -> Job | None:
        """The newest job that was done by computing the result with this key."""
        found = self._jobs("key = ? ORDER BY number DESC LIMIT 1", key)
        return next((job for _, job in found if isinstance(job, Job)), None)

    def _jobs(self, where: str, *values: object) -> list[tuple[str, Job | Foreign]]:
        query = f"SELECT job_id, record FROM jobs WHERE {where}"
        rows = self._patiently(lambda: self._db.execute(query, values).fetchall())
        return [(job_id, _read(record)) for job_id, record in rows]

    def ended(self, after: int, count: int) -> list[tuple[int, Job | Foreign, bool]]:
        """So many finished jobs of those numbered above `after`, oldest first: each with its number, and whether no other of
        its name is newer. The newest of all is left out: it is never forgotten, since the next is numbered by it."""
        query = (
            "SELECT number, record, number = (SELECT max(number) FROM jobs AS other WHERE other.short = jobs.short) FROM jobs"
            " WHERE number > ? AND number < (SELECT max(number) FROM jobs) AND stage = ? ORDER BY number LIMIT ?"
        )
        values = (after, Stage.FINISHED.value, count)
        rows = self._patiently(lambda: self._db.execute(query, values).fetchall())
        return [(number, _read(record), bool(is_newest)) for number, record, is_newest in rows]

    def last(self, count: int) -> list[Job]:
        """So many of the last jobs that are finished, the last to end last: of ten times as many that were taken last."""
        found = self._jobs("stage = ? ORDER BY number DESC LIMIT ?", Stage.FINISHED.value, 10 * count)
        return sorted((job for _, job in found if isinstance(job, Job)), key=lambda job: job.state_since)[-count:]

    def forget(self, jobs: Iterable[Job]) -> None:
        """Remove the rows of these jobs, all or none."""
        ids = [(job.job_id,) for job in jobs]
        self._patiently(lambda: self._forget(ids))

    def _forget(self, ids: list[tuple[str]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.executemany("DELETE FROM jobs WHERE job_id = ?", ids)

    def fact(self, name: str, kind: type[T]) -> T | None:
        """A fact of that kind; None where there is none, or one that another version has written."""
        row = self._patiently(lambda: self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone())
        return _as(kind, row[0]) if row else None

    def note(self, name: str, fact: object) -> None:
        value = msgspec.json.encode(fact)
        self._patiently(lambda: self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value)))


def _read(record: bytes) -> Job | Foreign:
    return _as(Job, record) or _as(Foreign, record) or Foreign()


def _as(kind: type[T], record: bytes) -> T | None:
    try:
        return msgspec.json.decode(record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _row(job: Job) -> tuple[object, ...]:
    return (
        job.job_id,
        job.raw_name,
        os.fsencode(companion(job.name, "")),
        job.stage.value,
        job.result_key if job.state is State.DONE and job.duplicate_of is None else None,
        msgspec.json.encode(job),
    )
