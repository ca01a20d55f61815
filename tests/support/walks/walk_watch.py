"""The eyes of a random walk: all that others can see of a spool, looked at all the time, and what must hold always.

Sidecars parse, their `seq` rises, a final state is final and `fraction` does not fall; nothing is in the outbox but
whole results, which never change, and none of a job that was cancelled or has failed.
"""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from walk_model import FINAL
from watching import faults

Stamp = tuple[int, ...]


class Eyes:
    """`wrong` is what was found. `lock` is held by whoever moves results or the outbox itself."""

    def __init__(self, status: Path, outbox: Path) -> None:
        self.status, self.outbox = status, outbox
        self.lock = threading.Lock()
        self.wrong: list[str] = []
        self.looks = 0
        self.results: dict[Path, tuple[str, dict[Path, Stamp]]] = {}
        """Every result that was seen, by its place: its job, and how its files look."""
        self.taken: set[str] = set()
        """Jobs whose results the consumer has taken away."""
        self.ends: dict[str, str] = {}
        """The final state of each job that was seen with one."""
        self._stamps: dict[Path, Stamp] = {}
        self._last: dict[Path, int] = {}
        self._fractions: dict[tuple[Any, ...], tuple[float, str | None]] = {}
        self._outputs: dict[str, Any] = {}

    def look(self) -> None:
        with self.lock:
            self.looks += 1
            self._look_at_status()
            self._look_at_results()

    def check(self, holds: object, what: str) -> None:
        if not holds and what not in self.wrong:
            self.wrong.append(what)

    def take(self, place: Path) -> None:
        """The consumer takes a result away, out of the outbox at once; `lock` is held."""
        job_id, _ = self.results.pop(place)
        away = self.outbox.with_name("taken")
        place.rename(away)
        shutil.rmtree(away)
        self.taken.add(job_id)

    # ---- sidecars

    def _look_at_status(self) -> None:
        for folder, _, names in os.walk(self.status):
            for name in names:
                if name.endswith(".json"):
                    self._look_at(Path(folder, name))
        missing = [path for path in self._stamps if not path.exists()]
        self.check(not missing, f"status files have gone: {missing}")

    def _look_at(self, path: Path) -> None:
        found = path.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._stamps.get(path) == stamp:
            return
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as error:
            self.check(False, f"{path.name} cannot be read: {error}")
            return
        self._stamps[path] = stamp
        before = self._last.get(path, 0)
        self.check(document["seq"] >= before, f"seq of {path.name} fell from {before} to {document['seq']}")
        self._last[path] = document["seq"]
        if not path.name.startswith("_"):
            self._follow(document)

    def _follow(self, document: dict[str, Any]) -> None:
        job_id, state = document["job_id"], document["state"]
        self._ends(job_id, state)
        if (previous := document["previous"]) is not None:
            self.check(previous["state"] in FINAL, f"previous job {previous} is not over")
            self._ends(previous["job_id"], previous["state"])
        if state in FINAL:
            output = self._outputs.setdefault(job_id, document["output"])
            self.check(output == document["output"], f"the output of {job_id} became {document['output']}")
        self.check(
            (document["output"] is not None) == (state == "done"), f"{job_id}, {state}, has {document['output']}"
        )
        self.check((document["reason"] is not None) == (state == "waiting"), f"{job_id}: {state}, {document['reason']}")
        self.check((document["step"] is not None) == (state == "running"), f"{job_id}: {state}, {document['step']}")
        fraction = document["progress"]["fraction"]
        # Where the clock is simulated a song may run and wait again within one moment, and run at another worker.
        worker = (document["engine"] or {}).get("worker")
        key = (job_id, document["attempt"], state, document["state_since"])
        before, had = self._fractions.get(key, (0.0, None))
        is_elsewhere = None not in (had, worker) and had != worker
        self.check(fraction >= before or is_elsewhere, f"fraction of {key} fell to {fraction}")
        self.check((fraction == 1.0) == (state == "done"), f"{job_id}: {state}, fraction {fraction}")
        self._fractions[key] = fraction, worker or had

    def _ends(self, job_id: str, state: str) -> None:
        before = self.ends.get(job_id, state)
        self.check(before == state or before not in FINAL, f"{job_id} was {before}, and is {state}")
        if state in FINAL:
            self.ends[job_id] = state

    # ---- results

    def _look_at_results(self) -> None:
        if not self.outbox.exists():
            return
        there = set()
        for folder, below, names in os.walk(self.outbox):
            place = Path(folder)
            if place == self.outbox:
                below[:] = [each for each in below if each != ".demixd"]
            if "stems.json" in names:
                below.clear()
                there.add(place)
                self._look_at_result(place)
            else:
                self.check(not names, f"in the outbox, and no result: {[str(place / name) for name in names]}")
        missing = self.results.keys() - there
        self.check(not missing, f"results have gone: {missing}")

    def _look_at_result(self, place: Path) -> None:
        stamps = {path: stamp(path) for path in sorted(place.rglob("*"))}
        if place not in self.results:
            job_id = json.loads((place / "stems.json").read_bytes())["job_id"]
            self.check(not (wrong := faults(place)), f"a result that is not whole: {place}: {wrong}")
            others = [job for job, _ in self.results.values() if job == job_id]
            self.check(not others and job_id not in self.taken, f"{job_id} has a second result, {place}")
            self.results[place] = job_id, stamps
        job_id, before = self.results[place]
        self.check(before == stamps, f"a result has changed: {place}")
        end = self.ends.get(job_id)
        self.check(end in (None, "done"), f"{place} is an output of {job_id}, which is {end}")


def stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
