"""One song from file to stems: decode, separate, mix, encode. The worker and `separate_audio` both run exactly this.

    decode_song --> separate_song --> write_stems
    song.f32        SOURCE.f32        mix and encode: out/

Three stages, so that three songs can be in them at once; only the middle one needs the model. `run` is all in a row.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from stemd import below
from stemd.engine.engine import Engine
from stemd.engine.resample import resample_frames
from stemd.errors import AudioProcessingError, Code, StopProcessingError
from stemd.formats import Target, ceiling, choose_target
from stemd.job import EngineFacts, Options, StemFile, Step, Tick
from stemd.naming import file_name
from stemd.steps import encode, mix
from stemd.steps.decode import decode
from stemd.steps.separate import SegmentProgress, separate
from stemd.track import BLOCK, SONG, Frames, SpoolReader, Track, disk_error, spool_bytes

SHARE = {Step.DECODE: (0.0, 0.04), Step.SEPARATE: (0.04, 0.92), Step.MIX: (0.92, 0.94), Step.ENCODE: (0.94, 0.99)}
"""Where each step begins and ends in the progress of the whole job; about what they take of the time."""

VERB = {
    Step.DECODE: "Decoding",
    Step.SEPARATE: "Separating",
    Step.MIX: "Mixing",
    Step.ENCODE: "Encoding",
}


LOOK_S = 0.2
"""How often whoever waits for the stems says how far they are."""


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
    engine: EngineFacts
    timing: dict[str, float]
    warnings: tuple[str, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: `song` is read, `tmp` takes the spools, `out` the stems. `seed` fixes what is random.

    `name` is the song's name, for the names of its stems.
    """

    song: Path
    name: str
    tmp: Path
    out: Path
    options: Options
    max_duration_s: float
    seed: int


class Separated(msgspec.Struct, frozen=True, kw_only=True):
    """A song that the model is done with: `spools` holds its sources, `recipe` says what becomes of them."""

    track: Track
    spools: dict[str, Path]
    recipe: mix.Recipe
    target: Target
    engine: EngineFacts
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
        format=options.format,
        bitrate=options.bitrate,
        bit_depth=options.bit_depth,
        rate=options.rate,
        clip=options.clip,
    )
    recipe = mix.recipe(options.stems, engine.sources, instrumental=options.instrumental, alone=engine.alone)
    _need_room(order, track, engine, len(recipe.needed), len(recipe.stems))
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
        warnings=(*track.warnings, *warnings, *engine.warnings),
    )


def write_stems(order: Order, separated: Separated, observer: Observer, timing: dict[str, float]) -> Result:
    """The sources become the stems' files in `order.out`. Raises as `run`."""
    target = separated.target
    mixer = _Mixer(separated.spools, order.tmp / SONG, separated.track, separated.recipe)
    with _timed(Step.MIX, observer, timing):
        gain = mixer.gain(order.options.clip, target, observer)
    with _timed(Step.ENCODE, observer, timing):
        files = _encode_all(tuple(separated.recipe.stems), mixer, order, target, gain, observer)
    return Result(
        track=separated.track,
        files=files,
        gain_db=files[0].gain_db,
        engine=separated.engine,
        timing=timing,
        warnings=separated.warnings,
    )


def _need_room(order: Order, track: Track, engine: Engine, sources: int, stems: int) -> None:
    """Raise NO_SPACE now rather than after minutes of work: the spools, and the stems as large as float can make them."""
    spools = sources * spool_bytes(track.frames, track.channels)
    if (track.rate, track.channels) != (engine.rate, engine.channels):
        spools += spool_bytes(int(track.duration_s * engine.rate), engine.channels)
    written = stems * spool_bytes(track.frames, track.channels)
    needs = {order.tmp: spools, order.out: written}
    if order.tmp.stat().st_dev == order.out.stat().st_dev:
        needs = {order.tmp: spools + written}
    for folder, need in needs.items():
        free = shutil.disk_usage(folder).free
        if free < need:
            message = f"The work needs {need / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free; make room."
            raise AudioProcessingError(Code.NO_SPACE, message, str(folder))


class _Mixer:
    """Stems block by block out of the sources' spools."""

    def __init__(self, spools: dict[str, Path], song: Path, track: Track, recipe: mix.Recipe) -> None:
        self._spools = {**spools, mix.SONG: song}
        self._track = track
        self._recipe = recipe

    def gain(self, clip: str, target: Target, observer: Observer) -> float:
        """The one gain for all stems of the song."""
        peaks = {}
        for number, stem in enumerate(self._recipe.stems):
            peaks[stem] = 0.0
            for block in self.stem(stem, target):
                observer.check()
                peaks[stem] = max(peaks[stem], mix.peak(block))
            observer.progressed(tick(Step.MIX, (number + 1) / len(self._recipe.stems)))
        return mix.joint_gain(peaks, clip, ceiling(target.subtype))

    def frames(self, target: Target) -> int:
        """The frames that every stem has at the target's rate: the song's own where that is its rate."""
        return -(-self._track.frames * target.rate // self._track.rate)

    def stem(self, stem: str, target: Target) -> Iterator[Frames]:
        """One stem's blocks `[T, C]` at the target's rate."""
        return resample_frames(self._blend(stem), self._track.rate, target.rate)

    def _blend(self, stem: str) -> Iterator[Frames]:
        coefficients = self._recipe.stems[stem]
        with ExitStack() as stack:
            readers = {
                name: stack.enter_context(SpoolReader(self._spools[name], self._track.channels))
                for name in {*coefficients, mix.SONG}
            }
            for start in range(0, self._track.frames, BLOCK):
                stop = min(start + BLOCK, self._track.frames)
                blocks = {name: reader.read(start, stop) for name, reader in readers.items()}
                yield mix.blend(blocks, blocks[mix.SONG], coefficients)


def _encode_all(
    stems: tuple[str, ...], mixer: _Mixer, order: Order, target: Target, gain: float, observer: Observer
) -> tuple[StemFile, ...]:
    """All stems, as many at once as there are cores: libsndfile works without Python's lock. In the order asked for."""
    failed = threading.Event()
    blocks = [0] * len(stems)
    total = len(stems) * -(-mixer.frames(target) // BLOCK)

    def write(number: int) -> StemFile:
        def check() -> None:
            observer.check()
            if failed.is_set():
                raise StopProcessingError("another stem of the song could not be written")
            blocks[number] += 1

        return _encode(stems[number], mixer, order, target, gain, check)

    with ThreadPoolExecutor(min(len(stems), os.cpu_count() or 1), "encode") as pool:
        written = [pool.submit(write, number) for number in range(len(stems))]
        try:
            left = set(written)
            while left:
                observer.progressed(tick(Step.ENCODE, min(1.0, sum(blocks) / total)))
                ended, left = wait(left, LOOK_S, FIRST_COMPLETED)
                for future in ended:
                    future.result()
        except BaseException:
            failed.set()  # the others end at their next block, and the pool with them
            raise
    return tuple(future.result() for future in written)


def _encode(stem: str, mixer: _Mixer, order: Order, target: Target, gain: float, check: Callable[[], None]) -> StemFile:
    """Write one stem and see that it reads back."""
    options = order.options
    name = file_name(options.naming, stem=stem, ext=target.suffix, model=options.model, leaf=order.name)
    # Never the outbox itself, which may have gone meanwhile.
    folder = below.Pin(order.out, (order.out / name).parent, make=order.out, follow=True)
    path = folder.path / name.rpartition("/")[2]
    frames = mixer.frames(target)
    written = encode.write(
        mixer.stem(stem, target),
        path,
        target,
        frames=frames,
        gain=gain,
        clamp=options.clip == "clamp",
        check=check,
    )
    encode.verify(path, written, frames)
    return StemFile(stem=stem, **{**msgspec.structs.asdict(written), "name": name})


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
