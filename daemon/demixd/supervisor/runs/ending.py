"""How a job ends: points 7 to 10 (see `trace`), each safe to do again after a crash.

    7 ledger `final` - 8 sidecar - 9 the original goes by policy, the cancel file goes - 10 the list of ends, ledger `finished`,
    the work goes

While a folder is away the end stops before point 8 or 9, and `go_on` takes it up again.
"""

import logging
from collections.abc import Iterable

import msgspec

from demixd.config import Config
from demixd.config.sections import After
from demixd.protocol.job import FINAL, Cancel, CancelResult, Error, Job, Stage, State, move
from demixd.spool.tree import CANCEL, Spool, companion
from demixd.supervisor import trace
from demixd.supervisor.folders import Folders
from demixd.supervisor.jobs import reasons
from demixd.supervisor.jobs.end_list import EndList
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.runs.cancel_file import CancelFiles
from demixd.supervisor.runs.originals import put_away

log = logging.getLogger(__name__)


class Ending:
    """Ends jobs. `unfinished` are the final jobs, by id, whose end waits for a folder that is away."""

    def __init__(
        self, config: Config, spool: Spool, jobs: JobTable, folders: Folders, cancel_files: CancelFiles
    ) -> None:
        self.reconfigure(config)
        self._spool = spool
        self._jobs = jobs
        self._folders = folders
        self._cancel_files = cancel_files
        self._ends = EndList(spool, jobs)
        self.unfinished: dict[str, Job] = {}
        self._replaced: list[Job] = []
        """Jobs whose end no sidecar shows: those of the drops that took their places will."""

    def reconfigure(self, config: Config) -> None:
        self._settings = config.inbox

    def end(self, job: Job, state: State, **changes: object) -> Job:
        """Make `state` the job's last in the ledger, then conclude it. An `error` says what to do where options are bad."""
        if isinstance(error := changes.get("error"), Error):
            error = reasons.with_remedy(error, job, self._settings)
            changes |= {"error": error, "message": error.message}
        trace.point("7-final")
        return self.conclude(self._commit_final(job, state, **changes))

    def end_missing(self, job: Job, *, replaced: bool) -> Job:
        """End a job whose song is not in the inbox any more: deleted, or replaced by a new drop, which is left alone.

        The sidecar goes to the new drop at once then: who waits for an end must not take this one for it. Where the ledger
        does not have the new drop yet, `finish_replaced` is to be called once it has: were this job finished before, a crash
        between the two would leave its sidecar as it was, for ever where the song is gone by then.
        """
        message = "Replaced by a new drop." if replaced else "The song was deleted."
        job = self._commit_final(job, State.CANCELLED, message=message)
        if not replaced and not self._jobs.write_sidecar(job):
            self.unfinished[job.job_id] = job
            return job
        log.info("%s: %s", job.shown, message, extra=self._jobs.fields(job))
        if not replaced or job.name in self._jobs.successors:
            return self._finish(job)
        self._spool.remove_work(job.job_id)
        self._jobs.close(job)
        self._replaced.append(job)
        return job

    def finish_replaced(self) -> None:
        """Finish the jobs of drops that were replaced: the ledger has those that took their places, or these have gone too."""
        replaced, self._replaced = self._replaced, []
        for each in replaced:
            job = self._ends.numbered(each)
            newest = self._jobs.newest(job.name)
            if (newest is None or newest.job_id == job.job_id) and not self._jobs.write_sidecar(job):
                self.unfinished[job.job_id] = job
            elif self._ends.tell(job):
                self._jobs.save_all([msgspec.structs.replace(job, stage=Stage.FINISHED)])
            else:
                self._replaced.append(job)

    def _commit_final(self, job: Job, state: State, **changes: object) -> Job:
        assert state in FINAL
        if state is State.CANCELLED:
            changes["cancel"] = Cancel(seen_at=self._jobs.now, result=CancelResult.CANCELLED)
            changes.setdefault("message", "Cancelled")
        if state is not State.DONE:
            changes["output"] = None
        return self._jobs.commit(move(job, state, at=self._jobs.now, **changes), Stage.FINAL)

    def go_on(self) -> None:
        """Conclude the ends that waited for a folder which is there again."""
        for job in list(self.unfinished.values()):
            if not self._folders.are_away_for(job.name):
                job = self._jobs.present(job)
                self._finish(job) if job.end else self.conclude(job)

    def owe(self, unfinished: Iterable[Job]) -> None:
        """Tell first of those, of the jobs of a former life, that were about to be told."""
        self._ends.owe(unfinished)

    def conclude(self, job: Job) -> Job:
        """Points 8 to 10 of a job that is final in the ledger. While a folder is away the rest has to wait."""
        trace.point("8-sidecar")
        if not self._jobs.write_sidecar(job) or self._folders.are_away_for(job.name):
            self.unfinished[job.job_id] = job
            return job
        self.unfinished.pop(job.job_id, None)
        self._log(job)
        trace.point("9-original")
        try:
            settings = msgspec.structs.replace(self._settings, after=After.KEEP) if job.is_rebuilt else self._settings
            kept, warning = put_away(job, self._spool, settings)
        except OSError as error:
            log.error("%s is between two names, and waits: %s", job.shown, error)
            self.unfinished[job.job_id] = job
            return job
        if self._folders.are_away_for(job.name):  # one went meanwhile: what was not found in it may be there still
            self.unfinished[job.job_id] = job
            return job
        job = self._answer_cancel(msgspec.structs.replace(job, kept=kept))
        if warning:
            job = self._jobs.update(job, job.state, warnings=(*job.warnings, warning))
        trace.point("10-finished")
        return self._finish(job)

    def _log(self, job: Job) -> None:
        level = logging.WARNING if job.state is State.FAILED else logging.INFO
        log.log(level, "%s: %s%s", job.shown, job.state, self._outcome(job), extra=self._jobs.fields(job))
        for warning in job.warnings:
            log.warning("%s: %s", job.shown, warning, extra=self._jobs.fields(job, is_new=False))

    def _outcome(self, job: Job) -> str:
        """Why a job has failed; where the result of one that is done lies, and how long it took."""
        if job.error is not None:
            return f": {job.error.message}"
        if job.output is None:
            return ""
        spent = "made before" if job.duplicate_of else f"{sum(job.timing.values()):.1f} s"
        return f" ({spent}), in {self._spool.outbox / job.output.dir}"

    def _finish(self, job: Job) -> Job:
        job = self._ends.numbered(job)
        if not self._ends.tell(job):
            self.unfinished[job.job_id] = job
            return job
        self.unfinished.pop(job.job_id, None)
        job = self._jobs.commit(job, Stage.FINISHED)
        self._spool.remove_work(job.job_id)
        self._jobs.close(job)
        return job

    def _answer_cancel(self, job: Job) -> Job:
        """Remove the job's cancel file, and say `too-late` where it did not end the job."""
        seen = self._cancel_files.standing(job)
        if seen is None or self._cancel_files.is_for_a_newer_drop(job, seen):
            return job  # of a newer drop the next look sees to it
        job = self._cancel_files.remove_of(job, seen, companion(job.name, CANCEL))
        if job.cancel is None:
            too_late = Cancel(seen_at=self._jobs.now, result=CancelResult.TOO_LATE)
            job = self._jobs.update(job, job.state, cancel=too_late)
        return job
