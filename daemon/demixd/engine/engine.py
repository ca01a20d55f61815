"""The warm model: its members stay on the device, have run once, and serve one song after the other.

(`demucs.apply.apply_model` moves every member to the device and back for each song.) Where an engine fails at a song,
that song, and no other, is done again by a simpler engine:

    half precision or compiled  ->  float32 eager  ->  the CPU  ->  the song fails
"""

import copy
import logging
import time
from typing import Any

import msgspec
import torch
from torch import Tensor

from demixd.engine import accuracy
from demixd.engine import batch as batches
from demixd.engine import device as devices
from demixd.engine.cache import Run
from demixd.engine.device import CPU
from demixd.engine.networks import Eager, Network, Reduced
from demixd.engine.segments import grid_of
from demixd.errors import AudioProcessingError, Code, DeviceLostError, ModelTooLargeError, is_out_of_memory
from demixd.protocol.job import EngineFacts

log = logging.getLogger(__name__)

HALVES = ("float16", "bfloat16")
"""What `precision = "auto"` tries on a GPU, in this order: float16 has three bits more, bfloat16 never overflows."""


class Engine:
    """A bag of models on a device. `accelerated`: the device is not the CPU, which can take its place."""

    def __init__(self, bag: Any, *, device: torch.device, facts: EngineFacts) -> None:
        self.members: list[Any] = [member.to(CPU).eval() for member in bag.models]
        self.weights: list[list[float]] = bag.weights
        self.sources: list[str] = list(bag.sources)
        self.rate = int(bag.samplerate)
        self.channels = int(bag.audio_channels)
        self.device = device
        self.facts = facts
        self.accelerated = device.type != "cpu"
        self.batch = 1
        self.on_stand_in = False
        """Whether a GPU was wanted and could not be had, so that the CPU serves."""
        self.warnings: tuple[str, ...] = ()
        """Warnings for the sidecar of every song."""
        # The networks on a GPU are copies: nothing can be copied back from a GPU that is lost.
        self.eager: list[Eager] = [
            Eager(copy.deepcopy(member) if self.accelerated else member, device) for member in self.members
        ]
        self.networks: list[Network] = list(self.eager)
        self._segments = [
            devices.to_device(accuracy.noise_and_tones(self.channels, grid_of(member, 0.0).segment), device)
            for member in self.members
        ]
        self.first_run_s = 0.0
        """How long the members took for their test segments, one after the other, in float32."""
        self.expected: list[Tensor] = []
        """The members' stems `[1, S, C, T]` of their test segments in float32, on the device."""

    @classmethod
    def warm(
        cls,
        bag: Any,
        *,
        name: str,
        sha256: str,
        device: str,
        precision: str = "auto",
        batch: int | str = "auto",
    ) -> "Engine":
        """An engine whose networks have run and are accurate: on `device`, else on the CPU, with the reason in its facts.

        `sha256` is the model's. Raises `AudioProcessingError` (BAD_MODEL) where the model gives no usable sound on the
        CPU either, and `ModelTooLargeError` where the GPU's memory does not hold it.
        """
        devices.settle()
        chosen, fallback = devices.choose(device)
        if chosen.type != "cpu":
            try:
                return cls._eager(bag, chosen, name, sha256, None)._by_speed(precision, batch)
            except torch.OutOfMemoryError as error:
                devices.give_back()
                raise ModelTooLargeError(_first_line(error)) from error
            except (RuntimeError, AudioProcessingError) as error:
                fallback = f"{chosen} failed at warm-up ({_first_line(error)}); using the CPU"
        engine = cls._eager(bag, CPU, name, sha256, fallback)._accurate(precision)[0]
        engine.batch = 1 if batch == "auto" else int(batch)
        engine.on_stand_in = fallback is not None
        return engine

    @classmethod
    def _eager(cls, bag: Any, device: torch.device, name: str, sha256: str, fallback: str | None) -> "Engine":
        """An engine in float32 that has run once."""
        facts = EngineFacts(
            model=name,
            model_sha256=sha256,
            device=str(device),
            device_name=devices.name_of(device),
            precision="float32",
            runtime="torch",
            fallback=fallback,
        )
        engine = cls(bag, device=device, facts=facts)
        began = time.perf_counter()
        engine.expected = [
            accuracy.reference(network, segment, name)
            for network, segment in zip(engine.eager, engine._segments, strict=True)
        ]
        engine.first_run_s = time.perf_counter() - began
        return engine

    def _accurate(self, precision: str) -> "list[Engine]":
        """This engine in each wanted precision that is accurate here; in float32 where none is, with the reasons."""
        wanted = {"auto": HALVES if self.accelerated else (), "float32": ()}.get(precision, (precision,))
        found: list[list[Network]] = []
        engine = self
        for each in wanted:
            if not self.accelerated and not devices.has(each):
                engine = engine.with_fallback(f"this processor has no {each}; float32 is used")
                continue
            try:
                networks: list[Network] = [Reduced(member, self.device, each) for member in self.members]
                faults = [each.fault for each in self.measure(networks) if each.fault]
            except (RuntimeError, ValueError) as error:
                faults = [f"{each} failed at warm-up ({_first_line(error)})"]
            if faults:
                engine = engine.with_fallback(f"{faults[0]}; it is not used")
            else:
                found.append(networks)
        return [self.with_networks(networks) for networks in found] or [engine]

    def _by_speed(self, precision: str, batch: int | str) -> "Engine":
        """This engine in the precision and with the batch that are the fastest of those that are wanted and possible."""
        engines = self._accurate(precision)
        if batch == "auto":
            trials = {each.facts.precision: batches.trial_on(each.networks[0], self._segments[0]) for each in engines}
            choice = batches.choose(trials, devices.free_bytes(self.device))
            engine = next(each for each in engines if each.facts.precision == choice.precision)
            engine.batch = choice.batch
        else:
            engine = engines[0]
            engine.batch = int(batch)
        del engines
        devices.give_back()
        return engine

    def measure(self, networks: list[Network], *, runs: int = 1, batch: int = 1) -> list[accuracy.Measurement]:
        """Accuracy and speed of a network for each member, on the members' test segments."""
        return [
            accuracy.measure(network, segment, expected, runs=runs, batch=batch)
            for network, segment, expected in zip(networks, self._segments, self.expected, strict=True)
        ]

    def run(self, networks: list[Network], *, runs: int, batch: int = 1) -> Run:
        """The same for the record, of all members together."""
        measured = self.measure(networks, runs=runs, batch=batch)
        error = max(each.error for each in measured)
        found = Run(
            runtime=networks[0].runtime,
            precision=networks[0].precision,
            seconds=sum(each.seconds for each in measured),
            error=error if error < float("inf") else None,
            fault=next((each.fault for each in measured if each.fault), None),
            batch=batch,
        )
        log.info(
            "%s in %s, %d at once: %.4f s for a segment of each member, %s",
            found.runtime,
            found.precision,
            found.batch,
            found.seconds,
            found.fault or "accurate",
        )
        return found

    def segment(self, member: int) -> Tensor:
        """The test segment `[1, C, T]` of a member, on the device; `member` is its place in the bag, from 0."""
        return self._segments[member]

    def with_networks(self, networks: list[Network], *, device: str | None = None) -> "Engine":
        """This engine with other networks, which are known to be accurate; `device` as the sidecar shows it."""
        other = copy.copy(self)
        other.networks = networks
        other.facts = msgspec.structs.replace(
            self.facts,
            precision=networks[0].precision,
            runtime=networks[0].runtime,
            device=device or self.facts.device,
        )
        return other

    def with_fallback(self, reason: str) -> "Engine":
        """This engine, with one more reason in `fallback` why it is not the one that was asked for."""
        other = copy.copy(self)
        fallback = f"{self.facts.fallback}; {reason}" if self.facts.fallback else reason
        other.facts = msgspec.structs.replace(self.facts, fallback=fallback)
        return other

    @property
    def alone(self) -> frozenset[str]:
        """The sources that at most half of the members contribute to: each is cheap without the others."""
        used = {source: sum(1 for row in self.weights if row[k]) for k, source in enumerate(self.sources)}
        return frozenset(source for source, count in used.items() if 2 * count <= len(self.members))

    @property
    def gpu_peak_bytes(self) -> int | None:
        """The largest amount of GPU memory that this process has had, in bytes; None without a GPU."""
        return torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else None

    # ---- simpler engines

    def fallback_after(self, error: Exception) -> "Engine":
        """The next simpler engine, for a song at which this one failed with `error`. This one stays as it is.

        Raises `error` where another engine would fail too or there is none, and `DeviceLostError` where the device does
        not answer any more.
        """
        is_ours = isinstance(error, AudioProcessingError) and error.code is not Code.BAD_OUTPUT
        if is_ours or is_out_of_memory(error):  # that of the machine, which the others need too
            raise error
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if self.accelerated and not out_of_memory and not devices.answers(self.device):
            raise DeviceLostError(f"{self.facts.device} does not answer any more ({_first_line(error)}).") from error
        why = f"{_cause(error)} on {self.facts.device} in {self.facts.precision}"
        if self.networks != self.eager and not (out_of_memory and self.accelerated):
            eager = self.with_networks(list(self.eager), device=str(self.device))
            return eager.with_fallback(f"{why}; this song was done in float32")
        if self.accelerated:
            return self.with_fallback(f"{why}; this song was done on the CPU")._on_cpu()
        raise error

    def _on_cpu(self) -> "Engine":
        other = copy.copy(self)
        other.device, other.accelerated, other.batch = CPU, False, 1
        other.eager = [Eager(member, CPU) for member in self.members]
        other.networks = list(other.eager)
        other.facts = msgspec.structs.replace(
            self.facts, device="cpu", device_name=devices.name_of(CPU), precision="float32", runtime="torch"
        )
        return other


def _cause(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return "samples that are not numbers" if isinstance(error, AudioProcessingError) else "an error"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
