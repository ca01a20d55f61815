"""What libsndfile and FFmpeg write a stem to."""

import os
from collections.abc import Callable
from pathlib import Path


class NotWritableError(Exception):
    """The library will not write this; its words are the text."""


class Sink:
    """A new file.

    soundfile and av lose exceptions raised under their libraries, and libsndfile goes on after a short write. So the first
    OSError is kept, everything after it is dropped, and `complain` raises it.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._file = path.open("xb", buffering=0)  # never what a link points to
        self._error: OSError | None = None

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._kept(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._kept(self._file.tell)

    def _kept(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except OSError as error:
            self._error = self._error or error
            return -1

    def complain(self) -> None:
        if self._error:
            raise self._error
