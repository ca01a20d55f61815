"""Reading a song's tags in a process of its own, under limits on memory and time.

A song can come from anybody. mutagen takes sizes and counts from the file: 1 MB of a compressed ID3 frame become 1 GB,
a picture of an MP4 can make it loop for ever (a `name` of no length in `covr`), and a tag of many small frames is
copied once for each. None of that is an error that could be caught. So the kernel enforces the limits, and a song that
exceeds them has no tags. It costs a start of Python, about 0.2 s.
"""

import os
import resource
import signal
import subprocess
from pathlib import Path

import msgspec

from demixd import child_process
from demixd.audio.tags.values import NOTHING, Tags
from demixd.spool.files import open_song

PROGRAM = child_process.python("demixd.audio.tags")

LARGEST = 512 << 20
"""Bytes of address space. Python and mutagen take 60 MiB, and large tags four times their size."""

CPU_S = 3
LONGEST_S = 60
"""Seconds of real time, for a disk that does not answer; CPU_S bounds those of the processor."""


def read(song: Path) -> Tags:
    """The tags of `song`, whose format is told by its content. Never raises.

    Of tags that are damaged, or hostile, those that can be read, at worst none, and a `warning`.
    """
    environment = {**os.environ, **child_process.ONE_THREAD}
    try:
        # The child gets a descriptor: the path may lead through /proc/self/fd of this process.
        with open_song(song) as file:
            done = subprocess.run(
                PROGRAM, stdin=file, capture_output=True, timeout=LONGEST_S, check=False, env=environment
            )
        if done.returncode == 0:
            return msgspec.msgpack.decode(done.stdout, type=Tags)
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        reason = last if done.returncode > 0 else f"they took more than {CPU_S} s or {LARGEST >> 20} MiB"
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError, ValueError) as error:
        reason = str(error)
    return msgspec.structs.replace(NOTHING, warning=f"The song's tags could not be read: {reason}.")


def limit() -> None:
    """Limit this process to LARGEST and CPU_S; the kernel writes no core file when it exceeds them."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    for kind, most in ((resource.RLIMIT_AS, LARGEST), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, soft))
