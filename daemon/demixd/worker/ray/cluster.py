"""The cluster, as this process has reached it: its machines, who of our actors is on which, and whether it answers.

Connecting to one that is away is tried again for ever. One that was there and went is the end of this process, since Ray's
part of it cannot be trusted to come back; the supervisor starts another.
"""

import asyncio
import logging
import os
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from demixd.engine import host
from demixd.spool import processes
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

DIED_S = 2.0
"""How long a machine is looked at whose actor has died."""

NUMBER = re.compile(r"\d+")

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
        self._unanswered = 0
        """How many looks at it have had no answer since it last gave one."""
        self._scratch: Scratch | None = None
        self.warm: dict[object, tuple[str, str, str]] = {}
        """What each worker that is there has warm: its host, the model, and the sha256 of that."""

    @property
    def gpus(self) -> int:
        return sum(each.gpus for each in self._machines.values())

    @property
    def answers(self) -> bool:
        return self.is_reached.is_set() and not self._unanswered

    @property
    def obstacle(self) -> str:
        """Why no worker can be placed, as a sentence; empty while that is not known."""
        if not self.is_reached.is_set():
            return self._obstacle
        now, name = time.monotonic(), f"cluster ({self._begin.address})"
        if self._unanswered:
            return f"The {name} does not answer"
        if why := [text for each, (until, text) in self._avoided.items() if until > now and each in self._machines]:
            return "; ".join(dict.fromkeys(why))
        what = "GPU" if self._begin.gpus else "processor to compute with"
        if not any(each.room for each in self._machines.values()):
            if self._begin.address == "local" and self._begin.gpus:
                return 'Ray finds no GPU in this machine: set [model] device = "cpu", and [ray] workers to a number'
            return f"No machine with a {what} is in the {name} now; songs wait for one"
        return f"Every {what} of the {name} has a worker already"

    # ---- whether it is there

    async def keep(self) -> NoReturn:
        """Connect to it, and watch it; the end of the process where it goes."""
        token = _token()
        while not self.is_reached.is_set():
            try:
                connecting = asyncio.create_task(asyncio.to_thread(self._connect))
                if not (await asyncio.wait({connecting}, timeout=QUIET_S))[0] and not self._obstacle:
                    self._note(f"The cluster ({self._begin.address}) has been asked, and has not answered yet")
                await connecting
                self._machines = await asyncio.to_thread(self._seen)
                self.is_reached.set()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is tried again
                self._note(_why(error, self._begin.address))
                await asyncio.to_thread(ray.shutdown)
                await asyncio.sleep(LOOK_S)
                if _token() != token:
                    log.warning("the token is another one now, which Ray reads but once: beginning anew")
                    os._exit(LOST_STATUS)
        log.info("the cluster (%s) is reached", self._begin.address)
        while self._unanswered < SILENT:
            try:
                self._machines = await asyncio.wait_for(asyncio.to_thread(self._seen), 2 * LOOK_S)
                self._unanswered = 0
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is no answer
                log.debug("the cluster was looked at in vain: %r", error)
                self._unanswered += 1
            await asyncio.sleep(LOOK_S)
        log.warning("the cluster (%s) does not answer any more", self._begin.address)
        os._exit(LOST_STATUS)

    def _note(self, why: str) -> None:
        if NUMBER.sub("", why) != NUMBER.sub("", self._obstacle):  # Ray tells times, and names of files that have them
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
        if address == "auto":
            address = ray._private.utils.read_ray_address() or address
        if address != "auto":
            # Ray would wait for a minute, and would not say why.
            name, _, port = address.rpartition(":")
            socket.create_connection((name.strip("[]"), int(port)), LOOK_S).close()
            if not _has_token():
                raise ConnectionError("no token")  # without one the next line ends this process
            raylet: Any = ray._raylet
            raylet.GcsClient(address=address)
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
        if not found:
            raise ConnectionError("the cluster has no node any more, not even this machine's")
        return found

    def stop(self) -> None:
        """Leave it; a cluster of this machine's alone ends. Waits for that."""
        ray.shutdown()
        if self._scratch is not None:
            self._scratch.remove()

    # ---- who is where

    def place(self) -> Machine | None:
        """The machine for another actor, which counts as taken until `leave`; None where none has room."""
        if not self.answers:
            return None
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
        """Whether an actor was lost with its machine, or the line to it, rather than died alone. Waits until it is known: a
        node that is stopped ends its actors first."""
        if isinstance(error, ActorDiedError) and "node has died" in str(error):
            return True
        until = time.monotonic() + (FATE_S if isinstance(error, ActorUnavailableError) else DIED_S)
        while time.monotonic() < until:
            try:
                self._machines = await asyncio.wait_for(asyncio.to_thread(self._seen), 2 * LOOK_S)
            except Exception:  # noqa: BLE001 - whatever Ray raises, it is no answer
                self._unanswered = max(1, self._unanswered)  # how often, `keep` counts: workers ask all at once
                return True
            if machine.id not in self._machines:
                return True
            await asyncio.sleep(LOOK_S / 4)
        return isinstance(error, ActorUnavailableError)


def _why(error: Exception, address: str) -> str:
    """Why the cluster cannot be used, as a sentence."""
    name, said = f"The cluster ({address})", str(error).strip().splitlines() or [type(error).__name__]
    if "AF_UNIX path length" in str(error):
        return f"{name} cannot be used: Ray's sockets do not fit below {tempfile.gettempdir()}; set TMPDIR to a shorter path"
    if address != "local":
        where = f"${host.RAY_TOKEN}" if os.environ.get(host.RAY_TOKEN) else str(host.ray_token_file())
        if isinstance(error, AuthenticationError) and _has_token():
            return f"{name} refuses the token in {where}: put that of its head there"
        if isinstance(error, OSError) and error.strerror:
            return f"{name} cannot be reached: {error.strerror}; it is looked for until it answers"
        if isinstance(error, AuthenticationError) or not _has_token():
            return f"{name} asks for a token: put that of its head into {where}"
        if isinstance(error, ConnectionError) and not processes.runs("raylet"):
            how = (
                f"`ray start --address={address if ':' in address else 'HOST:PORT'} --num-cpus=0 --num-gpus=0 --block`"
            )
            return f"{name} cannot be used: no node of it runs on this machine; start one, {how}"
        if isinstance(error, ConnectionError):
            how = "RAY_TMPDIR has to be that of its node here" if address == "auto" else "set the address of its head"
            return f"{name} cannot be used: it does not answer; start its head, or {how}"
    return f"{name} cannot be used: {said[0][:300]}"


def _has_token() -> bool:
    """Whether this user has a token, right or wrong, or wants none."""
    wants_none = os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"
    return wants_none or bool(os.environ.get(host.RAY_TOKEN)) or (_token() or (0, 0))[1] > 0


def _token() -> tuple[int, int] | None:
    """By what another token in this user's file is noticed."""
    try:
        found = host.ray_token_file().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
