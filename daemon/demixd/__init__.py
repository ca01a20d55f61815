"""demixd: drop a song into a folder, get its stems in another.

cli -> service -> inbox, worker -> pipeline -> steps -> engine -> spool, status, ledger, config, notify -> job, errors

service     the supervisor's life: startup, main loop, shutdown; it never imports torch
inbox/      what lies in the inbox, and how far the kernel's word on it goes
intake      from songs in the inbox to jobs; `options` of each, `cancels`, and `leftovers` that are no job
jobs        the jobs that wait or run; `line` is their order, `turns` whose turn it is
runner      the jobs in flight, and what is done `ahead` for the next; `flight` is one job's way through the ten points of the
            protocol: `capture`, the worker, `publishing`, `landing`, `ending`
recovery    after a crash; `rebuild` after a lost ledger; `places` and `locks` say whether the folders are there and ours
worker/     the child process with the warm model, and the supervisor's end of it
pipeline    decode, separate, mix, encode: one song, in the worker or by `separate_audio`; `stems` are written all at once
formats     what stems can be; `containers` and `signatures` what a song is; `sndfile` and ffmpeg/ read and write them
tags/       what a song says of itself, and `dress` has its stems say
spool       the folders and names that other programs see; `status` what they read there; `documents` reads it safely
commands/   what `cli` does by files alone
bench/      demixd against Demucs, measured
"""

from typing import TYPE_CHECKING

from demixd.errors import AudioProcessingError, StopProcessingError
from demixd.version import __version__

if TYPE_CHECKING:
    from demixd.api import separate_audio

__all__ = ["AudioProcessingError", "StopProcessingError", "__version__", "separate_audio"]


def __getattr__(name: str) -> object:
    """`separate_audio` brings torch with it, which `demixd status` and its like must not load."""
    if name != "separate_audio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from demixd.api import separate_audio

    return separate_audio
