"""One song from file to stems: decode, separate, mix, encode. The worker and `separate_audio` run the same functions.

    decode_song --> separate_song --> write_stems
    a buffer        one for each stem    encode (stems.py): out/

A worker can have a song in each of the three at the same time; only `separate_song` needs the model. `run` calls all
three in a row.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import msgspec

from demixd.audio.formats import Target, ceiling, choose_target
from demixd.audio.pcm import Pcm, Shelf
from demixd.audio.tags import Tags
from demixd.engine.engine import Engine
from demixd.errors import AudioProcessingError, Code, disk_error, is_out_of_memory, memory_error
from demixd.pipeline import mix
from demixd.pipeline.decoder import decode
from demixd.pipeline.separate import SegmentProgress, separate
from demixd.pipeline.stems import Order, Separated, StemWriter
from demixd.pipeline.tagging import Tagger, begin_reading
from demixd.protocol.job import EngineFacts, ExtraFile, StemFile
from demixd.protocol.options import Options
from demixd.protocol.progress import Progress, Step, Tick
from demixd.protocol.result_names import ONE_FILE, ONE_FILE_STEMS
from demixd.protocol.track import Track, pcm_bytes
from demixd.spool import room

__all__ = [
    "Decoded",
    "Observer",
    "Order",
    "ReadyToWrite",
    "Result",
    "decode_song",
    "run",
    "separate_song",
    "tick",
    "write_stems",
]

SHARE = {Step.DECODE: (0.0, 0.04), Step.SEPARATE: (0.04, 0.92), Step.MIX: (0.92, 0.94), Step.ENCODE: (0.94, 0.99)}
"""Where each step begins and ends in the progress of the whole job, 0 to 1: about its share of the time."""

VERB = {
    Step.DECODE: "Decoding",
    Step.SEPARATE: "Separating",
    Step.MIX: "Mixing",
    Step.ENCODE: "Encoding",
}


class Observer(msgspec.Struct, frozen=True, kw_only=True):
    """The caller: told when a step begins, when the song is decoded, and how far it is; `check` raises to stop."""

    check: Callable[[], None]
    decoded: Callable[[Track], None]
    progressed: Callable[[Tick], None]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was made of a song. `timing`: seconds of each step, `decode_s` and so on."""

    track: Track
    files: tuple[StemFile, ...]
    extras: tuple[ExtraFile, ...]
    gain_db: float
    residual_db: float | None
    """dB: the energy of the song minus its stems, against the song's; null where the stems do not make up the song."""
    engine: EngineFacts
    timing: dict[str, float]
    warnings: tuple[str, ...]


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A song in a buffer of its shelf, where its stems come too. Who has it closes the shelf."""

    track: Track
    pcm: Pcm
    shelf: Shelf


class ReadyToWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A song after the model. `tags`: the song's own, which are still being read."""

    separated: Separated
    target: Target
    engine: EngineFacts
    tags: Future[Tags | None]
    warnings: tuple[str, ...]


def run(order: Order, engine: Engine, shelf: Shelf, observer: Observer, timing: dict[str, float]) -> Result:
    """Separate one song; `timing` takes the seconds of each step as they end.

    Raises `AudioProcessingError`, or `StopProcessingError` as soon as `observer.check` does.
    """
    decoded = decode_song(order, shelf, observer, timing)
    separated = separate_song(order, decoded, engine, observer, timing)
    return write_stems(order, separated, observer, timing)


def decode_song(order: Order, shelf: Shelf, observer: Observer, timing: dict[str, float]) -> Decoded:
    """The song in a buffer of `shelf`. Raises as `run` does."""
    with _timed(Step.DECODE, observer, timing):
        track, pcm = decode(
            order.song,
            shelf,
            max_duration_s=order.max_duration_s,
            check=observer.check,
            progress=lambda fraction: observer.progressed(tick(Step.DECODE, fraction)),
        )
    return Decoded(track=track, pcm=pcm, shelf=shelf)


def separate_song(
    order: Order, decoded: Decoded, engine: Engine, observer: Observer, timing: dict[str, float]
) -> ReadyToWrite:
    """The stems of the decoded song, in buffers beside it. Raises as `run` does."""
    options, track = order.options, decoded.track
    observer.decoded(track)
    target, warnings = choose_target(
        msgspec.structs.replace(track, channels=2)
        if options.naming == ONE_FILE
        else track,  # players take stereo alone
        format=_format(options, track),
        bitrate=options.bitrate,
        bit_depth=options.bit_depth,
        rate=options.rate,
        clip=options.clip,
        quality=options.quality,
    )
    recipe = _recipe(options, engine)
    _require_room(order, track, target, recipe)
    tags = begin_reading(order.song, options)
    with _timed(Step.SEPARATE, observer, timing):
        stems, survey, facts = separate(
            track,
            decoded.pcm,
            decoded.shelf,
            engine,
            recipe=recipe,
            overlap=options.overlap,
            shifts=options.shifts,
            seed=order.seed,
            check=observer.check,
            progress=_SeparationProgress(track, observer).report,
        )
    return ReadyToWrite(
        separated=Separated(track=track, stems=stems, survey=survey),
        target=target,
        engine=facts,
        tags=tags,
        warnings=(*track.warnings, *decoded.shelf.warnings, *warnings, *engine.warnings),
    )


def write_stems(order: Order, ready: ReadyToWrite, observer: Observer, timing: dict[str, float]) -> Result:
    """Write the stems to `order.out`, all with one gain. Raises as `run` does."""
    target, options, separated = ready.target, order.options, ready.separated
    with _timed(Step.MIX, observer, timing):
        peaks = separated.peaks(target, observer.check, lambda part: observer.progressed(tick(Step.MIX, part)))
        gain = mix.joint_gain(peaks, options.clip, ceiling(target.subtype))
    with _timed(Step.ENCODE, observer, timing):
        tagger = Tagger(ready.tags.result(), options, ready.engine)
        writer = StemWriter(order, separated, target, gain, tagger)
        files = writer.write_all(observer.check, lambda part: observer.progressed(tick(Step.ENCODE, part)))
        extras = writer.extras(files)
    return Result(
        track=separated.track,
        files=files,
        extras=extras,
        gain_db=files[0].gain_db,
        residual_db=separated.survey.residual_db,
        engine=ready.engine,
        timing=timing,
        warnings=(*ready.warnings, *tagger.warnings),
    )


def _format(options: Options, track: Track) -> str:
    if options.naming == ONE_FILE and options.format == "source":
        return "alac" if track.bitrate is None else "m4a"
    return options.format


def _recipe(options: Options, engine: Engine) -> mix.Recipe:
    one_file = options.naming == ONE_FILE
    if one_file and sorted(engine.sources) != sorted(ONE_FILE_STEMS):
        offered = ", ".join(engine.sources)
        message = f"A file of NI Stems holds {', '.join(ONE_FILE_STEMS)}, and this model has {offered}; take htdemucs."
        raise AudioProcessingError(Code.BAD_OPTIONS, message)
    return mix.recipe(
        options.stems,
        engine.sources,
        instrumental=options.instrumental,
        alone=engine.alone,
        guide_db=options.guide_db,
        master=one_file,
    )


def _require_room(order: Order, track: Track, target: Target, recipe: mix.Recipe) -> None:
    """Raise NO_SPACE or TOO_LARGE now rather than after minutes of work: stems may be as large as float samples are."""
    stem = pcm_bytes(-(-track.frames * target.rate // track.rate), target.channels)
    written = len(recipe.stems) * stem
    if order.options.naming == ONE_FILE:
        written *= 2  # the streams lie in `tmp` until they are one file
    room.require(order.out, written)


class _SeparationProgress:
    """Turns the count of segments into a fraction, a speed and the time that is left."""

    def __init__(self, track: Track, observer: Observer) -> None:
        self._duration_s = track.duration_s
        self._observer = observer
        self._began = time.monotonic()

    def report(self, at: SegmentProgress) -> None:
        done = at.done / at.total
        spent_s = time.monotonic() - self._began
        segment = tick(
            Step.SEPARATE,
            done,
            f"Model {at.model}/{at.models} ",
            eta_s=round(spent_s / done - spent_s, 1),
            speed_x=round(self._duration_s * done / max(spent_s, 1e-6), 2),
            segment_s=round(at.seconds, 3),
        )
        self._observer.progressed(segment)


def tick(
    step: Step,
    step_fraction: float,
    detail: str = "",
    *,
    eta_s: float | None = None,
    speed_x: float | None = None,
    segment_s: float | None = None,
) -> Tick:
    """The progress of a song that has done `step_fraction` (0 to 1) of `step`."""
    first, last = SHARE[step]
    fraction = first + (last - first) * step_fraction
    return Tick(
        step=step,
        progress=Progress(
            fraction=round(fraction, 4), step_fraction=round(step_fraction, 4), eta_s=eta_s, speed_x=speed_x
        ),
        message=f"{VERB[step]}{': ' + detail if detail else ' '}(Overall {100 * fraction:.1f}%)",
        segment_s=segment_s,
    )


@contextmanager
def _timed(step: Step, observer: Observer, timing: dict[str, float]) -> Iterator[None]:
    observer.check()
    observer.progressed(tick(step, 0.0))
    began = time.monotonic()
    try:
        yield
    except OSError as error:
        raise disk_error(error, VERB[step].lower()) from error  # the disk can have filled up since `_require_room`
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise memory_error(error, VERB[step].lower()) from error
    finally:
        timing[f"{step}_s"] = round(time.monotonic() - began, 3)
