"""Stem files: one `.stem.mp4` with a song and its four stems, which DJ programs mix (Native Instruments Stems).

    ftyp  free  mdat                         the five streams' packets in turn, exactly as they were encoded
    moov
      mvhd                                   the movie's clock ticks once a frame, so that edit lists stay exact
      trak x 5  edts/elst  mdia              master (enabled), drums, bass, other, vocals (disabled)
      udta
        meta/ilst                            tags, written later (audio/tags)
        stem                                 JSON: names and colors of the four, and effects on the master bus

- Packets are copied, not encoded again: each stream decodes to exactly the samples of its own file. Its edit list says
  where a player starts and ends; at FFmpeg's usual 1000 ticks a second, the end would be up to a millisecond off.
- An ordinary player plays the one enabled track. All five are in one alternate group, so it never plays two at once.
- FFmpeg writes `moov` last and `udta` last in it. So the atom is appended, and the two sizes above it grow; no byte
  moves, and no chunk offset changes. The same input gives the same bytes.

The atom is as NI's Stem Creator writes it and Mixxx reads it (src/track/steminfoimporter.cpp); its colors are Okabe
and Ito's, which color-blind people can tell apart. Compressor and limiter are in it, and off.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import av
import msgspec
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from demixd.audio.containers.mp4 import Box, walk
from demixd.spool.files import open_own

NAMES = ("Drums", "Bass", "Other", "Vocals")

COLORS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")

MASTERING = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "threshold": 0,
        "dry_wet": 50,
        "attack": 0.003,
        "release": 0.3,
        "ratio": 3,
        "hp_cutoff": 300,
    },
    "limiter": {"enabled": False, "threshold": 0, "ceiling": -0.35, "release": 0.05},
}

CODECS = ("aac", "alac")

MOOV, UDTA, STEM = b"moov", b"udta", b"stem"

LARGEST = 1 << 16
"""Bytes of JSON that are read; real atoms have some 500."""

BUFFER = 1 << 18
"""Bytes of FFmpeg's buffer for each call of Python's read or write."""


def write(path: Path, streams: Sequence[Path], *, names: Sequence[str] = NAMES) -> None:
    """Make a new file at `path` of five finished `.m4a` files: the master, then the stems that `names` names.

    All five must have the same codec (AAC or ALAC), rate and channels, else ValueError. Raises OSError. After an error the
    file at `path` is not to be used; it is never synced here.
    """
    if len(streams) != 1 + len(COLORS) or len(names) != len(COLORS):
        raise ValueError(f"A stem file has 5 streams and 4 names, not {len(streams)} and {len(names)}")
    stems = [{"name": name, "color": color} for name, color in zip(names, COLORS, strict=True)]
    with open_own(path, "x+b") as file:
        _remux(file, streams)
        _append(file, msgspec.json.encode({"mastering_dsp": MASTERING, "stems": stems, "version": 1}))


def atom(path: Path) -> dict[str, Any] | None:
    """The stem atom of a file; None where there is none, or none that is a JSON object. Raises OSError."""
    with open_own(path, "rb") as file:
        box = _find(file, MOOV, UDTA, STEM)
        if box is None or box.stop - box.content > LARGEST:
            return None
        file.seek(box.content)
        data = file.read(box.stop - box.content)
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _remux(file: BinaryIO, paths: Sequence[Path]) -> None:
    """Copy the packets of the audio stream of each file. Python opens the files, so that an OSError keeps its number."""
    try:
        with ExitStack() as stack:
            inputs = [_audio(stack, path) for path in paths]
            kinds = {(each.codec_context.name, each.rate, each.channels) for _, each in inputs}
            if len(kinds) != 1:
                raise ValueError(f"The streams of a stem file must be alike: {sorted(kinds)}")
            options = {"fflags": "+bitexact", "movie_timescale": str(inputs[0][1].rate)}
            output = stack.enter_context(av.open(file, "w", format="mp4", options=options, buffer_size=BUFFER))
            tracks = [output.add_stream_from_template(each) for _, each in inputs]
            tracks[0].disposition = Disposition.default
            for packets in zip_longest(*(container.demux(each) for container, each in inputs)):
                for packet, track in zip(packets, tracks, strict=True):
                    if (
                        packet is not None and packet.dts is not None
                    ):  # the last packet of each stream is an empty one, a flush
                        packet.stream = track
                        output.mux(packet)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"The streams cannot be put into one file: {error}") from error


def _audio(stack: ExitStack, path: Path) -> tuple[InputContainer, AudioStream]:
    """A file and its one audio stream; a cover, which FFmpeg shows as a video stream, is not copied."""
    file = stack.enter_context(open_own(path, "rb"))
    container = stack.enter_context(av.open(file, "r", format="mp4", buffer_size=BUFFER))
    if len(container.streams.audio) != 1:
        raise ValueError(f"{path.name} has {len(container.streams.audio)} audio streams, not one")
    stream = container.streams.audio[0]
    if stream.codec_context.name not in CODECS:
        raise ValueError(f"{path.name} is {stream.codec_context.name}, not one of {', '.join(CODECS)}")
    return container, stream


def _append(file: BinaryIO, content: bytes) -> None:
    """Append the stem atom to `udta`, whose end is that of `moov` and of the file."""
    file.flush()
    size = file.seek(0, os.SEEK_END)
    parents = [_find(file, MOOV), _find(file, MOOV, UDTA)]
    new = _box(STEM, content)
    if parents[1] is None:
        parents.pop()
        new = _box(UDTA, new)
    if any(each is None or each.stop != size for each in parents):
        raise ValueError("The streams hold no audio, or FFmpeg wrote its boxes in another order")
    file.seek(size)
    file.write(new)
    for each in filter(None, parents):
        file.seek(each.start)
        file.write((each.stop + len(new) - each.start).to_bytes(4, "big"))
    file.flush()


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _find(file: BinaryIO, *kinds: bytes) -> Box | None:
    """The first box of the first kind, in it the first of the next, and so on; None where one is missing, or too long."""
    found, start, stop = None, 0, file.seek(0, os.SEEK_END)
    for kind in kinds:
        found = next((box for box in walk(file, start, stop) if box.kind == kind), None)
        if found is None or found.stop > stop:
            return None
        start, stop = found.content, found.stop
    return found
