"""What goes wrong with a song at another machine, or on its way there and back, as the supervisor has to hear it."""

from pathlib import Path

import msgspec
from ray.exceptions import RayError, RayTaskError

from demixd.errors import Code, disk_error
from demixd.protocol.job import Error
from demixd.spool.room import disk_of
from demixd.worker.messages import Ready
from demixd.worker.ray.far import GoneError

DISK = (Code.TOO_LARGE, Code.NO_SPACE, Code.IO_ERROR)


def on_its_way(error: Exception, host: str, root: Path) -> tuple[Error, bool]:
    """What `error` means, and whether it is the machine's: a disk is full, that of `root` here or that of `host`, or Ray has
    lost a piece.

    Raises GoneError where the folder is gone that the actor keeps songs in: then nothing more can be sent to it.
    """
    is_there, cause = isinstance(error, RayError), error.cause if isinstance(error, RayTaskError) else error
    detail = f"{type(error).__name__}: {error}"[-300:]
    if is_there and isinstance(cause, FileNotFoundError):
        raise GoneError(f"the folder of its songs on {host} is gone", is_lost=True, is_ours=True)
    if isinstance(cause, OSError):
        doing, disk = (f"the song on {host}", None) if is_there else (f"the song, which {host} has", disk_of(root))
        return Error.of(disk_error(cause, doing, disk)), is_there
    if is_there and cause is error:
        message = f"Ray has lost a part of the song on its way to or from {host} ({type(error).__name__})."
        return Error(code=Code.IO_ERROR, message=message, detail=detail, retryable=True), True
    message = f"The song could not be sent to {host} or back; report it."
    return Error(code=Code.INTERNAL_ERROR, message=message, detail=detail), False


def without_its_gpu(ready: Ready, host: str) -> Ready:
    """A worker that has been given a GPU, and computes with the processor, says why."""
    why = f"Ray has given it a GPU of {host}, and torch finds none there."
    return msgspec.structs.replace(ready, engine=msgspec.structs.replace(ready.engine, fallback=why))


def of_its_disk(error: Error, host: str) -> Error | None:
    """What a worker says of its own machine's disk, which is not the song's fault; None of all else."""
    if error.code not in DISK:
        return None
    return msgspec.structs.replace(error, message=f"On {host}: {error.message}", retryable=True)
