"""A song's tags by FFmpeg, and the pictures that a Matroska has attached: they are demuxed, and nothing is decoded."""

from itertools import islice
from typing import Any, BinaryIO

import av.error
import msgspec
from av.stream import AttachmentStream, Disposition

from demixd.audio.ffmpeg.opening import OPENING_BYTES, OPENING_S, open_container, reason
from demixd.audio.streams import NotReadableError, View


class Attached(msgspec.Struct, frozen=True):
    """A picture, by the attachment's own words."""

    name: str
    mime: str
    description: str
    data: bytes


def metadata_of(song: BinaryIO, demuxer: str) -> tuple[dict[str, str], list[Attached]]:
    """The tags of an open song, by FFmpeg's names, and its pictures. Raises `NotReadableError` and OSError."""
    view = View(song)
    with open_container(view, demuxer) as container:
        sound = container.streams.audio[0].metadata if container.streams.audio else {}
        texts = {str(key): str(value) for key, value in {**container.metadata, **sound}.items()}
        return texts, _attached(container, view)


def _attached(container: Any, view: View) -> list[Attached]:
    """FFmpeg takes a picture of a kind that it knows for a video of one packet, another one for an attachment as a font is."""
    shown = [stream for stream in container.streams if stream.disposition & Disposition.attached_pic]
    data = {stream.index: stream.data for stream in container.streams if isinstance(stream, AttachmentStream)}
    try:
        with view.limited(OPENING_BYTES, OPENING_S):
            # They were read with the header, and come before any other packet.
            packets = islice(container.demux(*shown), len(shown)) if shown else ()
            data |= {packet.stream.index: bytes(packet) for packet in packets}
    except (av.error.FFmpegError, ValueError) as error:
        raise NotReadableError(reason(error)) from error
    found = []
    for stream in container.streams:
        name, mime, description = (str(stream.metadata.get(key, "")) for key in ("filename", "mimetype", "title"))
        if mime.startswith("image/"):
            found.append(Attached(name=name, mime=mime, description=description, data=data.get(stream.index, b"")))
    return found
