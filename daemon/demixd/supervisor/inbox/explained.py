"""`_inbox.json`: every entry of the inbox that is not a job, and why. Nothing in the inbox is silently skipped."""

import base64
import os

from demixd.protocol import status
from demixd.protocol.inbox_names import Kind
from demixd.protocol.job import Job, State
from demixd.spool.tree import INBOX, OPTIONS, Spool, companion
from demixd.supervisor.inbox.scan import Listing, Seen
from demixd.supervisor.jobs.table import JobTable


class Explained:
    """Writes `_inbox.json` where it has changed."""

    def __init__(self, spool: Spool, jobs: JobTable) -> None:
        self._spool = spool
        self._jobs = jobs
        self._entries: tuple[status.InboxEntry, ...] | None = None

    def look(self, listing: Listing, more: list[Seen]) -> None:
        """Explain each entry of a listing that is no job; `more` are the cancel files and songs among them."""
        entries = tuple(_entry(seen) for seen in (*listing.others, *self._options(listing), *more))
        if entries == self._entries:
            return
        document = status.InboxStatus(
            schema=status.SCHEMA, seq=self._jobs.seq(), entries=entries, updated_at=self._jobs.now
        )
        if self._jobs.write(self._spool.status / INBOX, document):
            self._entries = entries

    def forget(self) -> None:
        """Have it written again: the status folder is another one."""
        self._entries = None

    def _options(self, listing: Listing) -> list[Seen]:
        """The option files that do not belong to a job."""
        songs = {companion(name, OPTIONS): name for name in listing.songs} if listing.options else {}
        told = []
        for seen in listing.options:
            name = songs.get(seen.name)
            if name is None:
                told.append(Seen(name=seen.name, kind=Kind.LONELY_OPTIONS, identity=seen.identity))
            elif not self._is_used(name, seen):
                told.append(Seen(name=seen.name, kind=Kind.LATE_OPTIONS, identity=seen.identity))
        return told

    def _is_used(self, name: str, seen: Seen) -> bool:
        """Whether the option file is, or will be, that of its song's job."""
        if self._jobs.waiting(name) is not None:
            return True
        job: Job | None = self._jobs.active.get(name) or self._jobs.kept.get(name)
        if job is None or job.state is State.WAITING:
            return True
        return job.options_file is not None and job.options_file.is_same_drop(seen.identity)


def _entry(seen: Seen) -> status.InboxEntry:
    raw = os.fsencode(seen.name)
    return status.InboxEntry(
        name=raw.decode("utf-8", "replace"), name_b64=base64.b64encode(raw).decode(), reason=seen.kind
    )
