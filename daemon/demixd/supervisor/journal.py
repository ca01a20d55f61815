"""Where the log goes: to systemd's journal with fields of its own (systemd.journal-fields(7)), else to stderr as plain lines.

The journal has the time of each line; anywhere else the line begins with it, UTC.

    journalctl -t demixd JOB_ID=...      everything about one job
    journalctl -t demixd CODE=bad-audio  every song that failed so
    journalctl MESSAGE_ID=...           one kind of entry, see `Kind`

Fields: JOB_ID, SONG (its path below the inbox), STATE, STEP, CODE (of the error), DEVICE; an entry has those that are known.
"""

import logging
import os
import sys
import time
from contextlib import suppress
from enum import StrEnum
from importlib import import_module

from demixd.protocol.job import Job, State
from demixd.protocol.terminal import safe

IDENTIFIER = "demixd"


class Kind(StrEnum):
    """MESSAGE_ID of the entries that somebody may want to find, or to act on. These values never change."""

    STARTED = "5b0ad2f0d7f94f5c8d1b3fca0f7d3e61"
    DONE = "0c9d2a5ee2ab4b0fa1ac9d3b6e7f4a18"
    FAILED = "e2f3a7c15d8b4d4c9e06b7a1c84d9f35"
    CANCELLED = "a81e64bd30cf4f6b92d57e0c1f3ab972"
    WORKER_DIED = "7d46f19e8ba24c03b5f2e81d6a9c0754"


_KINDS = {
    State.RUNNING: Kind.STARTED,
    State.DONE: Kind.DONE,
    State.FAILED: Kind.FAILED,
    State.CANCELLED: Kind.CANCELLED,
}


class OneLine(logging.Formatter):
    """A sentence a line, whatever the names in it hold; the traceback of a bug below it.

    A name that begins with `<0>` would make an emergency of its line where journald reads standard error (sd-daemon(3)).
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        text = safe(super().formatMessage(record))
        return f" {text}" if text.startswith("<") else text


def start(level: str) -> None:
    """Log from now on, from `level` (`info`, ...) upwards."""
    logging.basicConfig(handlers=[handler()])
    # watchdog logs every inotify event at debug level, which hides everything else.
    logging.getLogger("watchdog").setLevel(logging.WARNING)
    # This part of it takes a watch that was stopped for an error; one that misses something, our own probe finds out.
    logging.getLogger("watchdog.observers.inotify").setLevel(logging.CRITICAL)
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())


def handler() -> logging.Handler:
    """The journal's handler, where stderr is connected to it and systemd-python is there; else that of stderr."""
    is_journal = _is_journal()
    found: logging.Handler = logging.StreamHandler(sys.stderr)
    if is_journal:
        with suppress(ImportError):
            found = import_module("systemd.journal").JournalHandler(SYSLOG_IDENTIFIER=IDENTIFIER)
    lines = OneLine(None if is_journal else "%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    lines.converter = time.gmtime
    found.setFormatter(lines)
    return found


def _is_journal() -> bool:
    """Whether stderr is connected to the journal ($JOURNAL_STREAM, systemd.exec(5))."""
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def about(job: Job, *, device: str | None = None, is_new: bool = True) -> dict[str, str]:
    """The fields of an entry about a job as it is now, as `extra` of a log call.

    `device` is where songs are separated at present. `is_new`: whether it has just come into its state.
    """
    where = job.engine.device if job.engine else device
    fields = {
        "MESSAGE_ID": _KINDS.get(job.state) if is_new else None,
        "JOB_ID": job.job_id,
        "SONG": job.shown,
        "STATE": job.state,
        "STEP": job.step,
        "CODE": job.error.code if job.error else None,
        "DEVICE": where if job.state is not State.WAITING else None,
    }
    return {name: str(value) for name, value in fields.items() if value is not None}


def about_worker(device: str | None) -> dict[str, str]:
    """The fields of an entry about a worker that has died; its songs have entries of their own."""
    return {"MESSAGE_ID": Kind.WORKER_DIED.value, **({"DEVICE": device} if device else {})}
