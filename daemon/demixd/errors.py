"""Errors, each with a stable code, grouped by whose fault it is. Pure.

Other programs read the code in the sidecar's `error.code`; the list is closed, and config/PROTOCOL.md documents it. A song
that is cancelled or stopped has no error: `StopProcessingError` has no code.
"""

import errno
from enum import StrEnum


class Code(StrEnum):
    """The stable name of an error: first those of the song, then of the user, of the machine, and of the program."""

    BAD_AUDIO = "bad-audio"
    TRUNCATED = "truncated"
    NOT_FINITE = "not-finite"
    TOO_LONG = "too-long"
    TOO_LARGE = "too-large"

    BAD_OPTIONS = "bad-options"

    NO_SPACE = "no-space"
    OUTBOX_MISSING = "outbox-missing"
    MODEL_MISSING = "model-missing"
    BAD_MODEL = "bad-model"
    IO_ERROR = "io-error"

    GAVE_UP = "gave-up"
    BAD_OUTPUT = "bad-output"
    INTERNAL_ERROR = "internal-error"


RETRYABLE = frozenset(
    {
        Code.TRUNCATED,
        Code.NO_SPACE,
        Code.OUTBOX_MISSING,
        Code.MODEL_MISSING,
        Code.BAD_MODEL,
        Code.IO_ERROR,
        Code.GAVE_UP,
    }
)
"""Codes after which the same song with the same options can succeed when it is dropped again."""


class AudioProcessingError(Exception):
    """A song could not be separated.

    `message` is one sentence for users, with the thing that failed and a remedy; `detail` is for developers.
    """

    def __init__(self, code: Code, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


class DeviceLostError(AudioProcessingError):
    """The GPU does not answer any more in this process; a new process can use it again."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL_ERROR, message)


class ModelTooLargeError(Exception):
    """The GPU's memory is too small for a model; a smaller model, or the CPU, may do."""


class StopProcessingError(Exception):
    """The work was stopped, by a cancel or by the end of the process."""


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key, the file and the reason. Exit status 78."""


class StateError(Exception):
    """The ledger cannot be written or read, and nothing may be done that it does not record. Exit status 1."""


class ProtocolError(Exception):
    """The other process sent a message that is not in the protocol: a bug of ours."""


def disk_code(error: OSError) -> Code:
    """NO_SPACE for a full disk or quota, which the job can wait for; IO_ERROR for any other error."""
    return Code.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.IO_ERROR


def disk_error(error: OSError, doing: str, disk: object = None) -> AudioProcessingError:
    """An error of the operating system as one of ours; `doing` names the work that failed.

    `disk` is the folder whose disk it was, where the error does not name one itself.
    """
    if is_out_of_memory(error):
        return memory_error(error, doing)
    named = str(error.filename or "")
    place = disk if not named or named.startswith("/proc/") else named  # an open folder's path
    of = f" of {place}" if place else ""
    if disk_code(error) is Code.NO_SPACE:
        where = f" on the disk{of}" if of else ""
        return AudioProcessingError(Code.NO_SPACE, f"There is no space left for {doing}{where}; free some.", str(error))
    return AudioProcessingError(
        Code.IO_ERROR, f"The disk{of} failed at {doing}: {error.strerror or error}.", str(error)
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine refused memory: the system says ENOMEM, Python and NumPy MemoryError.

    torch, and Python where a thread gets no stack, say it in words alone.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("DefaultCPUAllocator: can't allocate memory", "can't start new thread")
    return isinstance(error, MemoryError) or any(each in str(error) for each in words)


def memory_error(error: Exception, doing: str) -> AudioProcessingError:
    """An error of which `is_out_of_memory` is true as one of ours."""
    message = f"There is no memory left for {doing}; free some, or set [limits] memory_bytes lower."
    return AudioProcessingError(Code.IO_ERROR, message, str(error))


class RefusedError(Exception):
    """A command cannot do what it was asked for. The message is a sentence that names the thing and the remedy."""


class BadWordError(RefusedError):
    """A word of the command line is wrong whatever the files are like. Exit status 2."""
