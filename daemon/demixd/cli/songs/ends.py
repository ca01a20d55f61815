"""`demixd follow`: the list of ends as it grows, a line of JSON each; with every change of state where that is asked for."""

import time
from contextlib import closing

import msgspec

from demixd.cli.console import require_reader, say
from demixd.cli.status.notice import complain_if_absent
from demixd.client import text
from demixd.client.ends import EndReader, last_end
from demixd.client.reader import StatusReader, pause
from demixd.spool.tree import Spool

POLL_S = 0.5


def follow(spool: Spool, since: int | None, *, everything: bool) -> None:
    """Print each end after number `since`, or from now on, until Ctrl-C. Raises OSError where the list cannot be read.

    `everything`: also each other state that a song is seen in from now on. One that it leaves between two looks is not.
    """
    states = _States(spool) if everything else None
    with closing(EndReader(spool, last_end(spool) if since is None else since)) as reader:
        complain_if_absent(spool)
        while True:
            began = time.monotonic()
            for end, line in reader.read():
                say(text.as_json(msgspec.json.decode(line)))
                if states is not None:
                    states.over(end.job_id)
            if states is not None:
                states.tell()
            require_reader()
            pause(began, POLL_S)


class _States:
    """The states of songs that have not ended, as last seen."""

    def __init__(self, spool: Spool) -> None:
        self._reader = StatusReader(spool)
        self._reader.refresh()
        self._seen = {song.job_id: (song.state, song.reason) for song in self._reader.songs if not song.ended}
        self._over: set[str] = set()

    def over(self, job_id: str) -> None:
        """This song's end is told: its sidecar may have been read before."""
        self._over.add(job_id)

    def tell(self) -> None:
        """Print each song that is in another state than before."""
        self._reader.refresh()
        now = {song.job_id: song for song in self._reader.songs if not song.ended and song.job_id not in self._over}
        for job_id, song in now.items():
            if self._seen.get(job_id) != (song.state, song.reason):
                say(text.as_json(msgspec.to_builtins(song)))
        self._seen = {job_id: (song.state, song.reason) for job_id, song in now.items()}
        self._over.clear()
