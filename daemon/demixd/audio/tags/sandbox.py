"""Reading a song's tags in a process of its own, which may use so much memory and time and no more.

A song can come from anybody. mutagen takes sizes and counts from the file: 1 MB of a compressed ID3 frame become 1 GB,
a picture of an MP4 can make it go round for ever (a `name` of no length in `covr`), and a tag of many small frames is
copied once for each. None of it is an error that could be caught. So the kernel holds the limits, and a song that
passes them has no tags. It costs a start of Python, about 0.2 s.
"""

import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from demixd.audio.tags.values import NOTHING, Found, Tags, together

PROGRAM = [sys.executable, "-P", "-m", "demixd.audio.tags"]

LARGEST = 512 << 20
"""Bytes of memory, of which Python and mutagen take 60 MiB, and large tags four times their size."""

CPU_S = 3
LONGEST_S = 60
"""For a disk that does not answer, or a machine that does much else; the processor's time is bounded already."""


def read(song: Path, *, fallback: Mapping[str, str] = {}) -> Tags:
    """What `song` says of itself, known by its content whatever its name is. Never raises.

    Tags that are damaged, or hostile, give what could be read of them, at worst nothing, and a `warning`. `fallback`
    are texts that FFmpeg found; they count where there are none that we can read (a Matroska's).
    """
    tags = _asked(song)
    if tags.texts or not fallback:
        return tags
    said = together([Found(texts=list(fallback.items()))])
    return msgspec.structs.replace(said, covers=tags.covers, warning=tags.warning or said.warning)


def _asked(song: Path) -> Tags:
    try:
        # As a descriptor: the path may lead through one of this process's own.
        with song.open("rb") as file:
            done = subprocess.run(PROGRAM, stdin=file, capture_output=True, timeout=LONGEST_S, check=False)
        if done.returncode == 0:
            return msgspec.msgpack.decode(done.stdout, type=Tags)
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        reason = last if done.returncode > 0 else f"they took more than {CPU_S} s or {LARGEST >> 20} MiB"
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError, ValueError) as error:
        reason = str(error)
    return msgspec.structs.replace(NOTHING, warning=f"The song's tags could not be read: {reason}.")


def limit() -> None:
    """Holds this process to LARGEST and CPU_S, without a core file for passing them."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    for kind, most in ((resource.RLIMIT_AS, LARGEST), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, soft))
