"""demixd: drop a song into a folder, get its stems in another. This is the map.

Four programs over six libraries; a folder is a process or a library, and imports only from those to its right:

    cli -> web -> supervisor -> worker -> pipeline -> engine -> audio -> client -> spool -> config -> protocol -> errors

cli/          what people type: check, status, submit, cancel, hooks, models, bench, the tour; files alone, no other process
web/          the page: a server and what it serves; files alone, no other process
supervisor/   the daemon's process, one loop that decides: `service` is its life, `heartbeat` its signs of life
    inbox/    what lies in the inbox, whether it is ready, and which job it becomes
    jobs/     every job there is: the table, the queue and its times, results that are there already, old sidecars, a lost ledger
    runs/     one job from its turn to its end: `run` goes the way, `outcomes` decides what an obstacle costs, `ending` ends it
    workers/  the parent's end of worker processes: a `pool` of them, one for each device, here or in a cluster
worker/       the child: the warm model, the songs it is given, and the messages that both sides speak
    ray/      workers on other machines: the child that speaks to a cluster, and the actors, each of which has a worker
pipeline/     one song: decode, separate, mix, encode
engine/       the model, from its files to a warm network on a device
audio/        formats, codecs, containers, tags, measures; knows no job
client/       what any program can do that knows nothing but the files: read, say in words, drop, cancel, bring back
spool/        the share on disk: the tree, and reading, writing and renaming in it without links or loss
protocol/     what is said in files, as types and names; pure
    pages/    pages that are files: a player beside a result, the status

`api` is `separate_audio`: one song in the caller's process, by the same pipeline; `demixd separate` too.
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
