"""Jobs and files as pure tests need them: no disk, no clock."""

from typing import Any

from demixd.config import Config
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job, Reason, State, Step


def identity(**facts: int) -> Identity:
    """A file of the inbox."""
    return Identity(**{"device": 1, "inode": 2, "size": 3, "mtime_ns": 4, "ctime_ns": 5, **facts})


def job(name: str = "song.wav", **facts: Any) -> Job:
    """A job that waits for its turn."""
    usual: dict[str, Any] = {
        "job_id": "1" * 32,
        "raw_name": name.encode(),
        "identity": identity(),
        "options": Config().options,
        "max_attempts": 3,
        "reason": Reason.QUEUED,
        "ready_at": 1.0,
    }
    return Job(**{**usual, **facts})


def running(name: str = "song.wav", **facts: Any) -> Job:
    """A job that is being separated."""
    return job(name, **{"state": State.RUNNING, "reason": None, "step": Step.SEPARATE, **facts})
