"""Reading status/_ends.jsonl, the list of ends, as it grows: each end once, in the order of their numbers.

The daemon appends to the list, and replaces it by one from which old lines are gone. Others may write there as well: what is
no line of the daemon's is passed over, and so is a number that no daemon has reached. That is told by the heartbeat, which
has the number of the daemon's starts in its upper half, as each end has.
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from demixd.client.reader import CachedDocument
from demixd.protocol.status import DaemonStatus, End
from demixd.spool import documents, nofollow
from demixd.spool.tree import DAEMON, ENDS, Spool

STARTS = 32
"""Bits of a number below those that count the daemon's starts."""


class EndReader:
    """The ends with numbers above `last`, which is that of the end that came last."""

    def __init__(self, spool: Spool, last: int) -> None:
        self._spool, self.last = spool, last
        self._file: BinaryIO | None = None
        self._heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[tuple[End, bytes]]:
        """Each end that has come, and its line. Raises OSError where the list is there and cannot be read."""
        is_another = self._is_another()
        if is_another and self._file is not None:
            yield from self._read(self._file)  # what came just before the list was replaced
        if is_another:
            self._open()
        if self._file is not None:
            yield from self._read(self._file)

    def _is_another(self) -> bool:
        """Whether the list is not the open file any more, or was cut short."""
        if self._file is None:
            return True
        try:
            now = (self._spool.status / ENDS).lstat()
        except OSError:
            return True
        return not os.path.samestat(now, os.fstat(self._file.fileno())) or now.st_size < self._file.tell()

    def _open(self) -> None:
        self.close()
        try:
            handle = nofollow.read_file(self._spool.status, self._spool.status / ENDS)
        except FileNotFoundError:
            return
        file = os.fdopen(handle, "rb")
        if stat.S_ISREG(os.fstat(handle).st_mode):
            self._file = file
        else:
            file.close()

    def _read(self, file: BinaryIO) -> Iterator[tuple[End, bytes]]:
        while line := file.readline(documents.LARGEST):
            if not line.endswith(b"\n") and len(line) < documents.LARGEST:
                file.seek(-len(line), os.SEEK_CUR)  # it is being written
                return
            end = _end(line)
            if end is not None and self.last < end.end and self._is_reached(end.end):
                self.last = end.end
                yield end, line

    def _is_reached(self, number: int) -> bool:
        daemon = self._heartbeat.refresh()
        return daemon is not None and number >> STARTS <= daemon.seq >> STARTS


def last_end(spool: Spool) -> int:
    """The number of the last end there is; 0 where there is none. Raises OSError."""
    reader = EndReader(spool, 0)
    with contextlib.closing(reader):
        deque(reader.read(), maxlen=0)
    return reader.last


def _end(line: bytes) -> End | None:
    try:
        end = msgspec.json.decode(line, type=End)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return end if end.ended else None
