"""What can go wrong, each with a stable code and a word on whose fault it is.

Codes travel to other programs in the sidecar's `error.code`; the list is closed, and config/PROTOCOL.md documents it.
Cancelled and stopped are not errors: they leave the pipeline as exceptions of their own.
"""

import errno
from enum import StrEnum


class Code(StrEnum):
    """The stable name of an error. The song's fault, the user's, the machine's, then ours."""

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
"""Codes for which dropping the same song again can succeed without changing the song or the options."""


class AudioProcessingError(Exception):
    """A song could not be separated.

    `message` is one sentence for people that names the thing and the remedy; `detail` is for whoever debugs it.
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
    """The GPU does not answer any more, and will not in this process: only a new one can have it again."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL_ERROR, message)


class ModelTooLargeError(Exception):
    """The GPU's memory does not hold a model; another, or the CPU, may do."""


class StopProcessingError(Exception):
    """The work was asked to stop: a cancel, or the end of the process. Nobody's fault."""


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key, the file and the reason. Exit status 78."""


class StateError(Exception):
    """The ledger cannot be written or read just now, and nothing may be done that it does not know of. Exit status 1."""


class ProtocolError(Exception):
    """The other process said something that is not in the protocol: a bug of ours."""


def disk_error(error: OSError, doing: str) -> AudioProcessingError:
    """Ours for the operating system's: a full disk (or quota) is something to wait for, the rest is not."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AudioProcessingError(Code.NO_SPACE, f"There is no space left for {doing}; free some.", str(error))
    return AudioProcessingError(Code.IO_ERROR, f"The disk failed at {doing}: {error.strerror or error}.", str(error))
