"""What becomes of a job that cannot go on: each row of the table in `outcomes`."""

import errno
import os

import msgspec
import pytest

from demixd.errors import RETRYABLE, Code
from demixd.protocol.job import Error, Reason, Stage, State
from demixd.supervisor.runs import outcomes
from demixd.supervisor.runs.outcomes import LONGER, RETRY_S, Circumstances, Ends, Waits
from demixd.supervisor.runs.snapshot import Outcome
from jobs import running

ALONE = Circumstances(now=1000.0, wall=0.0, grace_s=600.0, beside_others=False)
BESIDE = msgspec.structs.replace(ALONE, beside_others=True)

STARTED = running(stage=Stage.STARTED, attempt=1)
"""In its first attempt, which is written down."""

FAULTS = [code for code in Code if code not in (*outcomes.WAITS, Code.IO_ERROR)]
"""Codes that time does not heal."""


def error(code: Code) -> Error:
    return Error(code=code, message="What is wrong.", retryable=code in RETRYABLE)


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/a/file")


REMEDY = " If the song is damaged for good, convert it, and drop what comes of that."


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault(code: Code) -> None:
    """The song, its options, the model or we are at fault: it ends `failed`, with the error as it was said."""
    assert outcomes.after_error(STARTED, error(code), BESIDE) == Ends(state=State.FAILED, error=error(code))


def test_truncated_within_its_grace() -> None:
    """It waits for the rest of its file, which belongs to it, and settles anew; the attempt is not counted."""
    outcome = outcomes.after_error(STARTED, error(Code.TRUNCATED), ALONE)
    assert outcome == Waits(
        reason=Reason.TRUNCATED,
        message=f"What is wrong. The rest is waited for until 1970-01-01 00:10:00 UTC.{REMEDY}",
        settles_anew=True,
        truncated_since=ALONE.now,
    )


@pytest.mark.parametrize("missed_s", [0.0, 599.0])
def test_truncated_again(missed_s: float) -> None:
    """The grace counts from when a part was missed first."""
    job = msgspec.structs.replace(STARTED, truncated_since=ALONE.now - missed_s)
    outcome = outcomes.after_error(job, error(Code.TRUNCATED), ALONE)
    assert isinstance(outcome, Waits)
    assert outcome.truncated_since == ALONE.now - missed_s
    assert outcome.message.endswith({0.0: " 00:10:00 UTC.", 599.0: " 00:00:01 UTC."}[missed_s] + REMEDY)


def test_a_hash_tells_what_is_missing() -> None:
    """A song whose hash is known is not damaged for good, whatever its file lacks yet: nobody is told to convert it."""
    job = msgspec.structs.replace(STARTED, wait_for_sha256="0" * 64)
    outcome = outcomes.after_error(job, error(Code.TRUNCATED), ALONE)
    assert isinstance(outcome, Waits) and outcome.message.endswith(" UTC.")


def test_truncated_for_ever() -> None:
    """A grace beyond all calendars is told as their end."""
    outcome = outcomes.after_error(STARTED, error(Code.TRUNCATED), msgspec.structs.replace(ALONE, grace_s=1e15))
    assert isinstance(outcome, Waits)
    assert outcome.message.endswith(f" until 9999-12-31 00:00:00 UTC.{REMEDY}")


def test_truncated_after_its_grace() -> None:
    """It ends; and of a hole nothing more is waited for, so that the song runs."""
    job = msgspec.structs.replace(STARTED, truncated_since=ALONE.now - 600.0)
    outcome = outcomes.after_error(job, error(Code.TRUNCATED), ALONE)
    assert outcome == Ends(state=State.FAILED, error=error(Code.TRUNCATED))
    assert outcomes.after_missing_part(job, "a hole", ALONE) is None


def test_no_space() -> None:
    """It waits a while, and its attempt is not counted."""
    outcome = outcomes.after_error(STARTED, error(Code.NO_SPACE), ALONE)
    assert outcome == Waits(reason=Reason.NO_SPACE, message="What is wrong.", pause_s=RETRY_S)


def test_no_space_beside_others() -> None:
    """With the disk to itself it may fit: at once, and alone."""
    outcome = outcomes.after_error(STARTED, error(Code.NO_SPACE), BESIDE)
    assert outcome == Waits(reason=Reason.NO_SPACE, message="What is wrong.", runs_alone=True)
    alone = msgspec.structs.replace(STARTED, runs_alone=True)
    outcome = outcomes.after_error(alone, error(Code.NO_SPACE), BESIDE)
    assert outcome == Waits(reason=Reason.NO_SPACE, message="What is wrong.", pause_s=RETRY_S), "not again and again"


@pytest.mark.parametrize(
    ("code", "reason", "pause_s"),
    [
        (Code.NO_SPACE, Reason.NO_SPACE, RETRY_S),
        (Code.IO_ERROR, Reason.RETRY, RETRY_S),
        (Code.TOO_LARGE, Reason.NO_SPACE, RETRY_S * LONGER),
    ],
)
def test_a_machine_that_failed(code: Code, reason: Reason, pause_s: float) -> None:
    """It waits for nothing, however often; that others ran beside it was at no fault."""
    outcome = outcomes.after_error(STARTED, error(code), BESIDE, is_machines=True)
    assert outcome == Waits(reason=reason, message="What is wrong. Trying again.", pause_s=pause_s)


def test_the_outbox_is_away() -> None:
    """It waits for it, and its attempt is not counted."""
    outcome = outcomes.after_error(STARTED, error(Code.OUTBOX_MISSING), BESIDE)
    assert outcome == Waits(reason=Reason.OUTBOX_MISSING, message="What is wrong.", pause_s=RETRY_S)
    assert (outcomes.WITHOUT_OUTBOX.reason, outcomes.WITHOUT_OUTBOX.is_counted) == (Reason.OUTBOX_MISSING, False)


@pytest.mark.parametrize(("attempt", "pause_s"), [(1, RETRY_S), (2, RETRY_S * LONGER)])
def test_an_input_or_output_error(attempt: int, pause_s: float) -> None:
    """It is tried again, after a longer time each time; the attempt is counted."""
    job = msgspec.structs.replace(STARTED, attempt=attempt)
    outcome = outcomes.after_error(job, error(Code.IO_ERROR), ALONE)
    message = "What is wrong. Trying again."
    assert outcome == Waits(reason=Reason.RETRY, message=message, is_counted=True, pause_s=pause_s)


def test_an_input_or_output_error_in_the_last_attempt() -> None:
    """It ends with that error."""
    job = msgspec.structs.replace(STARTED, attempt=3)
    outcome = outcomes.after_error(job, error(Code.IO_ERROR), ALONE)
    assert outcome == Ends(state=State.FAILED, error=error(Code.IO_ERROR))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_read(number: int) -> None:
    """It waits until it may be, and settles anew; the attempt is not counted."""
    outcome = outcomes.after_obstacle(STARTED, of_system(number), ALONE)
    message = f"/a/file: {os.strerror(number)}."
    assert outcome == Waits(reason=Reason.PERMISSION, message=message, settles_anew=True, pause_s=RETRY_S)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        *((number, Reason.NO_SPACE) for number in (errno.ENOSPC, errno.EDQUOT)),
        *((number, Reason.OUTBOX_MISSING) for number in outcomes.AWAY),
        *((number, Reason.RETRY) for number in (errno.EIO, errno.EMFILE, errno.ELOOP)),
    ],
)
def test_an_error_of_the_system(number: int, reason: Reason) -> None:
    """A full disk, a share that is away, and anything else are told apart."""
    outcome = outcomes.after_obstacle(STARTED, of_system(number), ALONE)
    assert isinstance(outcome, Waits)
    assert (outcome.reason, outcome.is_counted) == (reason, reason is Reason.RETRY)


def test_a_full_disk_is_named() -> None:
    """By the path that the system names, but not by the mere name of a file in an open folder."""
    for path, told in (("/a/file", "the disk of /a/file"), ("file", "the outbox's disk")):
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        assert f" for the work on {told}: No space left" in outcomes.described(error).message


def test_the_worker_died_with_this_song_alone() -> None:
    """It may be the song's fault: the attempt is counted, and the song runs alone next."""
    outcome = outcomes.after_death(STARTED, "killed by signal 11", is_suspect=True)
    message = "The worker died (killed by signal 11); trying again."
    assert outcome == Waits(reason=Reason.RETRY, message=message, is_counted=True, runs_alone=True)


def test_the_worker_died_with_other_songs_too() -> None:
    """Nobody knows whose fault it was: not counted, also in what would be the last attempt; it runs alone next."""
    job = msgspec.structs.replace(STARTED, attempt=3)
    outcome = outcomes.after_death(job, "it stalled", is_suspect=False)
    message = "The worker died (it stalled); trying again."
    assert outcome == Waits(reason=Reason.RETRY, message=message, runs_alone=True)


def test_the_worker_died_too_often() -> None:
    """After the last attempt the song is given up."""
    job = msgspec.structs.replace(STARTED, attempt=3)
    outcome = outcomes.after_death(job, "it stalled", is_suspect=True)
    assert isinstance(outcome, Ends)
    assert outcome.error is not None
    assert (outcome.state, outcome.error.code, outcome.error.detail) == (State.FAILED, Code.GAVE_UP, "it stalled")


def test_the_worker_was_ended_for_another_song() -> None:
    """It is tried again as it was."""
    outcome = outcomes.after_kill("it did not stop")
    assert outcome == Waits(reason=Reason.RETRY, message="The worker was ended, since it did not stop; trying again.")


def test_the_daemon_died() -> None:
    """It is tried again, until the attempts that count have been used up."""
    outcome = outcomes.after_crash(msgspec.structs.replace(STARTED, attempt=2))
    assert isinstance(outcome, Waits)
    assert outcome.reason is Reason.RETRY
    over = outcomes.after_crash(msgspec.structs.replace(STARTED, attempt=3))
    assert isinstance(over, Ends)
    assert over.error is not None
    assert (over.state, over.error.code) == (State.FAILED, Code.GAVE_UP)


@pytest.mark.parametrize("stage", list(Stage))
def test_attempts(stage: Stage) -> None:
    """The present attempt counts also where it has not been written down yet."""
    job = running(stage=stage, attempt=1)
    assert outcomes.attempts_of(job) == (1 if stage in (Stage.STARTED, Stage.PUBLISHING) else 2)


def test_what_a_wait_changes() -> None:
    """What the run has found out is lost; an attempt that does not count is taken back."""
    job = msgspec.structs.replace(STARTED, warnings=("w",), timing={"decode_s": 1.0}, settled=True, runs_alone=True)
    plain = outcomes.changes(job, Waits(reason=Reason.RETRY))
    assert (plain["attempt"], plain["warnings"], plain["timing"], plain["output"]) == (0, (), {}, None)
    assert plain["runs_alone"] is True  # once told, always
    assert "ready_at" not in plain  # its place in the queue is its own
    assert outcomes.changes(job, Waits(reason=Reason.RETRY, is_counted=True))["attempt"] == 1
    assert outcomes.changes(job, Waits(reason=Reason.CHANGING, settles_anew=True))["ready_at"] == 0.0
    cut = outcomes.changes(job, Waits(reason=Reason.TRUNCATED, settles_anew=True, truncated_since=5.0))
    assert (cut["settled"], cut["truncated_since"]) == (False, 5.0)


@pytest.mark.parametrize("stage", [Stage.ACCEPTED, Stage.STARTED])
def test_attempts_never_fall_below_none(stage: Stage) -> None:
    """A job that had not begun loses nothing."""
    job = running(stage=stage, attempt=0)
    assert outcomes.changes(job, Waits(reason=Reason.RETRY))["attempt"] == 0


HASHED = msgspec.structs.replace(STARTED, sha256="a" * 64)


def test_a_whole_snapshot() -> None:
    """The job goes on, and its song has settled: growth is a new drop from here on."""
    job = msgspec.structs.replace(HASHED, settled=False)
    assert outcomes.after_snapshot(job, has_hole=False, at=ALONE) == msgspec.structs.replace(job, settled=True)


@pytest.mark.parametrize("has_hole", [False, True])
def test_a_snapshot_with_another_hash(has_hole: bool) -> None:
    """The song is not complete yet: it waits within its grace, and fails after it."""
    job = msgspec.structs.replace(HASHED, wait_for_sha256="b" * 64)
    waits = outcomes.after_snapshot(job, has_hole=has_hole, at=ALONE)
    assert isinstance(waits, Waits)
    assert (waits.reason, waits.truncated_since) == (Reason.TRUNCATED, ALONE.now)
    late = msgspec.structs.replace(job, truncated_since=ALONE.now - 600.0)
    ends = outcomes.after_snapshot(late, has_hole=has_hole, at=ALONE)
    assert isinstance(ends, Ends)
    assert ends.error is not None
    assert (ends.error.code, "b" * 64 in ends.error.message) == (Code.TRUNCATED, True)


def test_a_snapshot_with_a_hole() -> None:
    """It waits within its grace; after it the song runs, and says so in a warning."""
    waits = outcomes.after_snapshot(HASHED, has_hole=True, at=ALONE)
    assert isinstance(waits, Waits)
    assert (waits.reason, waits.settles_anew, waits.is_counted) == (Reason.TRUNCATED, True, False)
    late = msgspec.structs.replace(HASHED, truncated_since=ALONE.now - 600.0, warnings=("before",))
    goes_on = outcomes.after_snapshot(late, has_hole=True, at=ALONE)
    assert goes_on == msgspec.structs.replace(late, settled=True, warnings=("before", outcomes.HAS_HOLES))


def test_no_snapshot() -> None:
    """A song that is written to, or has changed, has to settle anew; the attempt is not counted."""
    busy = outcomes.without_snapshot(Outcome.BUSY)
    assert (busy.reason, busy.settles_anew, busy.is_counted) == (Reason.OPEN_FOR_WRITING, True, False)
    changed = outcomes.without_snapshot(Outcome.CHANGED)
    assert (changed.reason, changed.settles_anew, changed.is_counted) == (Reason.CHANGING, True, False)
