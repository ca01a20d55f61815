"""The ledger and other versions of demixd: older ledgers are read, and what a newer one has written is left alone."""

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.errors import StateError
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job, Stage
from demixd.supervisor.ledger import _SCHEMA, VERSION, Foreign, Ledger, UnreadableError
from jobs import identity, job

SCHEMAS = {4: "38504cc01c476208"}
"""Version -> digest of the ledger's tables and of `Job`."""


def bare(schema: Any) -> Any:
    """A JSON Schema without its sentences."""
    if isinstance(schema, dict):
        return {key: bare(value) for key, value in schema.items() if key not in ("description", "title")}
    return [bare(each) for each in schema] if isinstance(schema, list) else schema


def test_the_version_goes_up_with_the_schema() -> None:
    """Whoever changes the tables or `Job` counts VERSION up, and notes here the digest that this assertion shows."""
    text = json.dumps([_SCHEMA, bare(msgspec.json.schema(Job))], sort_keys=True)
    assert {VERSION: hashlib.sha256(text.encode()).hexdigest()[:16]} == SCHEMAS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path, pytest.fail)
    yield ledger
    ledger.close()


def change(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as other:
        other.execute(sql, values)
    other.close()


def rewrite(path: Path, record: bytes) -> None:
    """What another version has written of the only job."""
    change(path, "UPDATE jobs SET record = ?", record)


NEWER = [("options", {"future": True}), ("reason", "full-moon"), ("stage", "blessed"), ("state", "asleep")]


@pytest.mark.parametrize(("key", "value"), NEWER)
def test_a_row_of_a_newer_version(path: Path, ledger: Ledger, key: str, value: Any) -> None:
    """It is told, it answers for its song alone, and it stays as it is, byte for byte."""
    ledger.put([job(stage=Stage.STARTED, result_key="k")])
    row = json.loads(msgspec.json.encode(job()))
    record = json.dumps(row | {key: (row[key] | value) if isinstance(value, dict) else value}).encode()
    rewrite(path, record)
    other = Foreign(identity=identity())
    assert ledger.unfinished() == []
    assert ledger.foreign == {job().job_id: other}
    assert ledger.latest("song.wav") == other
    assert ledger.latest("another.wav") is None
    assert other.answers(identity(ctime_ns=99)) and not other.answers(identity(size=99))
    assert ledger.result("k") is None
    with sqlite3.connect(path) as there:
        assert there.execute("SELECT record FROM jobs").fetchall() == [(record,)]
    there.close()


def test_a_row_of_which_nothing_can_be_read(path: Path, ledger: Ledger) -> None:
    """It answers for whatever has its name."""
    ledger.put([job(stage=Stage.STARTED)])
    rewrite(path, b"\xff{")
    ledger.unfinished()
    assert ledger.foreign == {job().job_id: Foreign()}
    assert Foreign().answers(identity())


def test_an_older_and_a_newer_ledger(path: Path) -> None:
    """Rows of an older one are read, and its version goes up; that of a newer one stays, and its new columns do no harm."""
    for version in (1, VERSION, VERSION + 5):
        ledger = Ledger(path, pytest.fail)
        ledger.put([job()])
        ledger.close()
        change(path, f"PRAGMA user_version = {version}")
        if version > VERSION:
            change(path, "ALTER TABLE jobs ADD COLUMN mood TEXT")
        again = Ledger(path, pytest.fail)
        again.put([job("two.wav", job_id="2" * 32)])
        assert [each.name for each in again.unfinished()] == ["song.wav", "two.wav"]
        again.close()
        with sqlite3.connect(path) as there:
            assert there.execute("PRAGMA user_version").fetchone() == (max(version, VERSION),)
        there.close()


def test_tables_that_cannot_be_used(path: Path) -> None:
    """A ledger whose tables lack a column of ours is no ledger that can be read."""
    Ledger(path, pytest.fail).close()
    change(path, "ALTER TABLE jobs RENAME COLUMN record TO document")
    with pytest.raises(UnreadableError, match="tables"):
        Ledger(path, pytest.fail)


def test_a_fact_of_another_version(ledger: Ledger) -> None:
    """It is as if there were none."""
    ledger.note("place", Foreign())
    assert ledger.fact("place", Foreign) == Foreign()
    assert ledger.fact("place", Identity) is None
    assert ledger.fact("nothing", Identity) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_ledger_that_another_user_has_made() -> None:
    """SQLite calls it readonly, or fails to open it: the error names the file, and what helps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        Ledger(path, print).close()
        for mode in (0o644, 0o600):
            path.chmod(mode)
            os.chown(folder, 12345, -1)
            os.seteuid(12345)
            try:
                with pytest.raises(StateError) as error:
                    Ledger(path, print)
            finally:
                os.seteuid(0)
            assert str(error.value) == f"{path} cannot be written by this user: change its owner or mode"
