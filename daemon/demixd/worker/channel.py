"""Messages to the supervisor, a line each on standard output. What libraries print goes to standard error instead."""

import logging
import os
import threading
import traceback
from typing import BinaryIO

import msgspec

from demixd.errors import AudioProcessingError, Code, disk_error, is_out_of_memory, memory_error
from demixd.protocol.job import Error
from demixd.worker.messages import FromWorker

log = logging.getLogger("demixd.worker")

BROKEN_STATUS = 4
"""Exit status of a worker whose pipe to or from the supervisor is broken."""


class Channel:
    """The worker's standard output. Any thread may send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, message: FromWorker) -> None:
        """Send a message. Where that is not possible the process ends, which the supervisor notices."""
        with self._lock:
            try:
                self._file.write(msgspec.json.encode(message) + b"\n")
                self._file.flush()
            except OSError as error:
                log.error("the supervisor cannot be told: %s", error)
                os._exit(BROKEN_STATUS)


def described(error: Exception) -> Error:
    """An exception as the sidecar shows it. An unexpected one is an internal error, with its traceback in the log."""
    if isinstance(error, AudioProcessingError):
        return Error.of(error)
    log.error("".join(traceback.format_exception(error)))
    if is_out_of_memory(error):
        return Error.of(memory_error(error, "the work"))
    if isinstance(error, OSError):
        return Error.of(disk_error(error, "the work"))
    return Error(
        code=Code.INTERNAL_ERROR,
        message="Something went wrong that we did not foresee; the daemon's log has the details. Please report it.",
        detail=f"{type(error).__name__}: {error}",
    )
