"""Messages of a worker that decode and still cannot be true. Pure.

A worker has codecs and a driver in its process; after they have damaged its memory it can say anything. Numbers outside
their bounds are refused by the types (`protocol/track.py`, `protocol/job.py`). Here are the names of files, which must not
lead out of the work folder, and what only the job tells.
"""

from demixd.protocol.job import Job
from demixd.protocol.result_names import MANIFEST, ONE_FILE
from demixd.worker.messages import Finished, FromWorker, Stopped


def doubt(message: FromWorker) -> str | None:
    """Why a message cannot be true whichever job it is about; None where it can."""
    if isinstance(message, Finished) and not all(_lies_in_its_folder(file.name) for file in message.all_files):
        return "a file that does not lie in its folder"
    return None


def doubt_of(message: FromWorker, job: Job, *, is_stopped: bool) -> str | None:
    """Why a message about `job`, which the worker has, cannot be true; None where it can."""
    match message:
        case Stopped() if not is_stopped:
            return "it stopped a song that nobody stopped"
        case Finished() if job.track is None:
            return "it finished a song that it had not decoded"
        case Finished(files=files) if sorted(file.stem for file in files) != _stems_of(job):
            return "it finished other stems than it was asked for"
        case Finished(all_files=files) if len({file.name for file in files}) < len(files):
            return "it gave two files one name"
    return None


def _stems_of(job: Job) -> list[str]:
    """The stems of the files that the job asks for, in order."""
    return [ONE_FILE] if job.options.naming == ONE_FILE else sorted(job.options.stems)


def _lies_in_its_folder(name: str) -> bool:
    return not {"", ".", "..", MANIFEST} & set(name.split("/")) and "\0" not in name
