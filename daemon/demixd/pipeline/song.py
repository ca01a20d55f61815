"""One song from file to stems: decode, separate, mix, encode. The worker and `separate_audio` both run exactly this.

    decode_song --> separate_song --> write_stems
    song.f32        SOURCE.f32        mix and encode (stems.py): out/

Three stages, so that three songs can be in them at once; only the middle one needs the model. `run` is all in a row.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import msgspec

from demixd.audio.formats import Target, ceiling, choose_target
from demixd.audio.pcm import SONG
from demixd.audio.tags import Tags
from demixd.engine.engine import Engine
from demixd.errors import AudioProcessingError, Code, disk_error
from demixd.pipeline import mix, tagging
from demixd.pipeline.decode import decode
from demixd.pipeline.separate import SegmentProgress, separate
from demixd.pipeline.stems import Mixer, Order, StemWriter
from demixd.protocol.job import EngineFacts, StemFile, Step, Tick
from demixd.protocol.options import Options
from demixd.protocol.result_names import ONE_FILE, ONE_FILE_STEMS
from demixd.protocol.track import Track, pcm_bytes

__all__ = ["Observer", "Order", "Result", "Separated", "decode_song", "run", "separate_song", "tick", "write_stems"]

SHARE = {Step.DECODE: (0.0, 0.04), Step.SEPARATE: (0.04, 0.92), Step.MIX: (0.92, 0.94), Step.ENCODE: (0.94, 0.99)}
"""Where each step begins and ends in the progress of the whole job; about what they take of the time."""

VERB = {
    Step.DECODE: "Decoding",
    Step.SEPARATE: "Separating",
    Step.MIX: "Mixing",
    Step.ENCODE: "Encoding",
}


class Observer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told: a step begins, the song is decoded, there is progress. `check` raises to stop."""

    check: Callable[[], None]
    began: Callable[[Step], None]
    decoded: Callable[[Track], None]
    progressed: Callable[[Tick], None]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    track: Track
    files: tuple[StemFile, ...]
    gain_db: float
    residual_db: float | None
    """How far below the song what its stems leave of it lies; null where they do not make up the song."""
    engine: EngineFacts
    timing: dict[str, float]
    warnings: tuple[str, ...]


class Separated(msgspec.Struct, frozen=True, kw_only=True):
    """A song that the model is done with: `spools` holds its sources, `recipe` says what becomes of them.

    `tags` are those of the song, once they are read.
    """

    track: Track
    spools: dict[str, Path]
    recipe: mix.Recipe
    target: Target
    engine: EngineFacts
    tags: Future[Tags | None]
    warnings: tuple[str, ...]


def run(order: Order, engine: Engine, observer: Observer, timing: dict[str, float]) -> Result:
    """Separate one song; `timing` takes the seconds of each step as they end.

    Raises `AudioProcessingError`, or `StopProcessingError` as soon as `observer.check` does.
    """
    track = decode_song(order, observer, timing)
    separated = separate_song(order, track, engine, observer, timing)
    return write_stems(order, separated, observer, timing)


def decode_song(order: Order, observer: Observer, timing: dict[str, float]) -> Track:
    """The song becomes a spool in `order.tmp`. Raises as `run`."""
    with _timed(Step.DECODE, observer, timing):
        return decode(
            order.song,
            order.tmp / SONG,
            max_duration_s=order.max_duration_s,
            check=observer.check,
            progress=lambda fraction: observer.progressed(tick(Step.DECODE, fraction)),
        )


def separate_song(
    order: Order, track: Track, engine: Engine, observer: Observer, timing: dict[str, float]
) -> Separated:
    """The decoded song becomes a spool for each source that its stems need. Raises as `run`."""
    options = order.options
    observer.decoded(track)
    target, warnings = choose_target(
        track,
        format=_format(options, track),
        bitrate=options.bitrate,
        bit_depth=options.bit_depth,
        rate=options.rate,
        clip=options.clip,
        quality=options.quality,
    )
    recipe = _recipe(options, engine)
    _need_room(order, track, engine, len(recipe.needed), len(recipe.stems))
    tags = tagging.begin(order.song, track, options)
    with _timed(Step.SEPARATE, observer, timing):
        spools, facts = separate(
            track,
            order.tmp / SONG,
            order.tmp,
            engine,
            needed=recipe.needed,
            overlap=options.overlap,
            shifts=options.shifts,
            seed=order.seed,
            check=observer.check,
            progress=_Separating(track, observer).tell,
        )
    return Separated(
        track=track,
        spools=spools,
        recipe=recipe,
        target=target,
        engine=facts,
        tags=tags,
        warnings=(*track.warnings, *warnings, *engine.warnings),
    )


def write_stems(order: Order, separated: Separated, observer: Observer, timing: dict[str, float]) -> Result:
    """The sources become the stems' files in `order.out`. Raises as `run`."""
    target, options = separated.target, order.options
    mixer = Mixer({**separated.spools, mix.SONG: order.tmp / SONG}, separated.track, separated.recipe)
    with _timed(Step.MIX, observer, timing):
        survey = mixer.survey(target, observer.check, lambda part: observer.progressed(tick(Step.MIX, part)))
        gain = mix.joint_gain(survey.peaks, options.clip, ceiling(target.subtype))
    with _timed(Step.ENCODE, observer, timing):
        said = tagging.Dress(separated.tags.result(), options, separated.engine)
        writer = StemWriter(order, mixer, target, survey, gain, said)
        files = writer.write_all(observer.check, lambda part: observer.progressed(tick(Step.ENCODE, part)))
    return Result(
        track=separated.track,
        files=files,
        gain_db=files[0].gain_db,
        residual_db=survey.residual_db,
        engine=separated.engine,
        timing=timing,
        warnings=(*separated.warnings, *said.warnings),
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


def _need_room(order: Order, track: Track, engine: Engine, sources: int, stems: int) -> None:
    """Raise NO_SPACE now rather than after minutes of work: the spools, and the stems as large as float can make them."""
    spools = sources * pcm_bytes(track.frames, track.channels)
    if (track.rate, track.channels) != (engine.rate, engine.channels):
        spools += pcm_bytes(int(track.duration_s * engine.rate), engine.channels)
    written = stems * pcm_bytes(track.frames, track.channels)
    if order.options.naming == ONE_FILE:
        spools += written  # its streams, until they are one file
    needs = {order.tmp: spools, order.out: written}
    if order.tmp.stat().st_dev == order.out.stat().st_dev:
        needs = {order.tmp: spools + written}
    for folder, need in needs.items():
        free = shutil.disk_usage(folder).free
        if free < need:
            message = f"The work needs {need / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free; make room."
            raise AudioProcessingError(Code.NO_SPACE, message, str(folder))


class _Separating:
    """Turns segments done into progress, speed and time to go."""

    def __init__(self, track: Track, observer: Observer) -> None:
        self._duration_s = track.duration_s
        self._observer = observer
        self._began = time.monotonic()

    def tell(self, at: SegmentProgress) -> None:
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


def tick(step: Step, step_fraction: float, detail: str = "", **more: float | None) -> Tick:
    """How far a song is that has done so much of a step."""
    first, last = SHARE[step]
    fraction = first + (last - first) * step_fraction
    return Tick(
        step=step,
        fraction=fraction,
        step_fraction=step_fraction,
        message=f"{VERB[step]}{': ' + detail if detail else ' '}(Overall {100 * fraction:.1f}%)",
        **more,
    )


@contextmanager
def _timed(step: Step, observer: Observer, timing: dict[str, float]) -> Iterator[None]:
    observer.check()
    observer.began(step)
    began = time.monotonic()
    try:
        yield
    except OSError as error:
        raise disk_error(error, VERB[step].lower()) from error  # also where the disk has filled up since it had room
    finally:
        timing[f"{step}_s"] = round(time.monotonic() - began, 3)
