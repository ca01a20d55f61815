"""What goes between the supervisor and an actor that has begun: orders there, messages back, and songs and stems with them.

A stop goes past what is being sent. A message about a song that the worker does not have any more is late, and thrown away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec

from demixd.errors import Code
from demixd.protocol.job import Error
from demixd.protocol.progress import Progress, Step, Tick
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
from demixd.worker.ray.cluster import Cluster
from demixd.worker.ray.far import DEAD, SILENT_S, Far, GoneError
from demixd.worker.ray.freight import Attempt
from demixd.worker.ray.orders import Begin
from demixd.worker.ray.trouble import of_its_disk, on_its_way, without_its_gpu

log = logging.getLogger("demixd.ray")

Say = Callable[[FromWorker | bytes], Awaitable[None]]

_to_worker = msgspec.json.Decoder(ToWorker)
_from_worker = msgspec.json.Decoder(FromWorker)


class Traffic:
    """That of one worker. `say`: to the supervisor."""

    def __init__(self, begin: Begin, cluster: Cluster, far: Far, say: Say) -> None:
        self._begin, self._cluster, self._far, self._say = begin, cluster, far, say
        self._waiting: list[Warm | Prepare | Separate] = []
        self._has_more = asyncio.Event()
        self._attempts: dict[str, Attempt] = {}
        """Of the jobs that the worker has, or will have."""
        self._prepared: set[str] = set()
        self._separating: set[str] = set()
        """Of those, the jobs that the worker was told to prepare, and to separate."""
        self._moving: dict[str, asyncio.Task[None]] = {}
        """Whose songs, or stems, are on their way."""
        self._ordering = asyncio.Lock()
        self._is_in_pieces = False
        """Whether a song had to be sent."""
        self._refused = ""
        """Why this machine can have no songs for the moment."""

    async def flow(self, orders: asyncio.Queue[bytes]) -> None:
        """Until the worker is gone. Raises GoneError, RayError, and TimeoutError where its machine does not answer."""
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks = [asyncio.create_task(each) for each in (self._obey(orders), self._carry(), self._hear())]
        try:
            done, _ = await asyncio.wait([*tasks, self._gone], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not self._gone.cancel():
                self._gone.exception()  # which a task may have raised as well

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
                case order:
                    self._waiting.append(order)
                    self._has_more.set()

    async def _give_up(self, order: Stop | Forget) -> None:
        """A song is not wanted any more, wherever it is. Where the worker separates it, that is who answers a stop."""
        job_id = order.job_id
        moving = self._moving.get(job_id)
        if job_id in self._separating and moving is None:
            await self._order(order)
            return
        waiting = [each for each in self._waiting if isinstance(each, Warm) or each.job_id != job_id]
        is_known = moving is not None or job_id in self._attempts or len(waiting) < len(self._waiting)
        self._waiting = waiting
        if moving is not None:
            moving.cancel()
            await asyncio.wait({moving})
        if job_id in self._prepared:
            await self._order(Forget(job_id=job_id))
        await self._end(job_id)
        if is_known and isinstance(order, Stop):
            await self._say(Stopped(job_id=job_id))

    async def _carry(self) -> None:
        """Hand orders on, one after the other."""
        while True:
            while not self._waiting:
                self._has_more.clear()
                await self._has_more.wait()
            order = self._waiting.pop(0)
            await (self._order(self._warmed(order)) if isinstance(order, Warm) else self._hand_on(order))

    async def _hand_on(self, order: Prepare | Separate) -> None:
        """Have the song lie on the worker's machine, and give the order with the paths that it has there."""
        job_id = order.job_id
        if job_id not in self._attempts:
            task = self._move(job_id, self._bring(order))
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        if (attempt := self._attempts.get(job_id)) is None:
            return  # it was given up, or could not be brought
        there = {"tmp": attempt.tmp_there}
        if not self._far.is_here:
            there["work"] = self._far.facts["folder"]
        if isinstance(order, Separate):
            there |= {"song": attempt.song_there, "out": attempt.out_there}
            self._separating.add(job_id)
        else:
            there |= {"snapshot": attempt.song_there}
            self._prepared.add(job_id)
        await self._order(msgspec.structs.replace(order, **there))

    def _move(self, job_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin to send a song, or to fetch its stems; a stop cancels it."""
        task = self._moving[job_id] = asyncio.create_task(work)

        def over(task: asyncio.Task[None]) -> None:
            del self._moving[job_id]
            error = None if task.cancelled() else task.exception()
            if isinstance(error, GoneError) and not self._gone.done():
                self._gone.set_exception(error)  # what else there is `_hear` meets, too

        task.add_done_callback(over)
        return task

    async def _order(self, order: ToWorker) -> None:
        async with self._ordering:  # one after the other, as they come
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
        for here, there in sorted(self._begin.path_map, key=lambda pair: len(pair[0]), reverse=True):
            if path.is_relative_to(here):
                return str(there / path.relative_to(here))
        return str(path)

    async def _bring(self, order: Prepare | Separate) -> None:
        """Bring the song; where that fails the supervisor is told."""
        job_id, is_wanted = order.job_id, isinstance(order, Separate)
        song, tmp = Path(order.song if isinstance(order, Separate) else order.snapshot), Path(order.tmp)
        attempt = self._attempts[job_id] = Attempt(self._far.call, tmp, tmp.with_name("out"))
        message = f"Sending the song to {self._far.host}"

        async def told(fraction: float) -> None:
            # A little, so that it is seen to get further: decoding begins at 0. Nobody minds it of a song that is sent ahead.
            tick = Tick(step=Step.DECODE, progress=Progress(fraction=fraction / 1000), message=message)
            await self._say(Progressed(job_id=job_id, at=tick))

        try:
            await attempt.bring(song, self._far.facts["folder"], self._there, told)
            if not (attempt.is_by_path or self._is_in_pieces):
                self._is_in_pieces = True
                root = attempt.root
                log.info(
                    "songs go to %s in pieces: %s is not seen as %s there", self._far.host, root, self._there(root)
                )
        except asyncio.CancelledError:
            await self._end(job_id)
            raise
        except DEAD:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            await self._end(job_id)
            failed = self._lost(job_id, {}, error, tmp)
            await self._say(failed if is_wanted else Prepared(job_id=job_id, error=failed.error))
            self._leave_if_refused()

    async def _end(self, job_id: str) -> None:
        """Nothing more is wanted of the attempt at a job."""
        self._separating.discard(job_id)
        self._prepared.discard(job_id)
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
                if self._begin.gpus and message.engine.device == "cpu" and not message.engine.fallback:
                    message = without_its_gpu(message, self._far.host)
            if isinstance(message, Failed):
                message = self._judged(message)
            if isinstance(message, Failed | Stopped):
                await self._end(message.job_id)
            await self._say(message)
            self._leave_if_refused()

    def _judged(self, failed: Failed) -> Failed:
        """The failure as the supervisor has to hear it."""
        is_by_path = self._attempts[failed.job_id].is_by_path
        error = None if is_by_path else of_its_disk(failed.error, self._far.host)
        if error is None:
            return failed
        if failed.error.code is not Code.TOO_LARGE:  # then other songs do not fit either
            self._refused = error.message
        return msgspec.structs.replace(failed, error=error, is_machines=True)

    def _lost(self, job_id: str, timing: dict[str, float], error: Exception, root: Path) -> Failed:
        """That a song was lost on its way. `root`: a folder on the outbox's disk. Raises GoneError."""
        why, is_machines = on_its_way(error, self._far.host, root)
        if is_machines:
            self._refused = why.message
        return Failed(job_id=job_id, error=why, timing=timing, is_machines=is_machines)

    def _leave_if_refused(self) -> None:
        """Have the worker go to another machine, once it has no song any more."""
        if self._refused and not self._separating and not self._gone.done():
            self._gone.set_exception(GoneError(self._refused, is_lost=True, is_refused=True))

    def _compare(self, model: str, sha256: str) -> None:
        """Raise GoneError where another machine has another model under this name."""
        for host, name, known in self._cluster.warm.values():
            if name == model and known != sha256:
                mine = f"{self._far.host} has another {model} ({sha256[:8]})"
                raise GoneError(
                    f"{mine} than {host} ({known[:8]}): give both the same files", is_lost=True, is_refused=True
                )
        self._cluster.warm[self] = (self._far.host, model, sha256)

    async def _fetch(self, message: Finished) -> None:
        """Have the stems come, and say that the song is finished."""
        job_id, host, timing = message.job_id, self._far.host, message.timing
        attempt, end = self._attempts[job_id], cast(FromWorker, message)
        try:
            if why := await attempt.fetch(message.all_files):
                error = Error(code=Code.IO_ERROR, message=f"The stems from {host} are damaged: {why}.", retryable=True)
                end = Failed(job_id=job_id, error=error, timing=timing)
        except asyncio.CancelledError:
            await self._end(job_id)
            raise  # `_give_up` answers
        except DEAD:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            end = self._lost(job_id, timing, error, attempt.root)
        await self._end(job_id)
        await self._say(end)
        self._leave_if_refused()
