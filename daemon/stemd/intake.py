"""From what lies in the inbox to jobs: first sight, settling, cancels, and a reason for everything else."""

import base64
import logging
import os
import time
import uuid

from stemd import ending, status
from stemd.config import Config
from stemd.identity import Identity
from stemd.inbox.names import Kind
from stemd.inbox.ready import Settling, writer_has
from stemd.inbox.scan import Listing, Seen, scan
from stemd.job import Cancel, CancelResult, Job, Previous, Reason, Stage, State
from stemd.jobs import Jobs
from stemd.runner import Runner
from stemd.spool import CANCEL, INBOX, Spool, companion

log = logging.getLogger(__name__)

EXPIRED_S = 60.0
"""At start-up a cancel that is this much older than its song was meant for another one."""

RECHECK_S = 1.0
"""When to look again at a file that somebody has open."""

FOREVER = float("inf")


class Intake:
    """Keeps the jobs in step with the inbox."""

    def __init__(self, config: Config, spool: Spool, jobs: Jobs, runner: Runner) -> None:
        self._config = config
        self._spool = spool
        self._jobs = jobs
        self._runner = runner
        self._settling = Settling(config.inbox.settle)
        self._strangers: dict[str, int] = {}
        self._handled_all: Identity | None = None
        self._first = True
        self._entries: tuple[status.InboxEntry, ...] | None = None
        self.again = FOREVER
        """When (monotonic) a file's settle time can be over."""
        self.warnings: tuple[str, ...] = ()

    def look(self, now: float) -> None:
        """One look at the whole inbox."""
        try:
            listing = scan(self._spool.inbox, recursive=self._config.inbox.recursive)
        except OSError as error:
            self.warnings = (f"The inbox {self._spool.inbox} cannot be read: {error.strerror}",)
            log.warning(self.warnings[0])
            return
        self.warnings = ()
        self.again = FOREVER
        self._greet(listing)
        for seen in listing.songs.values():
            self._watch(seen, now)
        listed = self._cancels(listing, now)
        self._miss(listing)
        self._settling.forget(set(listing.songs))
        self._explain([*listing.others, *listed])
        self._first = False

    def _greet(self, listing: Listing) -> None:
        """Make jobs of the songs that nobody has seen yet, all in one transaction."""
        new = []
        for name, seen in listing.songs.items():
            if name in self._jobs.active:
                continue
            known = self._jobs.answered.get(name)
            if known is not None and known.is_same_drop(seen.identity):
                continue
            last = self._jobs.latest(name)
            if known is None and last is not None and last.left is not None and last.left.is_same_drop(seen.identity):
                self._jobs.answered[name] = last.left
                continue
            new.append(self._new(seen, last))
        if new:
            self._jobs.add(new)

    def _new(self, seen: Seen, last: Job | None) -> Job:
        return Job(
            job_id=uuid.uuid4().hex,
            raw_name=os.fsencode(seen.name),
            identity=seen.identity,
            options=self._config.options,
            max_attempts=self._config.limits.max_attempts,
            state_since=self._jobs.now,
            reason=Reason.CHANGING if seen.identity.size else Reason.EMPTY,
            previous=Previous(job_id=last.job_id, state=last.state, output=last.output) if last else None,
        )

    def _watch(self, seen: Seen, now: float) -> None:
        """See whether a waiting song has become ready, or stopped being it."""
        job = self._jobs.active.get(seen.name)
        if job is None or job.state is not State.WAITING:
            return
        if job.ready_at and job.identity == seen.identity:
            return
        reason, again = self._settling.look(seen, now)
        if reason is None:
            reason, again = writer_has(self._spool.song(seen.name)), now + RECHECK_S
        if reason is None and job.reason is Reason.TRUNCATED and job.identity == seen.identity:
            since = job.truncated_since or time.time()
            left = since + self._config.limits.truncated_grace_s - time.time()
            if left > 0:
                self.again = min(self.again, now + left)
                return
        if reason is not None:
            self.again = min(self.again, again)
            if (reason, seen.identity) != (job.reason, job.identity):
                self._jobs.change(job, State.WAITING, reason=reason, message="", identity=seen.identity, ready_at=0.0)
            return
        self._jobs.change(
            job, State.WAITING, reason=Reason.QUEUED, message="", identity=seen.identity, ready_at=time.time()
        )

    def _miss(self, listing: Listing) -> None:
        """A waiting song that has been deleted is cancelled, where the listing can be trusted."""
        if not listing.complete:
            return
        for name, job in list(self._jobs.active.items()):
            if job.state is State.WAITING and name not in listing.songs:
                self._end(job)
        for name in self._jobs.answered.keys() - listing.songs.keys():
            del self._jobs.answered[name]

    def _end(self, job: Job) -> None:
        ending.end(job, State.CANCELLED, self._jobs, self._spool, self._config.inbox.after)

    def _cancels(self, listing: Listing, now: float) -> list[Seen]:
        """Carry out every cancel file; those that nobody can be found for."""
        names = {companion(name, CANCEL): name for name in (*self._jobs.answered, *self._jobs.active)}
        strangers = []
        for seen in listing.cancels:
            if seen.name == CANCEL:
                self._cancel_all(seen, listing, now)
                continue
            name = names.get(seen.name, seen.name.removesuffix(CANCEL))
            job = self._jobs.latest(name)
            if self._first and job is not None and self._is_expired(seen, listing.songs.get(name)):
                self._remove(seen)
                strangers.append(_as(seen, Kind.EXPIRED))
            elif job is None:
                strangers.extend(self._stranger(seen))
            else:
                self._cancel(job, seen, now)
        self._strangers = {
            name: count for name, count in self._strangers.items() if name in {seen.name for seen in listing.cancels}
        }
        return strangers

    def _cancel(self, job: Job, seen: Seen, now: float) -> None:
        if job.state is State.WAITING:
            self._end(job)
        elif job.state is State.RUNNING:
            self._runner.cancel(now)
        else:
            if job.cancel is None:
                late = Cancel(seen_at=self._jobs.now, result=CancelResult.TOO_LATE)
                told = self._jobs.change(job, job.state, cancel=late)
                self._jobs.record(told, Stage.FINISHED)
                self._jobs.active.pop(job.name, None)
            self._remove(seen)

    def _cancel_all(self, seen: Seen, listing: Listing, now: float) -> None:
        """The bare `.cancel`: every job there is, then it goes. It stays while the running one has not stopped."""
        if self._handled_all != seen.identity:
            self._handled_all = seen.identity
            self._runner.cancel(now)
            for name, job in list(self._jobs.active.items()):
                expired = self._first and self._is_expired(seen, listing.songs.get(name))
                if job.state is State.WAITING and not expired:
                    self._end(job)
        if self._runner.job is None:
            self._remove(seen)

    def _is_expired(self, cancel: Seen, song: Seen | None) -> bool:
        return song is not None and cancel.identity.ctime_ns + EXPIRED_S * 1e9 < song.identity.ctime_ns

    def _stranger(self, seen: Seen) -> list[Seen]:
        """A cancel for a name that nobody knows: kept for two looks, then removed."""
        count = self._strangers[seen.name] = self._strangers.get(seen.name, 0) + 1
        if count > 2:
            self._remove(seen)
        return [_as(seen, Kind.NO_SUCH_JOB)]

    def _remove(self, seen: Seen) -> None:
        try:
            (self._spool.inbox / seen.name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", seen.name, error)

    def _explain(self, others: list[Seen]) -> None:
        """Write `_inbox.json` where it has changed."""
        entries = tuple(
            status.InboxEntry(
                name=os.fsencode(seen.name).decode("utf-8", "replace"),
                name_b64=base64.b64encode(os.fsencode(seen.name)).decode(),
                reason=seen.kind,
            )
            for seen in others
        )
        if entries == self._entries:
            return
        self._entries = entries
        document = status.InboxStatus(
            schema=status.SCHEMA, seq=self._jobs.seq(), entries=entries, updated_at=self._jobs.now
        )
        self._jobs.write(self._spool.status / INBOX, document)


def _as(seen: Seen, kind: Kind) -> Seen:
    return Seen(name=seen.name, kind=kind, identity=seen.identity)
