"""What must hold at every moment of a simulated daemon's life, looked at after each of its steps.

Beside what a random walk looks at (`Eyes`): an original lies in done/ or failed/ only once its job has ended so, and in
done/ only once the result is there; the heartbeat goes on; and each status file is read whenever it has been written.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.spool.tree import DAEMON
from simulated_clock import SimulatedClock
from walk_rest import rows
from walk_watch import Eyes


class SimulatedEyes(Eyes):
    """`spool` is the folder that holds done/ and failed/."""

    def __init__(self, spool: Path, outbox: Path, clock: SimulatedClock) -> None:
        super().__init__(spool / "status", outbox)
        self._spool, self._clock = spool, clock
        before = (path for where in ("done", "failed") for path in (spool / where).rglob("*"))
        self._put_away = {path.stat().st_ino for path in before}
        """The originals that were seen in done/ or failed/, by inode: who has one open may write to it still."""
        self._jobs: dict[int, dict[str, dict[str, Any]]] = {}
        """The jobs of each inode, as they were seen last."""
        self._beat = (0, clock.now())
        self.also: Callable[[Path], object] = lambda _path: None
        """What else is to hear of each status file that has been written."""

    def look(self) -> None:
        """What has come, and what has gone. Status files are looked at as they are written (`see`)."""
        self._look_at_results()
        for where, ends in (("done", {"done"}), ("failed", {"failed", "cancelled"})):
            for folder, _, names in os.walk(self._spool / where):
                for name in names:
                    self._look_at_original(Path(folder, name), where, ends)

    def look_closely(self) -> None:
        """Also whether anything that was there has changed since, which nothing can hide."""
        if self.status.exists():
            self._look_at_status()
        for place in self.results:
            if place.exists():
                super()._look_at_result(place)

    def _look_at_result(self, place: Path) -> None:
        if place not in self.results:
            super()._look_at_result(place)
        end = self.ends.get(self.results[place][0]) if place in self.results else None
        self.check(end in (None, "done"), f"{place} is an output of a job that is {end}")

    def see(self, path: Path) -> None:
        """A status file has been written."""
        if path.is_relative_to(self.status):
            self._look_at(path)
        self.also(path)

    def start(self) -> None:
        """The daemon starts: its heartbeat is counted from now on."""
        self._beat = (0, self._clock.now())

    def look_at_heartbeat(self, interval_s: float) -> None:
        """Promise (g): the heartbeat's `seq` grows every interval."""
        seq, now = self._last.get(self.status / DAEMON, 0), self._clock.now()
        if seq != self._beat[0] or not self.status.exists():
            self._beat = seq, now
        late = now - self._beat[1]
        self.check(late <= 3 * interval_s, f"the heartbeat has not gone on for {late:.1f} s")

    def _follow(self, document: dict[str, Any]) -> None:
        super()._follow(document)
        self._jobs.setdefault(document["input"]["inode"], {})[document["job_id"]] = document

    def _look_at_original(self, path: Path, where: str, ends: set[str]) -> None:
        inode = path.stat().st_ino
        is_reason = path.suffix == ".txt" or path.name.startswith(".demixd-")
        if inode in self._put_away or is_reason or kind_of_file(path.name) is not Kind.SONG:
            return  # option files, reasons, and what lay beside songs
        self._put_away.add(inode)
        known = self._jobs.get(inode, {}).values()
        jobs = [job for job in known if self.ends.get(job["job_id"]) in ends]
        if not jobs:  # a newer drop that ends before the running job of its name has no sidecar yet
            in_ledger = rows(self._spool.parent / "state" / "ledger.sqlite3")
            jobs = [job for job in in_ledger if job["identity"]["inode"] == inode and job["state"] in ends]
        self.check(jobs, f"{path.name} is in {where}/, and no job of it has ended so: {list(known)}")
        made = {job_id for job_id, _ in self.results.values()} | self.taken
        if where == "done" and self.outbox.exists():
            told = {job.get("duplicate_of") or job["job_id"] for job in jobs}
            self.check(told & made, f"{path.name} is in done/, and its result is not there")
