"""Cancel files: whom each one means, and what becomes of it.

    NAME.cancel    the job of NAME, waiting or running; removed, and acknowledged in the sidecar
    .cancel        every job there is; then it goes

A cancel means what had been seen when it came. A song that is first seen with it is meant only if it was made before
(`intake` decides that, and notes it in the job); else the cancel is `expired`. One that nobody can be found for is kept for
two looks. One that cannot be removed is remembered by its identity, and means nothing more.
"""

import logging
import os

import msgspec

from demixd.protocol.inbox_names import Kind
from demixd.protocol.job import Cancel, CancelResult, Job, State
from demixd.spool.tree import CANCEL, companion
from demixd.supervisor.inbox.scan import Listing, Seen
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.runner import Runner

log = logging.getLogger(__name__)

LOOKS = 2
"""How many looks a cancel for nobody stays."""


class Cancels:
    """Carries out the cancel files of each listing."""

    def __init__(self, context: Context, runner: Runner) -> None:
        self._spool, self._jobs, self._ending = context.spool, context.jobs, context.ending
        self._files = context.cancel_files
        self._runner = runner
        self._unknown: dict[str, int] = {}

    def look(self, listing: Listing, fresh: set[str], now: float) -> list[Seen]:
        """Carry out every cancel file of the listing; those that belong to no job, with their reason as kind.

        `fresh` are the ids of the jobs that this look has made.
        """
        told: list[Seen] = []
        if not listing.cancels:
            self._unknown = {}
            return told
        known = (*self._jobs.active, *self._jobs.successors, *listing.songs)
        names = {companion(name, CANCEL): name for name in known}
        near = {_beginning(name): name for name in known}
        for seen in listing.cancels:
            name = names.get(seen.name, seen.name.removesuffix(CANCEL))
            if seen.name == CANCEL:
                told += self._cancel_all(seen, listing, now)
            elif (job := self._jobs.newest(name)) is None:
                told += self._of_unknown(seen, near.get(_beginning(name)) or near.get(name.casefold()))
            else:
                told += self._cancel(seen, job, listing, fresh, now)
        listed = {seen.name for seen in listing.cancels}
        self._unknown = {name: count for name, count in self._unknown.items() if name in listed}
        return told

    def _cancel(self, seen: Seen, job: Job, listing: Listing, fresh: set[str], now: float) -> list[Seen]:
        running = self._runner.runs(job.name)
        if seen.identity == job.cancel_file:
            told = self._not_for(job, seen, running=running, now=now)
            return [_as(seen, Kind.EXPIRED)] if job.job_id in fresh and not running else told
        if running:
            self._runner.cancel(job.name, now)
            job = self._jobs.newest(job.name) or job
        if job.state is State.WAITING:
            self._end(job, listing)
        elif not running:
            self._too_late(job, seen)
        return []

    def _not_for(self, job: Job, seen: Seen, *, running: bool, now: float) -> list[Seen]:
        """A cancel file that the newest job knows: it meant the job before, or has been obeyed and cannot be removed."""
        older = self._jobs.active.get(job.name)
        if running and older is not None and older.cancel_file != seen.identity:
            self._runner.cancel(job.name, now)  # its end takes the file away
            return []
        self._forget(job, seen)  # what could not be removed then, perhaps can be now
        return [_as(seen, Kind.ANSWERED)] if os.path.lexists(self._spool.inbox / seen.name) else []

    def _too_late(self, job: Job, seen: Seen) -> None:
        """The job is over already: say so in its sidecar, once."""
        if job.cancel is None:
            too_late = Cancel(seen_at=self._jobs.now, result=CancelResult.TOO_LATE)
            job = msgspec.structs.replace(job, cancel=too_late)
            if not self._jobs.write_sidecar(job):
                return  # the next look says it
            self._jobs.save(job)
        self._forget(job, seen)

    def _forget(self, job: Job, seen: Seen) -> None:
        """Remove the cancel file; where that cannot be, note that it means nothing more."""
        kept = self._files.remove_of(job, seen.identity, seen.name)
        if kept != job:
            self._jobs.save(kept)

    def _end(self, job: Job, listing: Listing) -> None:
        """End a waiting job. Its option file goes along, also where it has not been read: else it is the next song's."""
        song = listing.songs.get(job.name)
        if job.options_file is None and song is not None:
            job = msgspec.structs.replace(job, options_file=song.options)
        self._ending.end(job, State.CANCELLED)

    def _cancel_all(self, seen: Seen, listing: Listing, now: float) -> list[Seen]:
        """Obey the bare `.cancel`. It stays while a running job has not stopped, and does not mean what was dropped since."""
        if self._files.obeyed_all == seen.identity:
            return [] if self._remove_all(seen) else [_as(seen, Kind.ANSWERED)]
        self._runner.cancel_all(now)
        self._files.obeyed_all = seen.identity
        spared = False
        for job in [*self._jobs.successors.values(), *self._jobs.active.values()]:
            if job.cancel_file == seen.identity:
                spared = True
            elif job.state is State.WAITING:
                self._end(job, listing)
        self._remove_all(seen)
        return [_as(seen, Kind.EXPIRED)] if spared else []

    def _remove_all(self, seen: Seen) -> bool:
        """Remove the bare `.cancel` once the running jobs have stopped; False where that cannot be."""
        if self._runner.is_stopping_some:
            return True
        if not self._files.remove(seen.name):
            self._files.remember_all(seen.identity)
            return False
        return True

    def _of_unknown(self, seen: Seen, near: str | None) -> list[Seen]:
        """List a cancel file for a name that has no job, and remove it after some looks. `near` is a song that it may mean."""
        if seen.name not in self._unknown:
            meant = f"; did you mean {companion(near, CANCEL)}?" if near else ""
            log.warning("%s: there is no song of that name, and nothing to stop%s", seen.name, meant)
        count = self._unknown[seen.name] = self._unknown.get(seen.name, 0) + 1
        if count > LOOKS:
            self._files.remove(seen.name)
        return [_as(seen, Kind.NO_SUCH_JOB)]


def _beginning(name: str) -> str:
    """The song's name but for its extension, which people forget, and for its case."""
    return name.rpartition(".")[0].casefold()


def _as(seen: Seen, kind: Kind) -> Seen:
    return Seen(name=seen.name, kind=kind, identity=seen.identity)
