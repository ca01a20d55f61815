"""What the list of ends must say, whatever happened to the daemon that wrote it."""

import json
from pathlib import Path
from typing import Any

import msgspec

from demixd import config
from demixd.protocol import status
from demixd.protocol.job import State
from demixd.spool.tree import DAEMON, Spool
from jobs import job

FINAL = ("done", "failed", "cancelled")

START = 3 << 32
"""The numbers of a daemon's third start."""


def line(number: int, name: str = "song.wav", state: State = State.DONE, **facts: Any) -> bytes:
    """A line of a daemon's third start, or of a later one where the number is large."""
    end = START + number
    over = job(name, state=state, reason=None, **facts)
    told = status.DaemonFacts(instance="i", version="v")
    sidecar = status.sidecar(over, seq=end, daemon=told, now="2026-12-01T00:00:00Z")
    return status.encode(status.End(**msgspec.structs.asdict(sidecar), end=end))


def beat(spool: Spool, number: int) -> None:
    """A heartbeat of that start, with this number."""
    worker = {"state": "ready", "pid": None, "message": "", "model": None, "device": None, "device_name": None}
    told = {"schema": 1, "seq": START + number, "interval_s": 5.0, "state": "ready", "pid": 1, "running": None}
    told |= {"worker": {**worker, "precision": None, "fallback": None, "memory_bytes": None}, "version": "v"}
    told |= {"queue": [], "watch": {"mode": "poll", "why": ""}, "counts": {}, "warnings": [], "updated_at": ""}
    told |= {"daemon": {"instance": "i", "version": "v"}}
    (spool.status / DAEMON).write_bytes(msgspec.json.encode(told))


def spool_in_its_third_start(folder: Path) -> Spool:
    """A spool of which nothing is there but the heartbeat of a daemon's third start."""
    found = Spool(config.parse(f'[paths]\nspool = "{folder}/spool"\nstate = "{folder}/state"\n', "demixd.toml"))
    found.status.mkdir(parents=True)
    beat(found, 1000)
    return found


def lines(status: Path) -> list[dict[str, Any]]:
    """The lines that can be read, in order; a power cut may have left half a one."""
    path = status / "_ends.jsonl"
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def wrong_ends(status: Path, *, is_whole: bool = True) -> list[str]:
    """What is wrong with the list: a number that falls, an end with two, or, where it `is_whole`, a final sidecar without one."""
    found = []
    told: dict[str, int] = {}
    for line in lines(status):
        number, job = line["end"], line["job_id"]
        if line["state"] not in FINAL:
            found.append(f"{job} is told as {line['state']}")
        if job not in told and number <= max(told.values(), default=0):
            found.append(f"number {number} comes after {max(told.values())}")
        if told.setdefault(job, number) != number:
            found.append(f"{job} has the numbers {told[job]} and {number}")
    for path in status.rglob("*.json") if is_whole else ():
        if not path.name.startswith("_"):
            sidecar = json.loads(path.read_bytes())
            if sidecar["state"] in FINAL and sidecar["job_id"] not in told:
                found.append(f"the end of {path.name} is not told: {sidecar['state']}")
    return found
