"""A whole worker without a model: it speaks the worker's language, reads and writes songs as the worker does, and
"separates" by turning the volume down. It is warm at once, and waits where a test wants it to.

While a file `hold` lies in $FAKE_FOLDER, a song that has begun to be separated stays there, and can be stopped; while
`hold-ahead` or `hold-encode` does, one that is decoded ahead, or whose stems are to be written. While `deaf` lies there,
none can be stopped. `held` is there once a song is held.
A song that holds the word POISON is the end of the process, by SIGSEGV, as soon as it is decoded. While `babble` lies
there, what is in it (with JOB for the job's id) is what is said when a song has begun to be separated.
`network` says how many seconds each song takes. While `missing-MODEL` lies there, that model cannot be had; `weights-MODEL`
says what its hash is. What it was ordered to do is in `orders`, a line each, and what it says, but for progress, in `said`,
where that file is.
"""

import contextlib
import hashlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from decoding import decode
from demixd.audio.budget import Budget
from demixd.audio.formats import Target, choose_target
from demixd.audio.pcm import Pcm, Shelf
from demixd.audio.waveform import Waveform, document, measured
from demixd.engine import host
from demixd.errors import Code, StopProcessingError
from demixd.pipeline import encode, mix
from demixd.protocol.job import EngineFacts, Error, ExtraFile
from demixd.protocol.pages import player
from demixd.protocol.progress import Progress, Step, Tick
from demixd.protocol.result_names import PAGE, PEAKS, file_name
from demixd.protocol.track import Track
from demixd.spool import nofollow
from demixd.spool.files import open_own, sync
from demixd.spool.tree import pin
from demixd.worker.channel import BROKEN_STATUS, described
from demixd.worker.messages import (
    Decoded,
    Failed,
    Finished,
    Forget,
    FromWorker,
    Prepare,
    Prepared,
    Progressed,
    Ready,
    Separate,
    Stop,
    Stopped,
    ToWorker,
    Unready,
    Warm,
)

FOLDER = Path(os.environ["FAKE_FOLDER"])
SOURCES = ("drums", "bass", "other", "vocals")
HELD_AT, SEEN_S = 0.79, 0.1
"""How far a song comes that is held, and after how many seconds, so that it is seen. It says no more then: the calls of a
worker that is stopped are the same each time."""
stopped: set[str] = set()
forgotten: dict[int, Prepare] = {}
"""Orders to prepare whose turn does not come, by identity: the same job may be prepared again."""
changed = threading.Condition()
to_decode: list[Prepare] = []
decoded: dict[str, "Song"] = {}
budget = Budget(0)
to_finish: list[tuple[Separate, Callable[[], None]]] = []


class Song(msgspec.Struct, frozen=True):
    """A decoded song; its shelf holds `pcm`."""

    track: Track
    pcm: Pcm
    shelf: Shelf


def is_there(name: str, *, in_doubt: bool = False) -> bool:
    """Whether a test has put that file there; `in_doubt` where the disk fails at it, which tests have it do."""
    try:
        (FOLDER / name).stat()
    except FileNotFoundError:
        return False
    except OSError:
        return in_doubt
    return True


def note(name: str, line: bytes) -> None:
    with contextlib.suppress(OSError), (FOLDER / name).open("ab") as log:
        log.write(line)


def say(message: FromWorker) -> None:
    line = msgspec.json.encode(message) + b"\n"
    with changed:
        if not isinstance(message, Progressed) and is_there("said"):
            note("said", line)
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError:
            os._exit(BROKEN_STATUS)


def warm(order: Warm) -> EngineFacts | None:
    if is_there(f"missing-{order.model}"):
        say(Unready(error=Error(code=Code.MODEL_MISSING, message=f"The model {order.model} is not here.")))
        return None
    weights = FOLDER / f"weights-{order.model}"
    sha256 = weights.read_text() if weights.exists() else order.model
    facts = EngineFacts(model=order.model, model_sha256=sha256, device="cpu", device_name="none", precision="float32")
    budget.resize(host.sound_bytes(order.memory_bytes))
    say(Ready(engine=facts, sources=SOURCES, seconds=0.0))
    return facts


def check(job_id: str) -> None:
    if job_id in stopped and not is_there("deaf"):
        raise StopProcessingError


def decoded_song(order: Separate | Prepare, stop: Callable[[], None]) -> Song:
    tmp = pin(order.tmp)
    song = tmp.path / Path(order.song if isinstance(order, Separate) else order.snapshot).name
    with song.open("rb") as file:
        if b"POISON" in file.read(4096):
            os.kill(os.getpid(), signal.SIGSEGV)
    shelf = Shelf(budget, (Path(order.work), tmp.path))
    track, pcm = decode(song, shelf, max_duration_s=order.max_duration_s, check=stop, progress=lambda _: None)
    return Song(track, pcm, shelf)


def prepare() -> None:
    """The thread that decodes ahead."""
    while True:
        with changed:
            changed.wait_for(lambda: to_decode)
            order = to_decode[0]

        def stop(order: Prepare = order) -> None:
            if id(order) in forgotten:
                raise StopProcessingError

        song, error = None, None
        try:
            song = decoded_song(order, stop)
            while is_there("hold-ahead", in_doubt=True):
                stop()
                time.sleep(0.02)
        except StopProcessingError:
            pass
        except Exception as exception:  # noqa: BLE001 - as the worker's own
            error = described(exception)
        with changed:
            to_decode.pop(0)
            if id(order) not in forgotten:
                if song is not None:
                    decoded[order.job_id] = song
                say(Prepared(job_id=order.job_id, error=error))
            changed.notify_all()
        song = None  # else this thread holds its sound until the next song comes


def forget(job_id: str) -> None:
    with changed:
        to_decode[1:] = [order for order in to_decode[1:] if order.job_id != job_id]
        forgotten.update({id(order): order for order in to_decode if order.job_id == job_id})
        decoded.pop(job_id, None)


def taken(order: Separate) -> Song | None:
    """The song, if it was decoded ahead."""
    with changed:
        while any(each.job_id == order.job_id for each in to_decode):
            check(order.job_id)
            changed.wait(0.05)
        return decoded.pop(order.job_id, None)


def separate(order: Separate, facts: EngineFacts) -> None:
    """The main thread's part."""
    options = order.options
    tell(order.job_id, Step.DECODE, 0.0)
    song = taken(order) or decoded_song(order, lambda: check(order.job_id))
    track = song.track
    say(Decoded(job_id=order.job_id, track=track))
    how = {name: getattr(options, name) for name in ("format", "bitrate", "bit_depth", "rate", "clip")}
    target, warnings = choose_target(track, **how)
    mix.recipe(options.stems, SOURCES)  # knows what no stem is
    tell(order.job_id, Step.SEPARATE, 0.04)
    babble(order.job_id)
    tell(order.job_id, Step.SEPARATE, 0.04, segment_s=0.01)
    hold(order.job_id)
    network(order.job_id)
    with changed:
        check(order.job_id)
        to_finish.append((order, lambda: say(written(order, song, facts, target, warnings))))
        changed.notify_all()


def hold(job_id: str) -> None:
    """Stay while that is wanted; `held` is there once nothing more is said."""
    since, is_told = time.monotonic(), False
    while is_there("hold", in_doubt=True):
        check(job_id)
        if not is_told and time.monotonic() > since + SEEN_S:
            is_told = True
            tell(job_id, Step.SEPARATE, HELD_AT, segment_s=0.01)
            with contextlib.suppress(OSError):  # a disk that fails, which tests have it do
                (FOLDER / "held").touch()
        time.sleep(0.02)
    check(job_id)


def network(job_id: str) -> None:
    """Take as many seconds as the file `network` says, if it is there."""
    with contextlib.suppress(OSError):
        until = time.monotonic() + float((FOLDER / "network").read_text())
        while time.monotonic() < until:
            check(job_id)
            time.sleep(0.02)


def tell(job_id: str, step: Step, fraction: float, segment_s: float | None = None) -> None:
    progress = Progress(fraction=fraction, step_fraction=fraction)
    at = Tick(step=step, progress=progress, message=step.value.capitalize(), segment_s=segment_s)
    say(Progressed(job_id=job_id, at=at))


def babble(job_id: str) -> None:
    """Say what is no message, or not a true one, over and over as long as it is to be said."""
    while True:
        try:
            line = (FOLDER / "babble").read_bytes().replace(b"JOB", job_id.encode())
        except FileNotFoundError:
            return
        with changed:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        check(job_id)


def finish() -> None:
    """The thread that writes stems."""
    while True:
        with changed:
            changed.wait_for(lambda: to_finish)
            order, work = to_finish.pop(0)
        attempt(order, work)
        del work  # and the song's sound with it


def extra(out: Path, kind: str, name: str, data: bytes) -> ExtraFile:
    """A file beside the stems."""
    with open_own(out / name, "x+b") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())
    return ExtraFile(kind=kind, name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def written(order: Separate, song: Song, facts: EngineFacts, target: Target, warnings: tuple[str, ...]) -> Finished:
    """Every stem is a quarter of the song."""
    with song.shelf:
        options, track, held_out = order.options, song.track, pin(order.out)
        out = held_out.path
        tell(order.job_id, Step.ENCODE, 0.94)
        while is_there("hold-encode", in_doubt=True):
            check(order.job_id)
            time.sleep(0.02)
        files, waveforms = [], []
        for stem in options.stems:
            name = file_name(options.naming, stem=stem, ext=target.suffix, model=options.model, leaf=order.name)
            path = out / name
            with nofollow.reach(out, path.parent, make=out, follow=True) as handle:
                folder = nofollow.Pin(handle, path.parent)
            waveforms.append(Waveform(track.frames, track.channels))
            written = encode.write(
                (block / 4 for block in song.pcm.blocks()),
                folder.path / path.name,
                target,
                frames=track.frames,
                how=encode.Manner(stem=stem, check=lambda: check(order.job_id), draw=waveforms[-1].feed),
            )
            files.append(msgspec.structs.replace(written, name=name))
        peaks = measured(waveforms, target.rate)
        extras = [extra(out, "peaks", PEAKS, document(peaks))] if options.peaks else []
        if options.page:
            extras.append(extra(out, "page", PAGE, player.page(order.name, files, peaks)))
    return Finished(
        job_id=order.job_id,
        files=tuple(files),
        extras=tuple(extras),
        gain_db=0.0,
        engine=facts,
        timing={},
        warnings=(*track.warnings, *warnings),
    )


def attempt(order: Separate, work: Callable[[], None]) -> None:
    try:
        work()
    except StopProcessingError:
        say(Stopped(job_id=order.job_id))
    except Exception as error:  # noqa: BLE001 - as the worker's own
        say(Failed(job_id=order.job_id, error=described(error), timing={}))


def stop(job_id: str) -> None:
    """Whoever has the song hears it; one that waits to be written is given up here."""
    with changed:
        stopped.add(job_id)
        forget(job_id)
        if not is_there("deaf") and any(order.job_id == job_id for order, *_ in to_finish):
            to_finish[:] = [each for each in to_finish if each[0].job_id != job_id]
            say(Stopped(job_id=job_id))


def listen(work: "queue.SimpleQueue[Warm | Separate]") -> None:
    try:
        obey(work)
    except OSError:
        os._exit(BROKEN_STATUS)
    os._exit(0)


def obey(work: "queue.SimpleQueue[Warm | Separate]") -> None:
    decoder = msgspec.json.Decoder(ToWorker)
    for line in sys.stdin.buffer:
        order = decoder.decode(line)
        note("orders", line)
        match order:
            case Stop(job_id=job_id):
                stop(job_id)
            case Forget(job_id=job_id):
                forget(job_id)
            case Prepare():
                with changed:
                    to_decode.append(order)
                    changed.notify_all()
            case _:
                if isinstance(order, Separate):
                    stopped.discard(order.job_id)
                work.put(order)


def main() -> None:
    work: queue.SimpleQueue[Warm | Separate] = queue.SimpleQueue()
    for task, arguments in ((listen, (work,)), (prepare, ()), (finish, ())):
        threading.Thread(target=task, args=arguments, daemon=True).start()
    facts: EngineFacts | None = None
    while True:
        order = work.get()
        if isinstance(order, Warm):
            facts = warm(order) or facts
            continue
        assert facts is not None
        attempt(order, lambda each=(order, facts): separate(*each))


main()
