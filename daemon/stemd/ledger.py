"""The ledger: what the daemon has promised, in one SQLite file that survives a pulled plug.

A row a job: accepted, started, publishing, final, finished. The stage and the whole job go in together, so a row always
says enough to go on from. WAL with synchronous=FULL: a commit is on the disk when it returns.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from stemd.job import Job, Stage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (job_id TEXT PRIMARY KEY, name BLOB NOT NULL, stage TEXT NOT NULL, record BLOB NOT NULL,
                                 number INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_by_name ON jobs (name, number);
CREATE INDEX IF NOT EXISTS jobs_by_stage ON jobs (stage);
CREATE TABLE IF NOT EXISTS starts (number INTEGER PRIMARY KEY AUTOINCREMENT);
"""


class Ledger:
    """The jobs on disk. `starts` counts the daemon's starts, this one included."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self.starts = int(self._db.execute("INSERT INTO starts DEFAULT VALUES").lastrowid or 0)

    def close(self) -> None:
        self._db.close()

    def put(self, jobs: Iterable[Job]) -> None:
        """Write all of `jobs` or none."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.executemany(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, (SELECT coalesce(max(number), 0) + 1 FROM jobs))"
                " ON CONFLICT (job_id) DO UPDATE SET stage = excluded.stage, record = excluded.record",
                ((job.job_id, job.raw_name, job.stage.value, msgspec.json.encode(job)) for job in jobs),
            )

    def forget(self, job_id: str) -> None:
        """Drop a job that nobody was promised anything about."""
        self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def unfinished(self) -> list[Job]:
        """Every job that is not finished, oldest first."""
        rows = self._db.execute("SELECT record FROM jobs WHERE stage != ? ORDER BY number", (Stage.FINISHED.value,))
        return [msgspec.json.decode(record, type=Job) for (record,) in rows]

    def latest(self, raw_name: bytes) -> Job | None:
        """The newest job of a name."""
        row = self._db.execute(
            "SELECT record FROM jobs WHERE name = ? ORDER BY number DESC LIMIT 1", (raw_name,)
        ).fetchone()
        return msgspec.json.decode(row[0], type=Job) if row else None
