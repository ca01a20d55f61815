"""Decode: a song becomes samples of one or two channels, and the facts of a track.

    song --View--> libsndfile or FFmpeg --blocks--> two channels --> PcmWriter

Rules:
- Content decides what a file is, never its name. A tag in front is skipped, whatever the format.
- What the container declares is checked first (audio/containers/detect.py): a song that is cut short is an error, not a
  shorter track.
- libsndfile reads the samples of WAV and AIFF, FFmpeg's libraries everything else.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from demixd.audio import downmix, sndfile
from demixd.audio.containers import detect, edges
from demixd.audio.containers.detect import Container
from demixd.audio.ffmpeg import reader as ffmpeg
from demixd.audio.pcm import Frames, PcmWriter
from demixd.audio.streams import DamagedError, FramelessError, NotReadableError, Reader, SoundlessError, View
from demixd.errors import AudioProcessingError, Code, disk_error
from demixd.protocol.track import RATES, Track

SHARED = ("wav", "aiff")
"""Containers of which each library reads what the other does not."""


LOUDEST = 2.0**32
"""The largest sample of a song, full scale 1. A float file may be loud, by 60 dB and more where nobody has limited a mix, by
187 dB where 32-bit integers were never scaled; up to here sums of squares fit into float32. Larger ones are no sound."""


def decode(
    file: BinaryIO,
    pcm: PcmWriter,
    *,
    max_duration_s: float,
    check: Callable[[], None],
    progress: Callable[[float], None],
) -> Track:
    """Decode an open song: `[T, 1]` for mono, `[T, 2]` for everything else.

    `check` is called between blocks and stops by raising; `progress` gets fractions of the song. Raises
    `AudioProcessingError`: BAD_AUDIO, TRUNCATED, NOT_FINITE, TOO_LONG, NO_SPACE or IO_ERROR.
    """
    try:
        view = View(file, edges.behind_tags(file))
        container = _accepted(_container(view))
        with _opened(view, container) as sound:
            _refuse_early(sound, max_duration_s)
            if sound.declared is not None:
                pcm.require(sound.declared, min(sound.channels, 2))
            for block in _blocks(sound, view, check):
                pcm.write(block)
                if pcm.frames > max_duration_s * sound.rate:
                    raise _too_long(None, max_duration_s)
                progress(_fraction(pcm.frames, sound, view))
            return _track(sound, container, pcm.frames)
    except OSError as error:
        raise disk_error(error, "decoding the song") from error


def _container(view: View) -> Container | None:
    """The container of the song, as `view` shows it from now on. Raises OSError."""
    container = detect.container_of(cast(BinaryIO, view))
    if view.error:
        raise view.error
    if container:
        view.show(container.head, container.start, container.stop)
    return container


def _accepted(container: Container | None) -> Container:
    if container is None:
        message = (
            "The song is no audio that can be read here (config/PROTOCOL.md, Sound); check the file, or convert it."
        )
        raise AudioProcessingError(Code.BAD_AUDIO, message, "no known signature, no run of MP3 frames")
    if container.cut:
        raise AudioProcessingError(Code.TRUNCATED, f"The song is cut short, {container.cut}; copy it again.")
    if container.refusal:
        raise AudioProcessingError(
            Code.BAD_AUDIO, f"The song's {container.format.upper()} cannot be used: {container.refusal}."
        )
    return container


@contextmanager
def _opened(view: View, container: Container) -> Iterator[Reader]:
    """The song, opened by a library that can read it. Raises BAD_AUDIO, and TRUNCATED where it ends in its first frame."""
    with ExitStack() as stack:
        refused: NotReadableError | None = None
        for way in _ways(view, container):
            view.seek(0)
            try:
                sound: Reader = stack.enter_context(way())
                break
            except NotReadableError as error:
                if view.error:
                    raise view.error from error
                refused = refused or error
        else:
            is_song = isinstance(refused, FramelessError) or container.announced
            if is_song and view.furthest >= view.size:
                raise _cut_short(0, None, str(refused)) from refused
            raise AudioProcessingError(Code.BAD_AUDIO, _unreadable(view, refused), str(refused)) from refused
        yield sound


def _ways(view: View, container: Container) -> list[Callable[[], AbstractContextManager[Any]]]:
    """The libraries that may be able to read the song, each as a function that opens it; the likeliest first."""
    by_ffmpeg = partial(ffmpeg.opened, view, container.demuxer, announced=container.announced)
    by_sndfile = partial(sndfile.opened, view, container)
    if container.format not in SHARED:
        return [by_ffmpeg]
    return [by_sndfile, by_ffmpeg] if container.samples else [by_ffmpeg, by_sndfile]


def _unreadable(view: View, refused: NotReadableError | None) -> str:
    if isinstance(refused, SoundlessError):
        return "The file has no sound: it is a film without any, or a picture; drop one that can be heard."
    if view.exhausted:
        return "The song holds too much before its first sound: take out pictures and attachments, or convert it."
    return "The song cannot be decoded: its header is damaged or of a kind that is not supported; convert it."


def _refuse_early(sound: Reader, max_duration_s: float) -> None:
    if sound.rate not in RATES:
        message = f"The song claims {sound.rate} frames a second; its header is damaged."
        raise AudioProcessingError(Code.BAD_AUDIO, message)
    if sound.declared is not None and sound.declared > max_duration_s * sound.rate:
        raise _too_long(sound.declared / sound.rate, max_duration_s)


def _too_long(duration_s: float | None, limit_s: float) -> AudioProcessingError:
    length = "longer" if duration_s is None else f"{duration_s:,.0f} s long, longer"
    message = f"The song is {length} than {limit_s:,.0f} s; split it or raise [limits] max_duration_s."
    return AudioProcessingError(Code.TOO_LONG, message)


def _blocks(sound: Reader, view: View, check: Callable[[], None]) -> Iterator[Frames]:
    """The song's blocks in one or two channels, all samples within LOUDEST. Raises where decoding ends before the song does."""
    down = downmix.matrix(sound.layout, sound.channels) if sound.channels > 2 else None
    done = 0
    blocks = sound.blocks()
    while True:
        check()
        try:
            block = next(blocks, None)
        except DamagedError as error:
            raise view.error or _stopped(done, sound, view, str(error)) from error
        if view.error:
            raise view.error
        if block is None:
            break
        _refuse_no_sound(block, done, sound.rate)
        done += len(block)
        yield block if down is None else block @ down
    if sound.declared is not None and done + sound.slack < sound.declared:
        raise _stopped(done, sound, view, None)
    if not done:
        raise AudioProcessingError(Code.BAD_AUDIO, "The song holds no audio: it is zero frames long.")


def _stopped(done: int, sound: Reader, view: View, detail: str | None) -> AudioProcessingError:
    """The error of decoding that ended too early: TRUNCATED, or BAD_AUDIO where no frame could be decoded."""
    if not done and view.furthest < view.size:
        return AudioProcessingError(Code.BAD_AUDIO, "The song cannot be decoded: it is damaged at its start.", detail)
    return _cut_short(done, sound.declared, detail)


def _cut_short(done: int, declared: int | None, detail: str | None) -> AudioProcessingError:
    whole = f" of {declared:,}" if declared is not None else ""
    message = f"The song is cut short or damaged, {done:,}{whole} frames could be decoded; copy it again."
    return AudioProcessingError(Code.TRUNCATED, message, detail)


def _refuse_no_sound(block: Frames, before: int, rate: int) -> None:
    # Of samples that are not numbers neither holds.
    if block.min(initial=0.0) >= -LOUDEST and block.max(initial=0.0) <= LOUDEST:
        return
    at_s = (before + int(np.argmin((np.abs(block) <= LOUDEST).all(axis=1)))) / rate
    message = (
        f"The song has a sample that is not a number, infinite, or too large to be sound, at {at_s:.3f} s; repair it, or "
        "export it again."
    )
    raise AudioProcessingError(Code.NOT_FINITE, message)


def _fraction(done: int, sound: Reader, view: View) -> float:
    fraction = done / sound.declared if sound.declared else view.tell() / view.size
    return min(fraction, 1.0)


def _track(sound: Reader, container: Container, frames: int) -> Track:
    warnings = container.warnings + sound.warnings
    if sound.channels > 2:
        how = "mixed down to two" if sound.layout else "of unknown positions; their mean is on both sides"
        warnings += (f"The song has {sound.channels} channels, {how}.",)
    return Track(
        format=sound.codec if container.demuxer == "mp3" else container.format,
        codec=sound.codec,
        subtype=sound.subtype,
        rate=sound.rate,
        channels=min(sound.channels, 2),
        song_channels=sound.channels,
        frames=frames,
        bitrate=sound.bitrate,
        warnings=warnings,
    )
