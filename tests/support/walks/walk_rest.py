"""When all is quiet in a random walk: every drop, every job and every file is accounted for."""

import base64
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemons import PATIENCE_S, Daemon
from demixd.spool.tree import CANCEL, LEASE, OPTIONS
from walk_model import Drop, answer_violations, places
from watching import lying_about, sha256

if TYPE_CHECKING:
    from walk import Walk

BEATS = 5
"""So many heartbeats, each with a look or after one, must pass without anything to do."""


def rest(walk: "Walk") -> list[str]:
    """Wait until all is quiet; what is wrong then."""
    if unrest := walk.unrest():
        return [f"not quiet in {PATIENCE_S} s: {each}" for each in unrest]
    if walk.eyes.wrong:
        return []
    with walk.eyes.lock:
        walk.eyes.wrong += of_results(walk)
    wrong = [f"{drop.name!r} of {drop.kind}: {each}" for drop in walk.model.current.values() for each in of(walk, drop)]
    wrong += left_behind(walk.daemon) + walk.leaked()
    walk.model.rest()
    return wrong


def wait_until_quiet(walk: "Walk") -> list[str]:
    """[] once it is quiet; else what still was to be done at the end."""
    limit, beats = time.monotonic() + PATIENCE_S, set[int]()
    while time.monotonic() < limit:
        if not walk.is_up:
            return ["the daemon has ended"]
        told = walk.daemon.read("_daemon.json")
        unrest = what_is_to_do(walk, told)
        beats = set() if unrest else {*beats, told["seq"]}
        if len(beats) > BEATS or walk.eyes.wrong:
            return []
        time.sleep(0.02)
    return unrest


def what_is_to_do(walk: "Walk", told: dict[str, Any]) -> list[str]:
    daemon = walk.daemon
    assert daemon.process is not None
    if (told["pid"], told["state"]) != (daemon.process.pid, "ready"):
        return [f"{told['pid']} is {told['state']}"]
    found = [f"in the queue: {each}" for each in told["queue"]] + [f"in flight: {each}" for each in told["in_flight"]]
    found += [f"work folder {path.name}" for path in daemon.works()]
    found += [f"not over: {each}" for each in daemon.unfinished()]
    return found + unexplained(daemon)


def unexplained(daemon: Daemon) -> list[str]:
    """Entries of the inbox that are neither a song with an answer, nor its options, nor in `_inbox.json`."""
    listed = {base64.b64decode(entry["name_b64"]) for entry in daemon.read("_inbox.json").get("entries", ())}
    found = []
    for folder, below, names in os.walk(daemon.inbox):
        here = Path(folder).relative_to(daemon.inbox)
        below[:] = [name for name in below if os.fsencode(here / name) not in listed]
        for name in names:
            path = (here / name).as_posix()
            song = path.removesuffix(OPTIONS)
            if name not in (LEASE, CANCEL) and os.fsencode(path) not in listed and not daemon.song(song):
                found.append(f"not explained: {path!r}")
    return found + [f"a cancel lies there: {path.name!r}" for path in daemon.inbox.rglob(f"*{CANCEL}")]


def of(walk: "Walk", drop: Drop) -> list[str]:
    """What is wrong with the answer to a drop, and with its original."""
    sidecar = walk.daemon.song(drop.name)
    was_open = drop.job_id is None
    wrong = answer_violations(drop, sidecar)
    if not wrong and was_open:
        wrong += of_original(walk, drop, sidecar["state"])
    return wrong


def of_original(walk: "Walk", drop: Drop, state: str) -> list[str]:
    allowed = places(state, walk.model.policies)
    found = {
        where
        for where in ("inbox", "done", "failed")
        for path in (walk.daemon.spool / where).rglob("*")
        if path.is_file() and path.stat().st_ino == drop.inode and sha256(path) == drop.sha256
    }
    if len(found) > 1 or not found <= allowed or not (found or "gone" in allowed):
        return [f"it is {state}, its original is in {sorted(found)}, and may be in {sorted(allowed)}"]
    return []


def of_results(walk: "Walk") -> list[str]:
    """One result for each job that was done and is no duplicate; and what the ledger says is what was seen."""
    jobs = rows(walk.folder / "state" / "ledger.sqlite3")
    wrong = [f"{job['job_id']} is {job['stage']} in the ledger" for job in jobs if job["stage"] != "finished"]
    seen = walk.eyes.ends
    wrong += [
        f"{job['job_id']} was seen {seen[job['job_id']]}, and the ledger has {job['state']}"
        for job in jobs
        if seen.get(job["job_id"], job["state"]) != job["state"]
    ]
    wrong += [f"{job_id} is not in the ledger" for job_id in seen.keys() - {job["job_id"] for job in jobs}]
    made = {job["job_id"] for job in jobs if job["state"] == "done" and not job.get("duplicate_of")}
    there = {job_id for job_id, _ in walk.eyes.results.values()} | walk.eyes.taken
    wrong += [f"{job_id} is done and has no result" for job_id in made - there]
    wrong += [f"{job_id} has a result and is not done" for job_id in there - made]
    return wrong


def rows(ledger: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        found = [json.loads(record) for (record,) in db.execute("SELECT record FROM jobs")]
    db.close()
    return found


def left_behind(daemon: Daemon) -> list[str]:
    """Private names that should be gone."""
    private = daemon.outbox / ".demixd"
    found = [path for path in private.iterdir() if path.name != "lock"]
    found += [path for path in lying_about(daemon.spool) if path.name.startswith(".demixd-") and path.name != LEASE]
    return [f"left behind: {path.relative_to(daemon.folder)}" for path in found]
