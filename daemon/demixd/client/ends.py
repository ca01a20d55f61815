"""Reading status/_ends.jsonl, the list of ends, as it grows: each end once, in the order of their numbers.

The daemon appends to the list, and replaces it by one from which old lines are gone. Others may write there as well: what is
no line of the daemon's is passed over, and so is a number that the daemon has not reached. The heartbeat tells how far it is,
since all its numbers grow together: a line with a higher one is looked at again once the heartbeat is another, and is forged
where that is lower still.
"""

import contextlib
import errno
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

NO_LIST = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR)
"""What the kernel says of a list that is not there, or has a link, a socket or a folder in its place."""

HIGHEST = 1 << 52
"""A million starts: a higher number is nobody's."""


class EndReader:
    """The ends with numbers above `last`, which is that of the end that came last."""

    def __init__(self, spool: Spool, last: int) -> None:
        self._spool, self.last = spool, last
        self._file: BinaryIO | None = None
        self._doubted: int | None = None
        """The heartbeat's number when a higher one was met."""
        self._heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[tuple[End, bytes]]:
        """Each end that has come, and its line. Raises OSError where the list is there and cannot be read."""
        reached = self._reached()
        if self.last > reached and self._is_wrong(reached):
            # Forged, or of a daemon whose ledger and status are lost: go on with what this daemon has told since its start.
            self.last = reached >> STARTS << STARTS
            self.close()
        is_another = self._is_another()
        if is_another and self._file is not None:
            yield from self._read(self._file, reached)  # what came just before the list was replaced
        if is_another:
            self._open()
        if self._file is not None:
            yield from self._read(self._file, reached)

    def _reached(self) -> int:
        """The number that the daemon has reached, by its heartbeat; 0 before the first one."""
        daemon = self._heartbeat.refresh()
        return daemon.seq if daemon is not None and 0 < daemon.seq < HIGHEST else 0

    def _is_wrong(self, reached: int) -> bool:
        """Whether a number above that of the heartbeat cannot be true: the heartbeat is another than when it was met first."""
        if self._doubted and self._doubted != reached:
            self._doubted = None
            return True
        self._doubted = reached
        return False

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
        except OSError as error:
            if error.errno not in NO_LIST:
                raise
            return
        file = os.fdopen(handle, "rb")
        if stat.S_ISREG(os.fstat(handle).st_mode):
            self._file = file
        else:
            file.close()

    def _read(self, file: BinaryIO, reached: int) -> Iterator[tuple[End, bytes]]:
        while line := file.readline(documents.LARGEST):
            if not line.endswith(b"\n") and len(line) < documents.LARGEST:
                file.seek(-len(line), os.SEEK_CUR)  # it is being written
                return
            end = _end(line)
            if end is None or end.end <= self.last:
                continue
            if end.end > reached:
                reached = self._reached()  # a heartbeat that was read after the line
            if end.end > reached and not self._is_wrong(reached):
                file.seek(-len(line), os.SEEK_CUR)  # until the next heartbeat
                return
            if end.end <= reached:
                self.last, self._doubted = end.end, None
                yield end, line


def last_end(spool: Spool) -> int:
    """The number of the last end that the daemon has told; 0 where there is none. Raises OSError."""
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
