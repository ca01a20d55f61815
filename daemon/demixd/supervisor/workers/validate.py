"""What a worker says that parses and still cannot be true. Pure.

The worker has codecs and a driver in its process, and whatever they do to its memory it says next. So nothing that it
says is believed that would not be possible: a rate of 0 is divided by, a name with `..` leads out of the work folder.
"""

from demixd.protocol.job import Job, StemFile, Tick
from demixd.protocol.result_names import MANIFEST, ONE_FILE
from demixd.protocol.track import RATES, Track
from demixd.worker.messages import Decoded, Finished, FromWorker, Progressed, Stopped

LARGEST = 1 << 53
"""Frames, bytes: up to here every whole number is one in JSON as others read it."""

LONGEST_S = 86_400.0
"""No segment takes a day; and how long the next one may take is 20 times that of the others."""

CHANNELS = 1024
"""As many as libsndfile knows."""


def doubt(message: FromWorker) -> str | None:
    """Why a message cannot be true whichever job it is about; None where it can."""
    match message:
        case Decoded(track=track) if not _is_track(track):
            return "a track that no song has"
        case Progressed(at=at) if not _is_tick(at):
            return "progress that no song makes"
        case Finished(files=files) if not all(_is_file(file) for file in files):
            return "a stem that no file is"
    return None


def doubt_of(message: FromWorker, job: Job, *, is_stopped: bool) -> str | None:
    """Why a message about `job`, which is at the worker, cannot be true; None where it can."""
    match message:
        case Stopped() if not is_stopped:
            return "it stopped a song that nobody stopped"
        case Finished() if job.track is None:
            return "it finished a song that it had not decoded"
        case Finished(files=files) if sorted(file.stem for file in files) != _ordered(job):
            return "it finished other stems than it was asked for"
        case Finished(files=files) if len({file.name for file in files}) < len(files):
            return "it gave two stems one name"
    return None


def _ordered(job: Job) -> list[str]:
    """What its files are stems of."""
    return [ONE_FILE] if job.options.naming == ONE_FILE else sorted(job.options.stems)


def _is_track(track: Track) -> bool:
    return (
        track.rate in RATES
        and 1 <= track.frames <= LARGEST
        and track.channels in (1, 2)
        and 1 <= track.song_channels <= CHANNELS
        and (track.bitrate is None or 0 <= track.bitrate <= LARGEST)
    )


def _is_tick(at: Tick) -> bool:
    return (
        0 <= at.fraction <= 1
        and 0 <= at.step_fraction <= 1
        and (at.eta_s is None or at.eta_s >= 0)
        and (at.speed_x is None or at.speed_x >= 0)
        and (at.segment_s is None or 0 <= at.segment_s <= LONGEST_S)
    )


def _is_file(file: StemFile) -> bool:
    parts = file.name.split("/")
    return (
        not {"", ".", "..", MANIFEST} & set(parts)
        and "\0" not in file.name
        and 1 <= file.frames <= LARGEST
        and file.rate in RATES
        and file.channels in (1, 2)
        and 1 <= file.bytes <= LARGEST
    )
