"""A worker without a process or a model: it speaks the worker's language on a simulated clock, and does what a script says.

It has the switches of tests/support/fake_worker.py, files in the daemon's folder: `hold`, `hold-ahead`, `hold-encode`,
`deaf`, `missing-MODEL`, `weights-MODEL`, and POISON in a song. What it is ordered is in `orders`, and what it says in
`said`, where that is. While `full` lies there, no stem can be written; where `work-full` does, a song has no room once, and it
goes. A `Script` says what else goes wrong with a song.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from demixd.audio.formats import FORMATS
from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.protocol.job import EngineFacts, Error, ExtraFile, StemFile
from demixd.protocol.progress import Progress, Step, Tick
from demixd.protocol.result_names import PAGE, PEAKS, file_name
from demixd.protocol.track import Track
from demixd.supervisor.workers.line import Died, Post, Said
from demixd.worker.messages import (
    Decoded,
    Failed,
    Finished,
    Forget,
    FromWorker,
    Placed,
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
from simulated_clock import SimulatedClock
from simulated_songs import track_of

WARM_S, DECODE_S, SEGMENT_S, ENCODE_S = 0.5, 0.2, 0.3, 0.3
SEGMENTS = 3
SOURCES = ("drums", "bass", "other", "vocals")

Work = Iterator[float]
"""Something that takes time: each value is how many seconds pass until it goes on."""


class MachineError(AudioProcessingError):
    """The machine has failed, and not the song."""


class Script:
    """What befalls the songs of a name, one thing each time that one is separated.

    `die`, `stall`, `babble` (it says the same for ever), `lie`, `machine` (its disk is full), or an error's code.
    """

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}
        self.gpus: list[bool] = []
        """Of each CUDA device that torch shows, whether it works."""
        self.host: str | None = None
        """The machine of a cluster that has room for workers; empty while none has, and None without a cluster."""
        self.cluster_gpus = 0
        self.rooms = 1_000
        """How many more workers the machine has room for."""
        self.pids = itertools.count(10_000_001)

    def put(self, name: str, *what: str) -> None:
        self.of.setdefault(name, []).extend(what)

    def take(self, name: str) -> str:
        return self.of[name].pop(0) if self.of.get(name) else ""


class SimulatedWorker:
    """`demixd.supervisor.workers.manager.Worker`. Songs are separated, written, and decoded ahead in a lane each."""

    def __init__(
        self, post: Post, clock: SimulatedClock, folder: Path, script: Script, threads: int | None = None
    ) -> None:
        self._post, self._clock, self._folder, self._script = post, clock, folder, script
        self.threads = threads
        self.songs: list[str] = []
        """The names of the songs that it was to separate, in order."""
        self.pid = next(script.pids)
        self.is_alive = True
        self._lanes: dict[str, deque[tuple[str, Work]]] = {"main": deque(), "finish": deque(), "ahead": deque()}
        self._stopped: set[str] = set()
        self._ahead: dict[str, Prepare] = {}
        """What is to be decoded ahead, or is being, by job."""
        self._decoded: dict[str, Track] = {}
        self._facts: EngineFacts | None = None

    # ---- what a manager sees

    def send(self, message: ToWorker) -> None:
        if not self.is_alive:
            return
        self._note("orders", message)
        match message:
            case Warm():
                self._enter("main", "", self._warm(message))
            case Separate():
                self.songs.append(message.name)
                self._stopped.discard(message.job_id)
                self._enter("main", message.job_id, self._attempt(message.job_id, self._separate(message)))
            case Prepare():
                self._ahead[message.job_id] = message
                self._enter("ahead", message.job_id, self._prepare(message))
            case Stop(job_id=job_id):
                self._stop(job_id)
            case Forget(job_id=job_id):
                self._forget(job_id)

    def heard(self) -> None:
        """There is room for any number of lines."""

    def resident_bytes(self) -> int:
        return 1

    def close(self) -> None:
        self.is_alive = False

    def die(self, how: str = "killed by signal 9", *, is_lost: bool = False, is_ours: bool = False) -> None:
        """It ends, and its parent hears of it."""
        if self.is_alive:
            self.is_alive = False
            self._post(Died(self.pid, how, is_lost, is_ours))

    # ---- time

    def _enter(self, lane: str, job_id: str, work: Work) -> None:
        self._lanes[lane].append((job_id, work))
        if len(self._lanes[lane]) == 1:
            self._clock.after(0, lambda: self._go_on(lane))

    def _go_on(self, lane: str) -> None:
        waiting = self._lanes[lane]
        if not (self.is_alive and waiting):
            return
        try:
            pause = next(waiting[0][1])
        except StopIteration:
            waiting.popleft()
            pause = 0.0
        self._clock.after(pause, lambda: self._go_on(lane))

    def _has(self, name: str) -> bool:
        return (self._folder / name).exists()

    def _say(self, message: FromWorker) -> None:
        if self.is_alive:
            if not isinstance(message, Progressed) and self._has("said"):
                self._note("said", message)
            self._post(Said(self.pid, message))

    def _note(self, name: str, message: ToWorker | FromWorker) -> None:
        with (self._folder / name).open("ab") as log:
            log.write(msgspec.json.encode(message) + b"\n")

    # ---- what it does

    def _warm(self, order: Warm) -> Work:
        while self._script.host == "" or not self._script.rooms:
            self._say(Placed(host=None, message="No machine of the cluster has a free GPU."))
            yield WARM_S
        self._script.rooms -= 1
        if self._script.host is not None:
            self._say(Placed(host=self._script.host, gpus=self._script.cluster_gpus))
        yield WARM_S
        if self._has(f"missing-{order.model}"):
            self._say(Unready(error=Error(code=Code.MODEL_MISSING, message=f"The model {order.model} is not here.")))
            return
        weights = self._folder / f"weights-{order.model}"
        sha256 = weights.read_text() if weights.exists() else order.model
        facts: dict[str, Any] = {"device": self._device(order), "device_name": "none", "precision": "float32"}
        self._facts = EngineFacts(model=order.model, model_sha256=sha256, **facts)
        self._say(Ready(engine=self._facts, sources=SOURCES, seconds=WARM_S, gpus=len(self._script.gpus)))

    def _device(self, order: Warm) -> str:
        number = int(order.device.partition(":")[2] or 0)
        wants_gpu = order.device.startswith(("auto", "cuda"))
        return f"cuda:{number}" if wants_gpu and self._script.gpus[number : number + 1] == [True] else "cpu"

    def _attempt(self, job_id: str, work: Work) -> Work:
        try:
            yield from work
        except StopProcessingError:
            self._say(Stopped(job_id=job_id))
        except AudioProcessingError as error:
            is_machines = isinstance(error, MachineError)
            self._say(Failed(job_id=job_id, error=Error.of(error), timing={}, is_machines=is_machines))

    def _tell(self, job_id: str, step: Step, fraction: float, segment_s: float | None = None) -> None:
        progress = Progress(fraction=fraction, step_fraction=fraction)
        at = Tick(step=step, progress=progress, message=step.value.capitalize(), segment_s=segment_s)
        self._say(Progressed(job_id=job_id, at=at))

    def _check(self, job_id: str) -> None:
        if job_id in self._stopped and not self._has("deaf"):
            raise StopProcessingError

    def _read(self, song: str) -> Track:
        """The song as it is now. Raises AudioProcessingError."""
        try:
            data = Path(song).read_bytes()
        except OSError as error:
            raise AudioProcessingError(Code.IO_ERROR, f"The song cannot be read: {error.strerror}.") from error
        if b"POISON" in data:
            self.die("killed by signal 11")
        return track_of(data)

    def _separate(self, order: Separate) -> Work:
        job_id = order.job_id
        self._check(job_id)
        self._tell(job_id, Step.DECODE, 0.0)
        while job_id in self._ahead:
            self._check(job_id)
            yield 0.05
        track = self._decoded.pop(job_id, None)
        if track is None:
            yield DECODE_S
            self._check(job_id)
            track = self._read(order.song)
        self._say(Decoded(job_id=job_id, track=track))
        self._tell(job_id, Step.SEPARATE, 0.04)
        began = self._clock.now()
        yield from self._misfortune(order, self._script.take(order.name))
        segment = 0
        while segment < SEGMENTS or self._has("hold"):
            yield SEGMENT_S
            self._check(job_id)
            if self._has("work-full"):
                (self._folder / "work-full").unlink()
                raise AudioProcessingError(Code.NO_SPACE, "There is no space left for separating; free some.")
            segment += 1
            share = min(0.9, 0.2 * segment)
            self._tell(job_id, Step.SEPARATE, share, segment_s=SEGMENT_S)
        timing = {"decode_s": DECODE_S, "separate_s": round(self._clock.now() - began, 3)}
        self._enter("finish", job_id, self._attempt(job_id, self._finish(order, track, timing)))

    def _misfortune(self, order: Separate, what: str) -> Work:
        assert self._facts is not None
        match what:
            case "":
                return
            case "die":
                self.die("killed by signal 11")
            case "stall":
                yield float("inf")
            case "babble":
                while True:
                    yield 0.5
                    self._tell(order.job_id, Step.SEPARATE, 0.04)
            case "lie":
                lie = {"files": (), "gain_db": 0.0, "timing": {}, "warnings": ()}
                self._say(Finished(job_id=order.job_id, engine=self._facts, **lie))
                yield float("inf")
            case "machine":
                raise MachineError(Code.NO_SPACE, "On box: its disk is full.")
            case _:
                raise AudioProcessingError(Code(what), f"The worker was told to say {what}.")

    def _finish(self, order: Separate, track: Track, timing: dict[str, float]) -> Work:
        assert self._facts is not None
        began = self._clock.now()
        job_id, options = order.job_id, order.options
        self._check(job_id)
        self._tell(job_id, Step.ENCODE, 0.94)
        while self._has("hold-encode"):
            yield 0.1
            self._check(job_id)
        yield ENCODE_S
        self._check(job_id)
        if self._has("full"):
            raise AudioProcessingError(Code.NO_SPACE, "There is no space left for the stems; free some.")
        format = track.format if options.format == "source" else options.format
        files = [self._write(order, stem, format, track) for stem in options.stems]
        extras = []
        for kind, name in {"peaks": PEAKS, "page": PAGE}.items():
            if getattr(options, kind):
                size, sha256 = self._put(order, name, b"{}\n")
                extras.append(ExtraFile(kind=kind, name=name, bytes=size, sha256=sha256))
        self._say(
            Finished(
                job_id=job_id,
                files=tuple(files),
                extras=tuple(extras),
                gain_db=0.0,
                engine=self._facts,
                timing={**timing, "mix_s": 0.0, "encode_s": round(self._clock.now() - began, 3)},
                warnings=track.warnings,
            )
        )

    def _write(self, order: Separate, stem: str, format: str, track: Track) -> StemFile:
        options = order.options
        ext = FORMATS[format].suffix
        name = file_name(options.naming, stem=stem, ext=ext, model=options.model, leaf=order.name)
        size, sha256 = self._put(order, name, f"{stem} of {order.sha256}, {track.frames} frames\n".encode())
        facts = {"rate": track.rate, "channels": track.channels, "peak": 0.5, "gain_db": 0.0, "subtype": track.subtype}
        return StemFile(stem=stem, name=name, format=format, frames=track.frames, bytes=size, sha256=sha256, **facts)

    def _put(self, order: Separate, name: str, data: bytes) -> tuple[int, str]:
        """Write a file into the job's result; its bytes and sha256."""
        path = Path(order.out, name)
        try:
            for folder in reversed(path.relative_to(order.out).parents[:-1]):
                Path(order.out, folder).mkdir(exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise AudioProcessingError(Code.IO_ERROR, f"The disk failed at a stem: {error.strerror}.") from error
        return len(data), hashlib.sha256(data).hexdigest()

    def _prepare(self, order: Prepare) -> Work:
        """Decode ahead, unless it is forgotten first."""
        track, error = None, None
        try:
            yield DECODE_S
            track = self._read(order.snapshot)
        except AudioProcessingError as failure:
            error = Error.of(failure)
        while self._has("hold-ahead") and self._ahead.get(order.job_id) is order:
            yield 0.1
        if self._ahead.get(order.job_id) is order:
            del self._ahead[order.job_id]
            if track is not None:
                self._decoded[order.job_id] = track
            self._say(Prepared(job_id=order.job_id, error=error))

    def _forget(self, job_id: str) -> None:
        self._ahead.pop(job_id, None)
        self._decoded.pop(job_id, None)

    def _stop(self, job_id: str) -> None:
        self._stopped.add(job_id)
        self._forget(job_id)
        lane = self._lanes["finish"]
        waiting = [each for number, each in enumerate(lane) if number and each[0] == job_id]
        if waiting and not self._has("deaf"):
            lane.remove(waiting[0])
            self._say(Stopped(job_id=job_id))
