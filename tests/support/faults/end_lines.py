"""What the list of ends must say, whatever happened to the daemon that wrote it."""

import json
from pathlib import Path
from typing import Any

FINAL = ("done", "failed", "cancelled")


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
