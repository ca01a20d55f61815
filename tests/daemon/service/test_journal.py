"""What the log says, and with which fields; tests/system/test_service.py sees them arrive in a real journal."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from watchdog.observers.api import EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter

from daemons import Daemon, make_song, running
from demixd import config
from demixd.errors import Code
from demixd.protocol.identity import Identity
from demixd.protocol.job import EngineFacts, Error, Job, Reason, State
from demixd.protocol.progress import Step
from demixd.supervisor import journal

ENGINE = EngineFacts(model="demo", model_sha256="0", device="cuda:0", device_name="x", precision="float16")

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
"""What a line begins with that is not in the journal."""


def a_job(state: State, **more: object) -> Job:
    identity = Identity(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5)
    fields: dict[str, Any] = {"reason": None, **more}
    options = config.Config().options
    return Job(
        job_id="a1", raw_name=b"sub/song.wav", identity=identity, options=options, max_attempts=3, state=state, **fields
    )


@pytest.mark.parametrize(
    ("job", "fields"),
    [
        (a_job(State.WAITING, reason=Reason.QUEUED), {"STATE": "waiting"}),
        (
            a_job(State.RUNNING, step=Step.SNAPSHOT),
            {"STATE": "running", "STEP": "snapshot", "DEVICE": "cpu", "MESSAGE_ID": journal.Kind.STARTED},
        ),
        (
            a_job(State.DONE, engine=ENGINE),
            {"STATE": "done", "DEVICE": "cuda:0", "MESSAGE_ID": journal.Kind.DONE},
        ),
        (
            a_job(State.FAILED, error=Error(code=Code.BAD_AUDIO, message="no audio")),
            {"STATE": "failed", "CODE": "bad-audio", "DEVICE": "cpu", "MESSAGE_ID": journal.Kind.FAILED},
        ),
        (
            a_job(State.CANCELLED),
            {"STATE": "cancelled", "DEVICE": "cpu", "MESSAGE_ID": journal.Kind.CANCELLED},
        ),
    ],
    ids=lambda each: each.state if isinstance(each, Job) else "",
)
def test_the_fields_of_a_job(job: Job, fields: dict[str, str]) -> None:
    """What is known, and nothing else; the device of a job that was separated is its own."""
    expected = {"JOB_ID": job.job_id, "SONG": job.shown, **fields}
    assert journal.about(job, device="cpu") == expected
    assert "MESSAGE_ID" not in journal.about(job, device="cpu", is_new=False)


def test_fields_collide_with_none_of_logging(caplog: pytest.LogCaptureFixture) -> None:
    """`extra` refuses names that a record has itself."""
    job = a_job(State.FAILED, step=None, error=Error(code=Code.BAD_AUDIO, message="no audio"))
    with caplog.at_level(logging.INFO):
        logging.getLogger("demixd.test").info("said", extra=journal.about(job, device="cpu"))
    assert caplog.records[-1].__dict__["CODE"] == "bad-audio"


def test_one_line_for_each_change_of_state(tmp_path: Path) -> None:
    """Without a journal: plain lines on standard error. Steps are for who looks closely."""
    for level in ("info", "debug"):
        folder = tmp_path / level
        folder.mkdir()
        with running(folder, fake=True, log={"level": level}) as daemon:
            make_song(daemon.inbox / "song.wav", 0.3)
            assert daemon.final("song.wav")["state"] == "done"
            daemon.quiet()
        told = [re.sub(TIME, "", line) for line in daemon.log.read_text().splitlines()]
        lines = [line for line in told if line.startswith("song.wav: ")]
        running_lines = [line for line in lines if "running" in line]
        assert lines[-1].startswith("song.wav: done (")
        assert sum(line.startswith("song.wav: done") for line in lines) == 1
        assert lines.count("song.wav: waiting (queued)") == 1
        assert running_lines[0] == "song.wav: running (snapshot)"
        assert (len(running_lines) > 1) is (level == "debug")


def test_a_stream_that_is_not_the_journal(tmp_path: Path) -> None:
    """$JOURNAL_STREAM is inherited by what redirects its standard error; then that is where the log goes."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start(JOURNAL_STREAM="8:1234").ready()
        daemon.until(lambda: "watching " in daemon.log.read_text(), "the log is where stderr goes")
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_an_end_says_where_and_how_long(tmp_path: Path) -> None:
    """The line of a song that is done has its seconds and its folder; that of one whose result was there says so."""
    with running(tmp_path, fake=True) as daemon:
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.final("song.wav")
        daemon.quiet()
        (daemon.inbox / "again.wav").write_bytes((daemon.spool / "done" / "song.wav").read_bytes())
        folder = daemon.outbox / "song"
        daemon.until(lambda: f"again.wav: done (made before), in {folder}\n" in daemon.log.read_text(), "its line")
        line = rf"{TIME}song\.wav: done \(\d+\.\d s\), in {re.escape(str(folder))}$"
        assert re.search(line, daemon.log.read_text(), re.MULTILINE)


def test_a_restart_with_many_waiting_is_one_line(tmp_path: Path) -> None:
    """The songs that were waiting are counted, not listed."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.hold.touch()
        daemon.start().ready()
        for number in range(20):
            make_song(daemon.inbox / f"{number}.wav", 0.1)
        daemon.until(lambda: len(daemon.read("_daemon.json")["queue"]) == 19, "one runs and nineteen wait")
        first = daemon.read("_daemon.json")["running"]["name"]
        daemon.until(lambda: daemon.song(first).get("step") == "separate", "it is being separated")
        daemon.end()
        daemon.log.unlink()
        daemon.hold.unlink()
        daemon.start().ready()
        daemon.quiet()
        found = [line for line in daemon.log.read_text().splitlines() if "wait again" in line or ": found " in line]
        assert len(found) == 2 and any(
            re.fullmatch(f"{TIME}19 songs were waiting, and wait again", line) for line in found
        )
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_stop_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """watchdog's thread may look at a watch once more after it was stopped, and says so as an error: it is none."""
    levels = {name: logging.getLogger(name).level for name in ("", "watchdog", "watchdog.observers.inotify")}
    journal.start("info")
    try:
        stopped = InotifyEmitter(EventQueue(), ObservedWatch("/", recursive=False), inotify_fd=cast(Any, object()))
        stopped.queue_events(0)
        assert caplog.records == []
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def test_warnings_are_in_the_log(tmp_path: Path) -> None:
    """They follow the line of the song's end, where whoever runs the daemon looks."""
    with running(tmp_path, fake=True) as daemon:
        (daemon.inbox / "song.wav.job.json").write_text('{"format": "flac", "bit_depth": 32}')
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.final("song.wav")
        said = " song.wav: flac cannot carry 32-bit samples; the stems have 24 bits.\n"
        daemon.until(lambda: said in daemon.log.read_text().partition("song.wav: done (")[2], "its line")


def test_a_line_has_its_time_where_the_journal_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UTC, to the second; where journald reads standard error, which has times of its own, the sentence stands alone."""
    record = logging.LogRecord("demixd", logging.INFO, "", 0, "It is said.", None, None)
    record.created = 1e9
    with (tmp_path / "log").open("w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert journal.handler().format(record) == "2001-09-09T01:46:40Z It is said."
        found = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setitem(sys.modules, "systemd.journal", None)
        assert journal.handler().format(record) == "It is said."
