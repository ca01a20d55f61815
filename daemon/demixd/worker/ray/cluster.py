"""The cluster, as this process has reached it: its machines, who of our actors is on which, and whether it answers.

Connecting to one that is away is tried again for ever. One that was there and went is the end of this process, since Ray's
part of it cannot be trusted to come back; the supervisor starts another.
"""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from demixd.engine import host
from demixd.spool.processes import command_of
from demixd.worker.ray.actor import Actor
from demixd.worker.ray.orders import Begin
from demixd.worker.ray.scratch import Scratch

log = logging.getLogger("demixd.ray")

LOOK_S = 2.0
"""How often the cluster is looked at, and how often one that is away is tried."""

SILENT = 5
"""Looks without an answer after which the cluster is gone."""

STORE_BYTES = 128 << 20
"""Of the object store of a cluster that is this machine's alone; Ray takes no less than 75 MiB."""

QUIET_S = 8.0
"""How long the cluster may take to answer before that is told."""

FATE_S = 20.0
"""How long it may take until it is known whether a machine went, or the actor on it alone."""

AVOID_S = 30.0
"""How long a machine is left alone that could not be used."""

LOST_STATUS = 75
"""The exit status when the cluster is gone (sysexits' EX_TEMPFAIL)."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster that is there. `room`: for how many of our actors."""

    id: str
    host: str
    gpus: int
    room: float


class Cluster:
    """One cluster. All methods but `keep` come back at once, unless they say otherwise."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self.is_reached = asyncio.Event()
        self._obstacle = ""
        self._machines: dict[str, Machine] = {}
        self._placed: dict[str, int] = {}
        self._avoided: dict[str, tuple[float, str]] = {}
        """Machines that could not be used: until when (monotonic), and why."""
        self._scratch: Scratch | None = None
        self.warm: dict[object, tuple[str, str, str]] = {}
        """What each worker that is there has warm: its host, the model, and the sha256 of that."""

    @property
    def gpus(self) -> int:
        return sum(each.gpus for each in self._machines.values())

    @property
    def obstacle(self) -> str:
        """Why no worker can be placed, as a sentence; empty while that is not known."""
        if not self.is_reached.is_set():
            return self._obstacle
        now, name = time.monotonic(), f"cluster ({self._begin.address})"
        if why := [text for each, (until, text) in self._avoided.items() if until > now and each in self._machines]:
            return "; ".join(dict.fromkeys(why))
        what = "GPU" if self._begin.gpus else "processor to compute with"
        if not any(each.room for each in self._machines.values()):
            return f"No machine with a {what} is in the {name} now; songs wait for one"
        return f"Every {what} of the {name} has a worker already"

    # ---- whether it is there

    async def keep(self) -> NoReturn:
        """Connect to it, and watch it; the end of the process where it goes."""
        while not self.is_reached.is_set():
            try:
                connecting = asyncio.create_task(asyncio.to_thread(self._connect))
                if not (await asyncio.wait({connecting}, timeout=QUIET_S))[0]:
                    self._note(f"The cluster ({self._begin.address}) has been asked, and has not answered yet")
                await connecting
                self._machines = await asyncio.to_thread(self._seen)
                self.is_reached.set()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is tried again
                self._note(_why(error, self._begin.address))
                await asyncio.to_thread(ray.shutdown)
                await asyncio.sleep(LOOK_S)
        log.info("the cluster (%s) is reached", self._begin.address)
        failed = 0
        while failed < SILENT:
            try:
                self._machines = await asyncio.wait_for(asyncio.to_thread(self._seen), 2 * LOOK_S)
                failed = 0
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is no answer
                log.debug("the cluster was looked at in vain: %r", error)
                failed += 1
            await asyncio.sleep(LOOK_S)
        log.warning("the cluster (%s) does not answer any more", self._begin.address)
        os._exit(LOST_STATUS)

    def _note(self, why: str) -> None:
        if why != self._obstacle:
            log.warning("%s", why)
        self._obstacle = why

    def _connect(self) -> None:
        """Raises what Ray raises, and OSError where nobody listens."""
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "demixd"}
        address = self._begin.address
        if address == "local":
            self._scratch = self._scratch or Scratch(Path(tempfile.gettempdir()), "demixd-ray-")
            # In a folder of ours: Ray opens its own to everybody.
            here: dict[str, Any] = {
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": f"{self._scratch.path}/ray",
                "include_dashboard": False,
            }
            ray.init(address=address, object_store_memory=STORE_BYTES, **here, **quiet)
            return
        if address != "auto":
            name, _, port = address.rpartition(":")
            socket.create_connection((name.strip("[]"), int(port)), LOOK_S).close()  # Ray would wait for a minute
        ray.init(address=address, **quiet)

    def _seen(self) -> dict[str, Machine]:
        """The machines that are there. Raises RpcError where the cluster does not answer."""
        # ray.nodes() alone would wait for ever.
        worker: Any = ray._private.worker.global_worker
        worker.gcs_client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=LOOK_S)
        found: dict[str, Machine] = {}
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        for node in nodes:
            resources = node.get("Resources", {})
            gpus = int(resources.get("GPU", 0))
            room = gpus if self._begin.gpus else float("inf") if resources.get("CPU") else 0
            if node["Alive"]:
                found[node["NodeID"]] = Machine(
                    id=node["NodeID"], host=node["NodeManagerHostname"], gpus=gpus, room=room
                )
        return found

    def stop(self) -> None:
        """Leave it; a cluster of this machine's alone ends. Waits for that."""
        ray.shutdown()
        if self._scratch is not None:
            self._scratch.remove()

    # ---- who is where

    def place(self) -> Machine | None:
        """The machine for another actor, which counts as taken until `leave`; None where none has room."""
        now = time.monotonic()
        self._avoided = {each: told for each, told in self._avoided.items() if told[0] > now}
        free = [
            (self._placed.get(each.id, 0), each.id)
            for each in self._machines.values()
            if each.id not in self._avoided and self._placed.get(each.id, 0) < each.room
        ]
        if not free:
            return None
        taken, chosen = min(free)
        self._placed[chosen] = taken + 1
        return self._machines[chosen]

    def leave(self, machine: Machine) -> None:
        self._placed[machine.id] -= 1

    def avoid(self, machine: Machine, why: str) -> None:
        """Leave a machine alone for a while."""
        if machine.id not in self._avoided:
            log.warning("%s", why)
        self._avoided[machine.id] = (time.monotonic() + AVOID_S, why)

    def actor(self, machine: Machine, threads: int | None) -> Any:
        """A new actor there, which lives as long as somebody has it."""
        where = NodeAffinitySchedulingStrategy(machine.id, soft=False)
        # One that died is not restarted: a new one is there as soon, and why the old one died is told at once, and in words.
        wanted = {"max_restarts": 0, "max_task_retries": 0, "num_cpus": 0, "num_gpus": self._begin.gpus}
        return ray.remote(Actor).options(scheduling_strategy=where, **wanted).remote(threads)

    async def fate(self, machine: Machine, error: Exception) -> bool:
        """Whether an actor was lost with its machine, or the line to it, rather than died alone. Waits until it is known."""
        until = time.monotonic() + FATE_S
        while time.monotonic() < until:
            if isinstance(error, ActorDiedError) and "node has died" not in str(error):
                return False
            with contextlib.suppress(RayError, TimeoutError, ConnectionError):
                self._machines = await asyncio.wait_for(asyncio.to_thread(self._seen), 2 * LOOK_S)
            if machine.id not in self._machines or isinstance(error, ActorDiedError):
                return True
            if not isinstance(error, ActorUnavailableError):
                return False
            await asyncio.sleep(LOOK_S / 4)
        return True


def _why(error: Exception, address: str) -> str:
    """Why the cluster cannot be used, as a sentence."""
    name, said = f"The cluster ({address})", str(error).strip().splitlines() or [type(error).__name__]
    if address != "local":
        if isinstance(error, AuthenticationError) or not (
            os.environ.get(host.RAY_TOKEN) or host.ray_token_file().is_file()
        ):
            return f"{name} asks for a token: put it into ~/.ray/auth_token of the daemon's user"
        if isinstance(error, OSError) and error.strerror:
            return f"{name} cannot be reached: {error.strerror}; it is looked for until it answers"
        if isinstance(error, ConnectionError) and not _is_node():
            how = (
                f"`ray start --address={address if ':' in address else 'HOST:PORT'} --num-cpus=0 --num-gpus=0 --block`"
            )
            return f"{name} cannot be used: no node of it runs on this machine; start one, {how}"
        if isinstance(error, ConnectionError):
            return f"{name} cannot be used: it does not answer, or its token is another than this user's"
    return f"{name} cannot be used: {said[0][:300]}"


def _is_node() -> bool:
    """Whether a node of any cluster runs on this machine, as far as this user sees."""
    return any(command_of(int(path.name)) == "raylet" for path in Path("/proc").glob("[0-9]*"))
