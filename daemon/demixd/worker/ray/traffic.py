"""What goes between the supervisor and an actor that has begun: orders there, messages back, and songs and stems with them.

A stop goes past what is being sent. A message about a song that the worker does not have any more is late, and thrown away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
from ray.exceptions import RayTaskError

from demixd.errors import Code, disk_error
from demixd.protocol.job import Error
from demixd.protocol.progress import Progress, Step, Tick
from demixd.spool.processes import boot_id
from demixd.worker.messages import (
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
    Warm,
)
from demixd.worker.ray.actor import LISTEN_S
from demixd.worker.ray.cluster import Cluster
from demixd.worker.ray.freight import Attempt
from demixd.worker.ray.orders import Begin

log = logging.getLogger("demixd.ray")

SILENT_S = 3 * LISTEN_S
"""An actor that has not answered for so long does not any more: its machine sleeps, or its process is held."""

Say = Callable[[FromWorker | bytes], Awaitable[None]]

_to_worker = msgspec.json.Decoder(ToWorker)
_from_worker = msgspec.json.Decoder(FromWorker)


class GoneError(Exception):
    """The worker is gone; the text says how. `is_lost`: with its machine, or the line to it."""

    def __init__(self, how: str, *, is_lost: bool) -> None:
        super().__init__(how)
        self.is_lost = is_lost


class Far:
    """An actor, and what it has said of its machine (`Actor.hello`)."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.facts: dict[str, Any] = {}

    @property
    def host(self) -> str:
        return str(self.facts["host"])

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return bool(self.facts["boot"] == boot_id())

    async def call(self, method: str, *given: object) -> Any:
        """What a method of the actor answers. Raises RayError, and what the method raises."""
        answer = asyncio.wrap_future(getattr(self.actor, method).remote(*given).future())
        answer.add_done_callback(
            lambda each: each.cancelled() or each.exception()
        )  # which may be wanted by nobody any more
        return await asyncio.shield(answer)  # and Ray does not know of that


class Traffic:
    """That of one worker. `say`: to the supervisor."""

    def __init__(self, begin: Begin, cluster: Cluster, far: Far, say: Say) -> None:
        self._begin, self._cluster, self._far, self._say = begin, cluster, far, say
        self._waiting: asyncio.Queue[Warm | Prepare | Separate] = asyncio.Queue()
        self._queued: set[str] = set()
        """Jobs with an order that waits, or whose order is skipped when its turn comes."""
        self._dropped: set[str] = set()
        self._attempts: dict[str, Attempt] = {}
        """Of the jobs that the worker has, or will have."""
        self._moving: dict[str, asyncio.Task[None]] = {}
        """Whose songs, or stems, are on their way."""

    async def flow(self, orders: asyncio.Queue[bytes]) -> None:
        """Until the worker is gone. Raises GoneError, RayActorError, and TimeoutError where its machine does not answer."""
        tasks = [asyncio.create_task(each) for each in (self._obey(orders), self._carry(), self._hear())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Give up what is on its way, and remove here what it has left."""
        self._cluster.warm.pop(self, None)
        for task in list(self._moving.values()):
            task.cancel()
        await asyncio.gather(*self._moving.values(), return_exceptions=True)
        for attempt in self._attempts.values():
            with contextlib.suppress(OSError):  # the job's folder is gone
                attempt.remove()

    # ---- from the supervisor to the worker

    async def _obey(self, orders: asyncio.Queue[bytes]) -> None:
        """Take the supervisor's orders."""
        while True:
            match _to_worker.decode(await orders.get()):
                case Stop() | Forget() as order:
                    await self._give_up(order)
                case Prepare() | Separate() as order:
                    self._queued.add(order.job_id)
                    self._waiting.put_nowait(order)
                case Warm() as order:
                    self._waiting.put_nowait(order)

    async def _give_up(self, order: Stop | Forget) -> None:
        """A song is not wanted any more, wherever it is."""
        job_id = order.job_id
        if (task := self._moving.get(job_id)) is not None:
            task.cancel()
            return
        if job_id in self._attempts:
            await self._order(order)
        if job_id in self._queued:
            self._dropped.add(job_id)
        if isinstance(order, Forget) or job_id in self._queued:
            await self._end(job_id)
            if isinstance(order, Stop):
                await self._say(Stopped(job_id=job_id))

    async def _carry(self) -> None:
        """Hand orders on, one after the other."""
        while True:
            order = await self._waiting.get()
            if isinstance(order, Warm):
                await self._order(self._warmed(order))
                continue
            self._queued.discard(order.job_id)
            if order.job_id in self._dropped:
                self._dropped.discard(order.job_id)
            else:
                task = self._move(order.job_id, self._send(order))
                await asyncio.wait({task})
                if not task.cancelled():
                    task.result()

    def _move(self, job_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin to send a song, or to fetch its stems; a stop cancels it."""
        task = self._moving[job_id] = asyncio.create_task(work)

        def over(task: asyncio.Task[None]) -> None:
            del self._moving[job_id]
            if not task.cancelled():
                task.exception()  # which `_hear` meets, too

        task.add_done_callback(over)
        return task

    async def _order(self, order: ToWorker) -> None:
        await self._far.call("order", msgspec.json.encode(order) + b"\n")

    def _warmed(self, order: Warm) -> Warm:
        """The order as the worker's machine has to get it: with its own folders."""
        if self._far.is_here:
            return order
        models, repo = self._there(Path(order.models)), order.repo and self._there(Path(order.repo))
        facts = self._far.facts
        return msgspec.structs.replace(
            order,
            models=models if models != order.models else facts["models"],
            repo=repo if repo != order.repo else facts["repo"],
            recorded=facts["recorded"],
            compiled=facts["compiled"],
        )

    def _there(self, path: Path) -> str:
        """What the worker's machine calls a path of ours."""
        for here, there in self._begin.path_map:
            if path.is_relative_to(here):
                return str(there / path.relative_to(here))
        return str(path)

    async def _send(self, order: Prepare | Separate) -> None:
        """Bring the song, and hand on the order with the paths that it has there."""
        job_id = order.job_id
        try:
            attempt = self._attempts.get(job_id) or await self._bring(order)
            there = {"tmp": attempt.tmp_there}
            if not self._far.is_here:
                there["work"] = self._far.facts["folder"]
            if isinstance(order, Separate):
                there |= {"song": attempt.song_there, "out": attempt.out_there}
            else:
                there |= {"snapshot": attempt.song_there}
            await self._order(msgspec.structs.replace(order, **there))
        except asyncio.CancelledError:
            await self._end(job_id)
            if isinstance(order, Separate):
                await self._say(Stopped(job_id=job_id))
        except (OSError, RayTaskError) as error:
            await self._end(job_id)
            told = _told(self._far.host, error)
            is_ahead = isinstance(order, Prepare)
            await self._say(
                Prepared(job_id=job_id, error=told) if is_ahead else Failed(job_id=job_id, error=told, timing={})
            )

    async def _bring(self, order: Prepare | Separate) -> Attempt:
        is_wanted = isinstance(order, Separate)
        song, tmp = Path(order.song if isinstance(order, Separate) else order.snapshot), Path(order.tmp)
        attempt = self._attempts[order.job_id] = Attempt(self._far.call, tmp, tmp.with_name("out"))
        message = f"Sending the song to {self._far.host}"

        async def told(fraction: float) -> None:
            if is_wanted:  # a little, so that it is seen to get further: decoding begins at 0
                tick = Tick(step=Step.DECODE, progress=Progress(fraction=fraction / 1000), message=message)
                await self._say(Progressed(job_id=order.job_id, at=tick))

        await attempt.bring(song, self._far.facts["folder"], self._there, told)
        return attempt

    async def _end(self, job_id: str) -> None:
        """Nothing more is wanted of the attempt at a job."""
        if (attempt := self._attempts.pop(job_id, None)) is not None:
            with contextlib.suppress(OSError):  # the job's folder is gone
                await attempt.end()

    # ---- from the worker to the supervisor

    async def _hear(self) -> None:
        """Hand on what the worker says, until it has ended."""
        gpus = -1
        while True:
            if gpus != self._cluster.gpus:
                gpus = self._cluster.gpus
                await self._say(Placed(host=self._far.host, gpus=gpus))
            lines, how = await asyncio.wait_for(self._far.call("hear"), SILENT_S)
            for line in lines:
                await self._take(line)
            if how:
                raise GoneError(how, is_lost=False)

    async def _take(self, line: bytes) -> None:
        try:
            message = _from_worker.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            await self._say(line)  # the supervisor says what is wrong with it
            return
        job_id = getattr(message, "job_id", None)
        if job_id is not None and job_id not in self._attempts:
            log.warning("%s says %s of a song that it does not have", self._far.host, type(message).__name__)
        elif isinstance(message, Finished):
            self._move(message.job_id, self._fetch(message))
        else:
            if isinstance(message, Ready):
                self._cluster.warm.pop(self, None)
                self._compare(message.engine.model, message.engine.model_sha256 or "")
            if isinstance(message, Failed | Stopped):
                await self._end(message.job_id)
            await self._say(message)

    def _compare(self, model: str, sha256: str) -> None:
        """Raise GoneError where another machine has another model under this name."""
        for host, name, known in self._cluster.warm.values():
            if name == model and known != sha256:
                mine = f"{self._far.host} has another {model} ({sha256[:8]})"
                raise GoneError(f"{mine} than {host} ({known[:8]}): give both the same files", is_lost=True)
        self._cluster.warm[self] = (self._far.host, model, sha256)

    async def _fetch(self, message: Finished) -> None:
        """Have the stems come, and say that the song is finished."""
        job_id, host, timing = message.job_id, self._far.host, message.timing
        end: FromWorker = message
        try:
            if why := await self._attempts[job_id].fetch(message.files):
                error = Error(code=Code.IO_ERROR, message=f"The stems from {host} are damaged: {why}.", retryable=True)
                end = Failed(job_id=job_id, error=error, timing=timing)
        except asyncio.CancelledError:
            end = Stopped(job_id=job_id)
        except (OSError, RayTaskError) as error:
            end = Failed(job_id=job_id, error=_told(host, error), timing=timing)
        await self._end(job_id)
        await self._say(end)


def _told(host: str, error: Exception) -> Error:
    """An error of a disk, here or there, as one of ours."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    where = f"the song on {host}" if isinstance(error, RayTaskError) else f"the song on its way to or from {host}"
    if isinstance(cause, OSError):
        return Error.of(disk_error(cause, where))
    return Error(code=Code.INTERNAL_ERROR, message=f"{host} failed at the song; report it.", detail=str(error)[-300:])
