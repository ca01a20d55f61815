"""What goes between the supervisor and an actor, with an actor and a cluster of the test's own."""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.errors import Code
from demixd.protocol.job import EngineFacts, Error, StemFile
from demixd.protocol.options import Defaults
from demixd.protocol.progress import Progress, Step, Tick
from demixd.spool import private
from demixd.worker.messages import (
    Failed,
    Finished,
    Forget,
    FromWorker,
    Prepare,
    Progressed,
    Ready,
    Separate,
    Stop,
    Stopped,
    ToWorker,
)

if importlib.util.find_spec("ray") is None:
    pytest.skip("no Ray: see config/requirements-ray.lock", allow_module_level=True)

from demixd.worker.ray.far import Far, GoneError
from demixd.worker.ray.freight import Attempt
from demixd.worker.ray.orders import Begin
from demixd.worker.ray.traffic import Traffic

JOB, OTHER = "0" * 32, "1" * 32
PIECES = Begin(address="local", gpus=0, path_map=())
FACTS = {
    "host": "box",
    "is_here": False,
    "folder": "/box",
    "models": "/models",
    "repo": None,
    "recorded": None,
    "compiled": None,
}


class Box(Far):
    """An actor that sees no folder of ours; `orders` is what its worker was told, and `says` what it is to say."""

    def __init__(self) -> None:
        super().__init__(None)
        self.facts = dict(FACTS)
        self.orders: list[ToWorker] = []
        self.calls: list[tuple[object, ...]] = []
        self.says: asyncio.Queue[FromWorker] = asyncio.Queue()
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.error: Exception | None = None

    async def call(self, method: str, *given: Any) -> Any:
        self.calls.append((method, *given))
        match method:
            case "order":
                self.orders.append(msgspec.json.decode(given[0], type=ToWorker))
            case "sees":
                return False
            case "hear":
                return [msgspec.json.encode(await self.says.get()) + b"\n"], ""
            case "store":
                await self.may_store.wait()
                if self.error:
                    raise self.error
        return None


class Wire:
    """One worker's traffic, from both ends."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.box = Box()
        self.heard: asyncio.Queue[FromWorker] = asyncio.Queue()
        self.orders: asyncio.Queue[bytes] = asyncio.Queue()
        self.traffic = Traffic(PIECES, cluster, self.box, self._say)
        self.job = folder / ".demixd" / JOB
        private.make(folder, folder / ".demixd", ())
        private.make(folder, self.job, ("tmp", "out"))
        (self.job / "tmp" / "song").write_bytes(bytes(100))

    async def _say(self, message: FromWorker | bytes) -> None:
        assert not isinstance(message, bytes)
        self.heard.put_nowait(message)

    def order(self, message: ToWorker) -> None:
        self.orders.put_nowait(msgspec.json.encode(message))

    def separate(self) -> Separate:
        return Separate(
            job_id=JOB,
            name="song.wav",
            song=str(self.job / "tmp" / "song"),
            sha256="0" * 64,
            tmp=str(self.job / "tmp"),
            out=str(self.job / "out"),
            work="/here/work",
            options=Defaults().of("demo", None),
            max_duration_s=60.0,
        )

    async def next(self, kind: type[FromWorker]) -> Any:
        """The next message of a kind that comes back; others are passed over."""
        while not isinstance(message := await asyncio.wait_for(self.heard.get(), 10), kind):
            pass
        return message


class Cluster:
    gpus = 1

    def __init__(self) -> None:
        self.warm: dict[object, tuple[str, str, str]] = {}


def talk(folder: Path, talking: Callable[[Wire], Awaitable[None]], cluster: Any = None) -> None:
    """Have a test talk while the traffic flows."""

    async def both() -> None:
        wire = Wire(folder, cluster or Cluster())
        flowing = asyncio.create_task(wire.traffic.flow(wire.orders))
        try:
            await talking(wire)
        finally:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
            await wire.traffic.stop()
        assert [path.name for path in wire.job.iterdir() if "-" in path.name] == [], "nothing is left"

    asyncio.run(both())


async def ordered(wire: Wire, kind: type[ToWorker]) -> Any:
    """The first order of a kind that the worker has got."""
    for _ in range(1000):
        if found := [each for each in wire.box.orders if isinstance(each, kind)]:
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError(f"no {kind}")


def progress(job_id: str) -> Progressed:
    return Progressed(job_id=job_id, at=Tick(step=Step.SEPARATE, progress=Progress(fraction=0.5), message=""))


def test_a_song_gets_the_paths_of_the_other_machine(tmp_path: Path) -> None:
    async def talking(wire: Wire) -> None:
        wire.order(wire.separate())
        order = await ordered(wire, Separate)
        assert order.song.startswith("/box/") and order.out.startswith("/box/") and order.work == "/box"
        assert order.job_id == JOB
        stored = [call for call in wire.box.calls if call[0] == "store"]
        assert stored == [("store", order.tmp.split("/")[2], 0, bytes(100))]

    talk(tmp_path, talking)


def test_what_is_said_of_a_song_that_is_over_is_thrown_away(tmp_path: Path) -> None:
    """A message that comes late, or is of a song that the worker was never given."""

    async def talking(wire: Wire) -> None:
        wire.order(wire.separate())
        await ordered(wire, Separate)
        for message in (progress(OTHER), progress(JOB), Stopped(job_id=JOB), progress(JOB), Stopped(job_id=JOB)):
            wire.box.says.put_nowait(message)
        wire.box.says.put_nowait(Ready(engine=engine("a"), sources=(), seconds=0.0))
        await wire.next(Ready)
        assert wire.box.says.empty()

    said: list[FromWorker] = []

    async def noting(wire: Wire) -> None:
        original = wire.heard.put_nowait
        wire.heard.put_nowait = lambda message: (said.append(message), original(message))[1]  # type: ignore[method-assign]
        await talking(wire)

    talk(tmp_path, noting)
    about = [message for message in said if getattr(message, "job_id", None)]
    assert [type(message) for message in about if message != about[0]] == [Progressed, Stopped]
    assert not [message for message in about if message.job_id == OTHER]  # type: ignore[union-attr]


def test_a_stop_goes_past_a_song_that_is_being_sent(tmp_path: Path) -> None:
    """It is answered at once, and the worker never hears of the song."""

    async def talking(wire: Wire) -> None:
        wire.box.may_store.clear()
        wire.order(wire.separate())
        while not [call for call in wire.box.calls if call[0] == "store"]:
            await asyncio.sleep(0.01)
        wire.order(Stop(job_id=JOB))
        assert await wire.next(Stopped) == Stopped(job_id=JOB)
        assert wire.box.orders == []
        assert [call[0] for call in wire.box.calls][-1] == "close"

    talk(tmp_path, talking)


def test_a_stop_goes_past_songs_that_wait_to_be_sent(tmp_path: Path) -> None:
    """While another one is on its way."""

    async def talking(wire: Wire) -> None:
        wire.box.may_store.clear()
        ahead = wire.separate()
        wire.order(Prepare(job_id=OTHER, snapshot=ahead.song, tmp=ahead.tmp, work=ahead.work, max_duration_s=60.0))
        wire.order(ahead)
        wire.order(Stop(job_id=JOB))
        assert await wire.next(Stopped) == Stopped(job_id=JOB)
        wire.box.may_store.set()
        await ordered(wire, Prepare)
        await asyncio.sleep(0.05)
        assert [type(order) for order in wire.box.orders] == [Prepare]

    talk(tmp_path, talking)


def test_a_stop_in_its_turn_while_it_is_sent_ahead(tmp_path: Path) -> None:
    """The song is on its way to be prepared when its turn comes, and then is not wanted: nothing of it reaches the worker."""

    async def talking(wire: Wire) -> None:
        wire.box.may_store.clear()
        turn = wire.separate()
        wire.order(Prepare(job_id=JOB, snapshot=turn.song, tmp=turn.tmp, work=turn.work, max_duration_s=60.0))
        while not [call for call in wire.box.calls if call[0] == "store"]:
            await asyncio.sleep(0.01)
        wire.order(turn)
        wire.order(Stop(job_id=JOB))
        assert await wire.next(Stopped) == Stopped(job_id=JOB)
        wire.box.may_store.set()
        await asyncio.sleep(0.05)
        assert wire.box.orders == [] and wire.heard.empty()

    talk(tmp_path, talking)


def test_a_stop_of_a_prepared_song_that_waits_for_its_turn(tmp_path: Path) -> None:
    """The worker forgets it, and the stop is answered here: the worker would not."""

    async def talking(wire: Wire) -> None:
        turn = wire.separate()
        ahead = Prepare(job_id=JOB, snapshot=turn.song, tmp=turn.tmp, work=turn.work, max_duration_s=60.0)
        wire.order(ahead)
        await ordered(wire, Prepare)
        wire.box.may_store.clear()
        wire.order(msgspec.structs.replace(ahead, job_id=OTHER))
        wire.order(turn)
        wire.order(Stop(job_id=JOB))
        assert await wire.next(Stopped) == Stopped(job_id=JOB)
        wire.box.may_store.set()
        while len(wire.box.orders) < 3:
            await asyncio.sleep(0.01)
        assert [type(order) for order in wire.box.orders] == [Prepare, Forget, Prepare]

    talk(tmp_path, talking)


def test_a_song_that_was_forgotten_may_come_again(tmp_path: Path) -> None:
    """What was to be done ahead is not wanted any more, and then its turn comes: while another one is still being sent."""

    async def talking(wire: Wire) -> None:
        wire.box.may_store.clear()
        turn = wire.separate()
        ahead = Prepare(job_id=OTHER, snapshot=turn.song, tmp=turn.tmp, work=turn.work, max_duration_s=60.0)
        wire.order(ahead)
        wire.order(msgspec.structs.replace(ahead, job_id=JOB))
        wire.order(Forget(job_id=JOB))
        wire.order(turn)
        await asyncio.sleep(0.05)
        wire.box.may_store.set()
        await ordered(wire, Separate)
        assert [type(order) for order in wire.box.orders] == [Prepare, Separate]

    talk(tmp_path, talking)


def test_whatever_goes_wrong_on_the_way_back_is_told(tmp_path: Path) -> None:
    """Stems that cannot be fetched fail the song, rather than leave it to itself."""

    async def talking(wire: Wire) -> None:
        wire.order(wire.separate())
        await ordered(wire, Separate)
        wire.box.says.put_nowait(finished("vocals\0.wav"))
        failed: Failed = await wire.next(Failed)
        assert failed.error.code == "internal-error"

    talk(tmp_path, talking)


def finished(name: str) -> Finished:
    facts: dict[str, Any] = {"format": "wav", "subtype": "PCM_16", "rate": 44100, "channels": 2, "frames": 1}
    stem = StemFile(stem="vocals", name=name, bytes=10, sha256="0" * 64, peak=1.0, gain_db=0.0, **facts)
    return Finished(job_id=JOB, files=(stem,), gain_db=0.0, engine=engine("a"), timing={}, warnings=())


def test_a_small_disk_there_is_no_fault_of_the_song(tmp_path: Path) -> None:
    """It may fit on another machine's: it waits for room, and the machine is named."""

    async def talking(wire: Wire) -> None:
        wire.order(wire.separate())
        await ordered(wire, Separate)
        error = Error(code=Code.TOO_LARGE, message="The song does not fit.", retryable=False)
        wire.box.says.put_nowait(Failed(job_id=JOB, error=error, timing={}))
        failed: Failed = await wire.next(Failed)
        assert (failed.error.code, failed.error.message) == ("too-large", "On box: The song does not fit.")
        assert failed.error.retryable and failed.is_machines
        wire.box.says.put_nowait(progress(JOB))
        await asyncio.sleep(0.05)
        assert not wire.traffic._gone.done(), "others may fit"

    talk(tmp_path, talking)


@pytest.mark.parametrize("code", [Code.NO_SPACE, Code.IO_ERROR])
def test_a_machine_whose_disk_fails_is_left(code: Code, tmp_path: Path) -> None:
    """Once its other song is done: the worker goes to another one, and the song waits for that."""

    async def flow() -> None:
        wire = Wire(tmp_path, Cluster())
        flowing = asyncio.create_task(wire.traffic.flow(wire.orders))
        wire.order(wire.separate())
        await ordered(wire, Separate)
        wire.traffic._separating.add(OTHER)
        error = Error(code=code, message="The disk is bad.")
        wire.box.says.put_nowait(Failed(job_id=JOB, error=error, timing={}))
        failed: Failed = await wire.next(Failed)
        assert (failed.error.code, failed.is_machines) == (code, True)
        await asyncio.sleep(0.05)
        assert not flowing.done()
        wire.traffic._attempts[OTHER] = Attempt(wire.box.call, wire.job / "tmp", wire.job / "out")
        wire.box.says.put_nowait(Stopped(job_id=OTHER))
        with pytest.raises(GoneError, match=r"On box: The disk is bad$") as gone:
            await asyncio.wait_for(flowing, 10)
        assert gone.value.is_refused and gone.value.is_ours, "a song that had begun there meanwhile was at no fault"
        await wire.traffic.stop()

    asyncio.run(flow())


def test_what_ray_loses_is_no_fault_of_the_song(tmp_path: Path) -> None:
    from ray.exceptions import OutOfDiskError

    async def talking(wire: Wire) -> None:
        wire.box.error = OutOfDiskError()
        wire.order(wire.separate())
        failed: Failed = await wire.next(Failed)
        assert (failed.error.code, failed.is_machines) == ("io-error", True)
        assert failed.error.message == "Ray has lost a part of the song on its way to or from box (OutOfDiskError)."

    talk(tmp_path, talking)


def test_a_gpu_that_torch_does_not_find_is_told(tmp_path: Path) -> None:
    async def talking(wire: Wire) -> None:
        wire.traffic._begin = msgspec.structs.replace(PIECES, gpus=1)
        wire.box.says.put_nowait(Ready(engine=engine("a"), sources=(), seconds=0.0))
        ready: Ready = await wire.next(Ready)
        assert ready.engine.fallback == "Ray has given it a GPU of box, and torch finds none there."

    talk(tmp_path, talking)


def test_an_actor_whose_folder_is_gone_is_given_up(tmp_path: Path) -> None:
    """Nothing more can be sent to it; another one has a folder of its own."""
    from ray.exceptions import RayTaskError

    async def flow() -> None:
        wire = Wire(tmp_path, Cluster())
        wire.box.error = RayTaskError("store", "", FileNotFoundError(2, "No such file or directory"))
        wire.order(wire.separate())
        with pytest.raises(GoneError, match="the folder of its songs on box is gone") as gone:
            await asyncio.wait_for(wire.traffic.flow(wire.orders), 10)
        assert gone.value.is_ours
        await wire.traffic.stop()

    asyncio.run(flow())


def test_the_longest_path_of_the_map_counts(tmp_path: Path) -> None:
    async def flow() -> None:
        wire = Wire(tmp_path, Cluster())
        wire.traffic._begin = msgspec.structs.replace(PIECES, path_map=(("/srv", "/all"), ("/srv/music", "/mnt/music")))
        assert wire.traffic._there(Path("/srv/music/outbox")) == "/mnt/music/outbox"
        assert wire.traffic._there(Path("/srv/musical")) == "/all/musical"
        assert wire.traffic._there(Path("/else")) == "/else"

    asyncio.run(flow())


def test_a_full_disk_there_fails_the_song(tmp_path: Path) -> None:
    """With the code that lets it wait, and the machine's name."""
    from ray.exceptions import RayTaskError

    async def talking(wire: Wire) -> None:
        wire.box.error = RayTaskError("store", "", OSError(28, "No space left on device"))
        wire.order(wire.separate())
        failed: Failed = await wire.next(Failed)
        assert (failed.error.code, "box" in failed.error.message) == ("no-space", True)
        assert failed.is_machines

    talk(tmp_path, talking)


def engine(sha256: str) -> EngineFacts:
    return EngineFacts(model="demo", model_sha256=sha256, device="cpu", device_name="x", precision="float32")


def test_another_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """While another machine has it warm; once that is gone, this one's counts."""
    cluster = Cluster()
    cluster.warm[object()] = ("nas", "demo", "b" * 64)

    async def flow() -> None:
        wire = Wire(tmp_path, cluster)
        wire.box.says.put_nowait(Ready(engine=engine("a" * 64), sources=(), seconds=0.0))
        with pytest.raises(GoneError, match=r"box has another demo \(aaaaaaaa\) than nas \(bbbbbbbb\)"):
            await asyncio.wait_for(wire.traffic.flow(wire.orders), 10)
        cluster.warm.clear()
        wire.box.says.put_nowait(Ready(engine=engine("a" * 64), sources=(), seconds=0.0))
        flowing = asyncio.create_task(wire.traffic.flow(wire.orders))
        await wire.next(Ready)
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        assert list(cluster.warm.values()) == [("box", "demo", "a" * 64)]
        await wire.traffic.stop()
        assert not cluster.warm

    asyncio.run(flow())
