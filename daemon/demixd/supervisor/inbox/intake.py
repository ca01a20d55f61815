"""From what lies in the inbox to jobs: first sight, settling, options, new drops.

Whose file is it? A job is bound to its name and inode. Until its song has settled once, growth belongs to it; from then
on another size or time of modification is a new drop, which makes a new job. Another inode always is one.

    nobody's        a new job
    waiting job's   it settles; or it was replaced: that job ends, the new drop gets its own
    running job's   nothing; or it was replaced: the new drop waits behind
    answered        nothing: it was left here by policy, and stays answered until it is a new drop
"""

import os
import uuid

import msgspec

from demixd.config import Config
from demixd.engine.models import store
from demixd.errors import AudioProcessingError
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import Kind
from demixd.protocol.job import FINAL, Error, Job, Previous, Reason, Stage, State, waits_for
from demixd.protocol.options import JobOptions
from demixd.spool.files import born_ns
from demixd.spool.leases import writer_has
from demixd.spool.tree import CANCEL, companion
from demixd.supervisor.inbox.readiness import FOREVER, RECHECK_S, Readiness
from demixd.supervisor.inbox.scan import Listing, Seen
from demixd.supervisor.jobs import reasons
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import Rehash

AT_ONCE = 100
"""How many songs one look takes on, or into the line, at most: where 10,000 come at once, the loop goes round in between,
and hears the worker and the cancel of the running song. A cancel file that is nobody's yet may mean any of them, and has
them all taken on with it."""


class Intake:
    """Keeps the jobs in step with the songs in the inbox. `now` is monotonic, in seconds."""

    def __init__(self, config: Config, context: Context, readiness: Readiness, rehash: Rehash) -> None:
        self.reconfigure(config)
        self._spool, self._jobs, self._folders = context.spool, context.jobs, context.folders
        self._ending, self._pool = context.ending, context.pool
        self._readiness = readiness
        self._rehash = rehash
        self.look_again_at = FOREVER
        """When a file's settle time can be over."""
        self.fresh: set[str] = set()
        """The ids of the jobs that the last look has made."""
        self.foreign: list[Seen] = []
        """The songs that a job of another version holds, which cannot be read: they are left to it."""
        self._ready: list[Job] = []
        """The jobs that have become ready in this look."""
        self._asked_for_hash = False
        """Whether this look has asked for a hash."""
        self._older: set[str] = set()
        """The ids of jobs that waited when the configuration was read again: without their model they get options anew."""

    def ask_anew(self) -> None:
        """Let songs whose model is missing, or turns out to be, go by the present configuration: it may name another one."""
        self._older = {job.job_id for job in self._jobs.queued()}

    def reconfigure(self, config: Config) -> None:
        self._config = config
        self._usual = config.options
        """What most songs are to become; ten thousand share it."""

    def look(self, listing: Listing, now: float) -> None:
        """Bring the jobs up to the listing."""
        self.look_again_at, self._asked_for_hash = FOREVER, False
        self._readiness.look(listing, now)
        at_once = len(listing.songs) if any(map(self._has_no_job, listing.cancels)) else AT_ONCE
        self._add_new(listing, now, at_once)
        for seen in listing.songs.values():
            if (job := self._jobs.waiting(seen.name)) is not None:
                self._watch(job, seen, now)
                if len(self._ready) >= at_once:
                    self.look_again_at = now
                    break
        if self._ready:
            self._jobs.save_all(self._ready)
            self._ready = []
        self._ending.finish_replaced()
        self._cancel_missing(listing)
        self._readiness.forget_others(listing)

    @property
    def is_settled(self) -> bool:
        """Whether another look at the same listing would find nothing more to do."""
        return self.look_again_at == FOREVER and not self._asked_for_hash and not self._folders.inbox_is_another

    def _has_no_job(self, cancel: Seen) -> bool:
        """Whether a cancel file means every song, or one that has no job yet."""
        return cancel.name == CANCEL or self._jobs.newest(cancel.name.removesuffix(CANCEL)) is None

    # ---- whose is it

    def _add_new(self, listing: Listing, now: float, at_once: int) -> None:
        """Make jobs of the songs that have none yet, all in one transaction; at most `at_once`, the rest at the next look."""
        new: list[Job] = []
        at = self._jobs.now  # they share the one text
        self.foreign = []
        cancels = {seen.name: seen.identity for seen in listing.cancels}
        for name, seen in listing.songs.items():
            if len(new) >= at_once:
                self.look_again_at = now
                break
            current = self._jobs.successors.get(name) or self._jobs.active.get(name)
            if current is None:
                last = self._jobs.kept.get(name) or self._jobs.newest(name)
                if last is None and (other := self._jobs.foreign(name)) is not None and other.answers(seen.identity):
                    self.foreign.append(msgspec.structs.replace(seen, kind=Kind.OTHER_VERSION))
                elif last is None or not self._is_answered(last, seen, now):
                    new.append(self._new(seen, last, cancels, at))
            elif not _is_its(current, seen) and not self._is_full(current, now):
                if current.state is State.WAITING:
                    self._ending.end_missing(current, replaced=True)
                new.append(self._new(seen, self._jobs.newest(name), cancels, at))
        self.fresh = {job.job_id for job in new}
        if new:
            self._jobs.add(new)
            for job in new if self._config.inbox.reasons else ():
                reasons.remove_of(job.name, self._spool)

    def _is_full(self, newest: Job, now: float) -> bool:
        """Whether a name has a drop behind its running one that cannot be finished while a folder is away: another waits."""
        if newest.state not in FINAL or newest.name not in self._jobs.successors:
            return False
        self.look_again_at = min(self.look_again_at, now + RECHECK_S)
        return True

    def _is_answered(self, last: Job, seen: Seen, now: float) -> bool:
        """Whether the song was left in the inbox by its last job, which is over."""
        if last.kept is None:
            return False
        grows = last.state is State.CANCELLED and not last.settled
        if not grows and last.kept.is_same_drop(seen.identity):
            self._jobs.kept[seen.name] = last
            return True
        if grows and last.kept.inode == seen.identity.inode:
            # It was cancelled while it was being written: what is written yet belongs to it.
            over = self._readiness.settles_at(seen.name, seen.identity, now)
            settled = over <= now and writer_has(self._spool.inbox, self._spool.song(seen.name), seen.identity) is None
            last = msgspec.structs.replace(last, kept=seen.identity, settled=settled)
            # What comes once it has settled is a new drop, also for a daemon that is started in between.
            self._jobs.kept[seen.name] = self._jobs.save(last) if settled else last
            if not settled:
                self.look_again_at = min(self.look_again_at, max(over, now + RECHECK_S))
            return True
        if last.sha256 is not None and _differs_by_inode(last, seen):
            return self._is_same_content(last, seen)
        return False

    def _is_same_content(self, last: Job, seen: Seen) -> bool:
        """Where only the inode differs the hash decides; until it is known the song counts as answered."""
        self._asked_for_hash = True
        sha256 = self._rehash.sha256(self._spool.song(seen.name), seen.identity)
        if sha256 is not None and sha256 != last.sha256:
            return False
        if sha256 is not None:
            self._jobs.kept[seen.name] = self._jobs.save(msgspec.structs.replace(last, kept=seen.identity))
        return True

    def _new(self, seen: Seen, last: Job | None, cancels: dict[str, Identity], at: str) -> Job:
        reason = Reason.CHANGING if seen.identity.size else Reason.EMPTY
        return Job(
            job_id=uuid.uuid4().hex,
            raw_name=os.fsencode(seen.name),
            identity=seen.identity,
            options=self._usual,
            max_attempts=self._config.limits.max_attempts,
            state_since=at,
            reason=reason,
            message=waits_for(reason),
            previous=Previous.of(last) if last and last.state in FINAL else None,
            cancel_file=self._not_for(seen, last, cancels),
        )

    def _not_for(self, seen: Seen, last: Job | None, cancels: dict[str, Identity]) -> Identity | None:
        """The cancel file, of those that are there, that does not mean a new drop: it came before the drop was made.

        That is written down with the job, since the daemon may end before the file is removed.
        """
        own, known = cancels.get(companion(seen.name, CANCEL)), last.cancel_file if last else None
        if own is not None and own == known:
            return own
        there = [cancel for cancel in (own, cancels.get(CANCEL)) if cancel is not None]
        made_ns = self._made_ns(seen, last) if there else 0
        return next((cancel for cancel in there if cancel.ctime_ns < made_ns), known)

    def _made_ns(self, seen: Seen, last: Job | None) -> int:
        """When a drop was made: its birth, or the change of the file that its name had before."""
        is_changed = last is not None and last.identity.inode == seen.identity.inode
        born = None if is_changed else born_ns(self._spool.inbox, self._spool.song(seen.name))
        return seen.identity.ctime_ns if born is None else born

    def _cancel_missing(self, listing: Listing) -> None:
        """Cancel the waiting songs that have been deleted, where the listing can be trusted."""
        if not listing.complete:
            return
        waiting = [
            job
            for job in (*self._jobs.active.values(), *self._jobs.successors.values())
            if job.name not in listing.songs
        ]
        gone = [job for job in waiting if job.state is State.WAITING]
        if self._folders.inbox_is_another:
            # On another device it may be a share that is not mounted: songs that run or have run are there still.
            if not (waiting if self._folders.inbox_is_elsewhere else gone):
                self._folders.trust_inbox()
            return
        for job in gone:
            self._ending.end_missing(job, replaced=False)
        for name in self._jobs.kept.keys() - listing.songs.keys():
            del self._jobs.kept[name]

    # ---- is it ready

    def _watch(self, job: Job, seen: Seen, now: float) -> None:
        """See whether a waiting job's song has become ready, or is ready no more."""
        asks_anew = job.job_id in self._older and bool(self._pool.why_missing(job.options))
        if asks_anew:
            self._older.discard(job.job_id)
        if job.ready_at and _is_as_it_was(job, seen) and not asks_anew:
            if (job.identity, job.options_file) != (seen.identity, seen.options):
                numbers = {"identity": seen.identity, "options_file": seen.options}
                self._jobs.update(job, State.WAITING, reason=job.reason, message=job.message, **numbers)
            return
        verdict = self._readiness.of(job, seen, now)
        if verdict.reason is None:
            ready = msgspec.structs.replace(job, identity=seen.identity, options_file=seen.options, tag=verdict.tag)
            self._accept(ready, verdict.options)
            return
        self.look_again_at = min(self.look_again_at, verdict.look_again_at)
        message = verdict.message or (job.message if verdict.reason is job.reason else "")
        if (verdict.reason, message, seen.identity) != (job.reason, job.message, job.identity):
            self._jobs.update(
                job,
                State.WAITING,
                reason=verdict.reason,
                message=message,
                identity=seen.identity,
                ready_at=0.0,
                place=(job.ready_at or job.place) if job.settled and job.identity.is_same_file(seen.identity) else 0.0,
                # What grows is still coming: its grace begins anew.
                truncated_since=job.truncated_since if seen.identity == job.identity else None,
            )

    def _accept(self, job: Job, chosen: JobOptions | AudioProcessingError) -> None:
        """The song is complete: queue its job, or end it where its options are bad."""
        try:
            if isinstance(chosen, AudioProcessingError):
                raise chosen
            job = msgspec.structs.replace(job, tag=chosen.own.tag)
            # A model that it was accepted with may be away for a while.
            effective = self._config.options_of(
                job.name, chosen, lambda model: model == job.options.model or self._is_known(model)
            )
            effective = self._usual if effective == self._usual else effective
        except AudioProcessingError as error:
            job = self._jobs.commit(msgspec.structs.replace(job, settled=True), Stage.SEEN)
            self._ending.end(job, State.FAILED, error=Error.of(error), message=error.message)
            return
        ready = self._jobs.update(
            job,
            State.WAITING,
            reason=Reason.QUEUED,
            message="",
            settled=chosen.own.wait_for_sha256 is None,  # else once it has that hash: until then it grows
            ready_at=job.ready_at or job.place or self._jobs.next_place(),
            place=0.0,
            options=effective,
            priority=chosen.own.priority,
            force=chosen.own.force,
            wait_for_sha256=chosen.own.wait_for_sha256,
            result_key=None,  # that of the song and the options before
        )
        self._ready.append(ready)

    def _is_known(self, model: str) -> bool:
        return store.is_known(model, repo=self._config.repo, models=self._config.models)


def _is_as_it_was(job: Job, seen: Seen) -> bool:
    """Whether the song and its options are the files that were ready; their disk may have got another number since."""
    if job.options_file is None or seen.options is None:
        return job.identity.is_same_file(seen.identity) and job.options_file == seen.options
    return job.identity.is_same_file(seen.identity) and job.options_file.is_same_file(seen.options)


def _is_its(job: Job, seen: Seen) -> bool:
    """Whether the song is still the one that `job` is bound to."""
    if job.settled:
        return job.identity.is_same_drop(seen.identity)
    return job.identity.inode == seen.identity.inode


def _differs_by_inode(last: Job, seen: Seen) -> bool:
    left = last.kept
    return left is not None and (left.size, left.mtime_ns) == (seen.identity.size, seen.identity.mtime_ns)
