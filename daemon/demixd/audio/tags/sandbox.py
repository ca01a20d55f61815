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

from demixd.audio.tags.values import NOTHING, Tags
from demixd.spool import child_process
from demixd.spool.files import open_song

PROGRAM = child_process.python("demixd.audio.tags")

LARGEST = 512 << 20
"""Bytes of address space. Python and mutagen take 60 MiB, and large tags four times their size."""

CPU_S = 3
LONGEST_S = 60.0
"""Seconds that this process is awake, for a disk that does not answer; CPU_S bounds those of the processor."""

TOO_LARGE = f"they take more than {LARGEST >> 20} MiB of memory"

BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""How the kernel ends the child where the machine has no memory, or somebody by hand: that says nothing of the song."""


def read(song: Path) -> Tags:
    """The tags of `song`, whose format is told by its content. Never raises.

    Of tags that are damaged, or hostile, those that can be read, at worst none, and a `warning`.
    """
    try:
        done = _run(song)
        if -done.returncode in BY_OTHERS:
            done = _run(song)
        if done.returncode == 0:
            return msgspec.msgpack.decode(done.stdout, type=Tags)
        reason = _reason(done)
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {LONGEST_S:.0f} s, as from a disk that does not answer"
    except (OSError, msgspec.DecodeError, ValueError) as error:
        reason = str(error)
    return msgspec.structs.replace(NOTHING, warning=f"The song's tags could not be read: {reason}.")


def _run(song: Path) -> "subprocess.CompletedProcess[bytes]":
    """The child, which has ended. Raises OSError, and TimeoutExpired."""
    pipe, environment = subprocess.PIPE, {**os.environ, **child_process.ONE_THREAD}
    # The child gets a descriptor: the path may lead through /proc/self/fd of this process.
    with (
        open_song(song) as file,
        subprocess.Popen(PROGRAM, stdin=file, stdout=pipe, stderr=pipe, env=environment) as child,
    ):
        try:
            said, complained = child_process.communicate(child, None, LONGEST_S)
        finally:
            child.kill()
    return subprocess.CompletedProcess(PROGRAM, child.returncode, said, complained)


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Why the child has not read them, as the end of a sentence."""
    if -done.returncode == signal.SIGXCPU:
        return f"they take more than {CPU_S} s of the processor"
    if -done.returncode in BY_OTHERS:
        return (
            f"the process that read them was killed twice ({signal.Signals(-done.returncode).name}); free some memory"
        )
    if done.returncode < 0:
        return f"they crash the process that reads them ({signal.Signals(-done.returncode).name})"
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return TOO_LARGE if last.startswith("MemoryError") else last[:200]


def limit() -> None:
    """Limit this process to LARGEST and CPU_S; the kernel writes no core file when it exceeds them."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    # The hard limit on the processor's time would be a SIGKILL, which is anybody's.
    for kind, most, last in (
        (resource.RLIMIT_AS, LARGEST, LARGEST),
        (resource.RLIMIT_CPU, CPU_S, CPU_S + 1),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            most, last = min(most, hard), min(last, hard)
        resource.setrlimit(kind, (most, last))
