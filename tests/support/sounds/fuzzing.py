"""What is thrown at the code that reads what others write.

Each target takes bytes and says nothing, or raises: then that input is a fault. tests/system/hostile/test_fuzz.py runs them, by
hypothesis in its own process and by atheris (guided.py) in one for each; both show the input that fails.
"""

import io
import json
import os
from collections.abc import Callable

import msgspec

from demixd import config
from demixd.audio.containers import detect, edges, mpeg, ogg, signatures
from demixd.config import Config
from demixd.errors import AudioProcessingError, Code, ConfigError
from demixd.protocol import options, result_names, status
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import kind_of_file, kind_of_folder
from demixd.protocol.job import Job, State, move
from demixd.protocol.progress import Step
from demixd.protocol.result_names import numbered
from demixd.spool.tree import CANCEL, OPTIONS, SIDECAR, companion
from demixd.supervisor.workers import line
from demixd.worker import messages

DEFAULTS = Config()


def fuzz_options(data: bytes) -> None:
    """An option file is options or `bad-options`, in one sentence."""
    try:
        chosen = options.parse(data)
        DEFAULTS.options_of("folder/song.wav", chosen, lambda _: True)
    except AudioProcessingError as error:
        assert error.code is Code.BAD_OPTIONS
        assert error.message
        error.message.encode()


def fuzz_config(data: bytes) -> None:
    """A configuration is one or a ConfigError that names its file."""
    text = data.decode("utf-8", "replace")
    try:
        config.check(config.parse(text, "WHERE"), "WHERE")
    except ConfigError as error:
        assert str(error).startswith("WHERE")


FORMATS = {"wav", "aiff", "flac", "ogg", "mp3", "mp4", "mpegts", *(name for _, name, _ in signatures.FIRST)}


def fuzz_containers(data: bytes) -> None:
    """Every file is a container of a known format, or none."""
    found = detect.container_of(io.BytesIO(data))
    if found is not None:
        assert found.format in FORMATS
        assert found.start <= len(data) + (1 << 24) + 4  # of a FLAC whose last block of metadata is cut
        assert found.stop is None or 0 < found.stop <= len(data)
        for channels in range(1, 10):
            found.layout(channels)


def fuzz_edges(data: bytes) -> None:
    """A song begins behind its tags, and it ends in its file."""
    file = io.BytesIO(data)
    assert edges.behind_tags(file) >= 0
    assert edges.before_tags(file, zeros=True) <= edges.before_tags(file, zeros=False) <= len(data)


def fuzz_mpeg(data: bytes) -> None:
    """The first frame lies in the file, and another one behind it; what its Info frame says is a number, or nothing."""
    file = io.BytesIO(data)
    first = mpeg.first_frame(file)
    if first is None:
        return
    head = mpeg.header(data[first : first + 4])
    assert head is not None
    assert head.size > 4
    assert mpeg.header(data[first + head.size : first + head.size + 4]) is not None
    told = mpeg.announced(file, first)
    assert told is None or 0 < told < 1 << 32


def fuzz_ogg(data: bytes) -> None:
    """Pages follow each other without a gap, and one with another number is intact."""
    end = 0
    for page in ogg.pages(io.BytesIO(data)):
        assert page.at == end
        end += len(page.data)
        again = ogg.renumbered(page.data, 7)
        assert ogg.Page(at=0, data=again).intact
        assert len(again) == len(page.data)
    assert end <= len(data)


def fuzz_messages(data: bytes) -> None:
    """A line is a message that can be true, or a reason; what can be true fits into a sidecar that parses."""
    message = line._understood(data)
    if isinstance(message, str):
        return
    assert msgspec.json.decode(msgspec.json.encode(message), type=messages.FromWorker) == message
    job = _job()
    if isinstance(message, messages.Decoded):
        job = msgspec.structs.replace(job, track=message.track)
    elif isinstance(message, messages.Progressed):
        job = move(job, State.RUNNING, at="", step=message.at.step, progress=message.at.progress)
    elif isinstance(message, messages.Failed):
        job = msgspec.structs.replace(job, error=message.error, timing=message.timing)
    daemon = status.DaemonFacts(instance="", version="")
    shown = json.loads(status.encode(status.sidecar(job, seq=1, position=None, eta_s=None, daemon=daemon, now="")))
    assert 0 <= shown["progress"]["fraction"] <= 1


def fuzz_names(data: bytes) -> None:
    """Whatever is called so has one kind, companions that fit beside it, and a result that stays where it belongs."""
    leaf = os.fsdecode(data.replace(b"\0", b"").replace(b"/", b"")[:255])
    if leaf in ("", ".", ".."):
        return
    kind_of_file(leaf)
    kind_of_folder(leaf)
    for suffix in (SIDECAR, CANCEL, OPTIONS):
        path = companion(f"folder/{leaf}", suffix)
        assert path.startswith("folder/")
        assert path.endswith(suffix)
        assert path.count("/") == 1
        assert len(os.fsencode(path.partition("/")[2])) <= 255
    for number in (1, 2, 10**6):
        assert len(os.fsencode(numbered(leaf, number))) <= 255
    shown = os.fsencode(leaf).decode("utf-8", "replace")
    for name in (
        result_names.folder_name(shown),
        result_names.file_name("{song} - {stem}.{ext}", stem=shown, ext="wav", model=shown, leaf=shown),
    ):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name
        assert len(name.encode()) <= 255


TARGETS: dict[str, Callable[[bytes], None]] = {
    "options": fuzz_options,
    "config": fuzz_config,
    "containers": fuzz_containers,
    "edges": fuzz_edges,
    "mpeg": fuzz_mpeg,
    "ogg": fuzz_ogg,
    "messages": fuzz_messages,
    "names": fuzz_names,
}


def _job() -> Job:
    return Job(
        job_id="0" * 32,
        raw_name=b"song.wav",
        identity=Identity(device=0, inode=0, size=1, mtime_ns=0, ctime_ns=0),
        options=DEFAULTS.options,
        max_attempts=3,
        state=State.RUNNING,
        reason=None,
        step=Step.DECODE,
    )
