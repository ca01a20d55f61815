"""One worker: from the supervisor's line to an actor, and back.

    no machine has room --placed (null)--> an actor is there --placed--> lines go both ways (`traffic`) --> gone

A worker is one actor, from its start to its end; another one is another line. A line of the supervisor that ends is the
actor's end.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError

from demixd.spool import processes
from demixd.version import __version__
from demixd.worker.messages import LONGEST, FromWorker, Gone, Placed
from demixd.worker.ray.cluster import LOOK_S, Cluster, Machine
from demixd.worker.ray.far import SILENT_S, Far, GoneError
from demixd.worker.ray.orders import Begin
from demixd.worker.ray.traffic import Traffic

log = logging.getLogger("demixd.ray")


BEGIN_S = 20.0
"""How long an actor may take to begin: Python starts, and this program is loaded from its machine's disk."""

LEAVE_S = 2.0
"""How long an actor may take to remove what it has left on its machine's disk."""


class Connection:
    """The way of one worker. `threads`: how many it may compute with; None for all of its machine's."""

    def __init__(self, begin: Begin, cluster: Cluster, threads: int | None, line: socket.socket) -> None:
        self._begin, self._cluster, self._threads, self._line = begin, cluster, threads, line

    async def serve(self) -> None:
        """Until the line ends, or the worker is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._line, limit=LONGEST)
        orders: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(_read(reader, orders))
        working = asyncio.create_task(self._work(orders))
        try:
            await asyncio.wait({reading, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, working):
                task.cancel()
            await asyncio.gather(reading, working, return_exceptions=True)
            self._writer.close()

    async def _say(self, message: FromWorker | bytes) -> None:
        self._writer.write(message if isinstance(message, bytes) else msgspec.json.encode(message) + b"\n")
        with contextlib.suppress(ConnectionError):  # the end of the line is seen by who reads
            await self._writer.drain()

    async def _work(self, orders: asyncio.Queue[bytes]) -> None:
        try:
            machine, far = await self._placed()
            try:
                await self._serve_at(machine, far, orders)
            except GoneError as gone:
                if gone.is_refused:
                    self._cluster.avoid(machine, str(gone))
                raise
            finally:
                self._cluster.leave(machine)
                with contextlib.suppress(RayError, TimeoutError):
                    await asyncio.wait_for(far.call("leave"), LEAVE_S)
                ray.kill(far.actor)
        except GoneError as gone:
            await self._say(Gone(how=str(gone), is_lost=gone.is_lost, is_ours=gone.is_ours))
        except Exception as error:
            log.exception("a worker of the cluster is given up")
            await self._say(Gone(how=f"an internal error of demixd: {type(error).__name__}", is_lost=True))

    async def _serve_at(self, machine: Machine, far: Far, orders: asyncio.Queue[bytes]) -> None:
        """Raises GoneError once the worker is gone."""
        traffic = Traffic(self._begin, self._cluster, far, self._say)
        try:
            await traffic.flow(orders)
        except TimeoutError:
            raise GoneError(f"{machine.host} has not answered for {SILENT_S:.0f} s", is_lost=True) from None
        except OutOfMemoryError as error:
            self._cluster.avoid(machine, how := _too_little_memory(machine))
            raise GoneError(how, is_lost=True) from error  # a song may be too large for it
        except RayActorError as error:
            is_lost = await self._cluster.fate(machine, error)
            how = f"{machine.host} is lost" if is_lost else f"the process of its actor on {machine.host} ended"
            how = how if self._cluster.answers else "the cluster does not answer"
            raise GoneError(how, is_lost=is_lost) from error
        except RayError as error:
            how = f"Ray has lost what {machine.host} said: {type(error).__name__}"
            raise GoneError(how, is_lost=True, is_ours=True) from error
        finally:
            await traffic.stop()

    # ---- a machine for it

    async def _placed(self) -> tuple[Machine, Far]:
        """The machine with the worker's actor, which is ready for its first order."""
        told = ("", -1)
        while True:
            machine = self._cluster.place()
            if machine is not None:
                far = None
                try:
                    far = await self._begun(machine)
                finally:
                    if far is None:
                        self._cluster.leave(machine)
                if far is not None:
                    return machine, far
            now = (self._cluster.obstacle, self._cluster.gpus)
            if now[0] and now != told:
                await self._say(Placed(host=None, gpus=now[1], message=f"{now[0].rstrip('.')}."))
                told = now
            await asyncio.sleep(LOOK_S / 4)

    async def _begun(self, machine: Machine) -> Far | None:
        """The actor that has begun on the machine; None where it cannot be used, and is avoided."""
        far = Far(self._cluster.actor(machine, self._threads))
        why = ""
        try:
            far.facts = await self._while_it_answers(far.call("hello", processes.place()))
            why = _refusal(far)
        except TimeoutError:
            why = f"{machine.host} is not free: another program of the cluster has its GPU, or it is very slow"
        except OutOfMemoryError:
            why = _too_little_memory(machine)
        except RayError as error:
            is_missing = isinstance(error, ActorDiedError) and "ModuleNotFoundError" in str(error)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            how = "demixd is not installed where its Ray runs" if is_missing else lines[-1][:300]
            why = f"{machine.host} does not begin: {how}"
        if why:
            ray.kill(far.actor)
            if self._cluster.answers:
                self._cluster.avoid(machine, why)
            return None
        return far

    async def _while_it_answers(self, answer: Coroutine[Any, Any, Any]) -> Any:
        """What an actor says that begins. Raises TimeoutError after BEGIN_S, and as soon as the cluster does not answer."""
        waiting = asyncio.create_task(answer)
        until = time.monotonic() + BEGIN_S
        while not waiting.done():
            if time.monotonic() > until or not self._cluster.answers:
                waiting.cancel()
                raise TimeoutError
            await asyncio.wait({waiting}, timeout=LOOK_S / 4)
        return waiting.result()


def _too_little_memory(machine: Machine) -> str:
    return f"{machine.host} has too little memory: Ray has ended the actor there"


def _refusal(far: Far) -> str:
    """Why the other side cannot work for this one, as a sentence; empty where it can."""
    if far.facts["version"] != __version__:
        return f"{far.host} has demixd {far.facts['version']}, and this is {__version__}: install the same on both"
    return f"{far.host} cannot work: {far.facts['error']}" if far.facts["error"] else ""


async def _read(reader: asyncio.StreamReader, orders: asyncio.Queue[bytes]) -> None:
    """Take what the supervisor says, until its line ends."""
    while (line := await reader.readline()).endswith(b"\n"):
        orders.put_nowait(line)
