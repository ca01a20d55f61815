"""The warm model: its members live on the device, have run once, and separate one song after the other.

`apply_model` would carry every member to the device and back for each song; here they stay. What an engine cannot do,
another does instead, rung by rung, for the one song that it could not do:

    half precision or compiled  ->  float32 eager  ->  the CPU  ->  the song fails
"""

import copy
from typing import Any

import msgspec
import torch
from torch import Tensor

from demixd.engine import accuracy
from demixd.engine import batch as batches
from demixd.engine import device as devices
from demixd.engine.device import CPU
from demixd.engine.networks import Check, Eager, Network, Reduced, never
from demixd.engine.segments import grid_of
from demixd.engine.separation import Plan, SegmentProgress, Separation, Song
from demixd.errors import AudioProcessingError, Code, DeviceLostError, ModelTooLargeError
from demixd.protocol.job import EngineFacts

__all__ = ["Engine", "Plan", "SegmentProgress", "Song"]

HALVES = ("float16", "bfloat16")
"""What `precision = "auto"` tries on a GPU, in this order: float16 has three bits more, bfloat16 never overflows."""


class Engine:
    """A bag of models on a device. `accelerated` says that the CPU can stand in for the device."""

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
        """Whether the CPU serves since a GPU was wanted and could not be had."""
        self.warnings: tuple[str, ...] = ()
        """What every song's sidecar should say of this engine."""
        # Those on a GPU are copies: if it is lost, nothing can be fetched back from it.
        self.eager: list[Eager] = [
            Eager(copy.deepcopy(member) if self.accelerated else member, device) for member in self.members
        ]
        self.networks: list[Network] = list(self.eager)
        self._segments = [
            devices.to_device(accuracy.noise_and_tones(self.channels, grid_of(member, 0.0).segment), device)
            for member in self.members
        ]
        self.expected: list[Tensor] = []
        """What the members answer to their test segments in float32, on the device."""

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
        """An engine that has proved itself on `device`, or on the CPU with the reason in its facts.

        Raises `AudioProcessingError` (BAD_MODEL) where the model gives nothing useful even there, and
        `ModelTooLargeError` where the GPU's memory does not hold it.
        """
        devices.settle()
        chosen, fallback = devices.choose(device)
        if chosen.type != "cpu":
            try:
                return cls._proved(bag, chosen, name, sha256, None)._quickest(precision)._batched(batch)
            except torch.OutOfMemoryError as error:
                devices.give_back()
                raise ModelTooLargeError(_first_line(error)) from error
            except (RuntimeError, AudioProcessingError) as error:
                fallback = f"{chosen} failed at warm-up ({_first_line(error)}); using the CPU"
        engine = cls._proved(bag, CPU, name, sha256, fallback)._quickest(precision)
        engine.batch = 1 if batch == "auto" else int(batch)
        engine.on_stand_in = fallback is not None
        return engine

    @classmethod
    def _proved(cls, bag: Any, device: torch.device, name: str, sha256: str, fallback: str | None) -> "Engine":
        """An engine that has run in float32."""
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
        engine.expected = [
            accuracy.reference(network, segment, name)
            for network, segment in zip(engine.eager, engine._segments, strict=True)
        ]
        return engine

    def _quickest(self, precision: str) -> "Engine":
        """In the precision that is wanted; in float32, and why, where it does not prove itself."""
        wanted = {"auto": HALVES if self.accelerated else (), "float32": ()}.get(precision, (precision,))
        engine = self
        for each in wanted:
            if not self.accelerated and not devices.has(each):
                engine = engine.but(f"this processor has no {each}; float32 is used")
                continue
            try:
                networks: list[Network] = [Reduced(member, self.device, each) for member in self.members]
                faults = [verdict.fault for verdict in self.judge(networks) if verdict.fault]
            except (RuntimeError, ValueError) as error:
                faults = [f"{each} failed at warm-up ({_first_line(error)})"]
            if not faults:
                return self.using(networks)
            engine = engine.but(f"{faults[0]}; it is not used")
        return engine

    def judge(self, networks: list[Network], *, runs: int = 1, check: Check = never) -> list[accuracy.Verdict]:
        """One verdict for each member's network. Raises what `check` raises."""
        return [
            accuracy.prove(network, segment, expected, runs=runs, check=check)
            for network, segment, expected in zip(networks, self._segments, self.expected, strict=True)
        ]

    def using(self, networks: list[Network], *, device: str | None = None) -> "Engine":
        """The same engine with other networks, which have proved themselves."""
        other = copy.copy(self)
        other.networks = networks
        other.facts = msgspec.structs.replace(
            self.facts,
            precision=networks[0].precision,
            runtime=networks[0].runtime,
            device=device or self.facts.device,
        )
        return other

    def _batched(self, batch: int | str) -> "Engine":
        """With the batch that is wanted, or that the GPU's memory and speed allow."""
        if batch == "auto":
            trial = batches.trial_on(self.networks[0], self._segments[0])
            self.batch = batches.choose(trial, devices.free_bytes(self.device))
            devices.give_back()
        else:
            self.batch = int(batch)
        return self

    def but(self, reason: str) -> "Engine":
        """The same engine, and one more reason why it is not what was asked for."""
        other = copy.copy(self)
        fallback = f"{self.facts.fallback}; {reason}" if self.facts.fallback else reason
        other.facts = msgspec.structs.replace(self.facts, fallback=fallback)
        return other

    @property
    def alone(self) -> frozenset[str]:
        """Sources that at most half of the members take part in: cheap without the others."""
        used = {source: sum(1 for row in self.weights if row[k]) for k, source in enumerate(self.sources)}
        return frozenset(source for source, count in used.items() if 2 * count <= len(self.members))

    @property
    def gpu_peak_bytes(self) -> int | None:
        """The most that this process has had of the GPU's memory; None without one."""
        return torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else None

    def separate(self, song: Song, plan: Plan) -> Separation:
        """The way of one song through this engine."""
        return Separation(self, song, plan)

    # ---- the rungs

    def instead(self, error: Exception) -> "Engine":
        """The engine to do a song with that this one failed at with `error`; this one is as good as before.

        Raises `error` itself where it is none of an engine's or nothing is left, and `DeviceLostError`.
        """
        if isinstance(error, AudioProcessingError) and error.code is not Code.BAD_OUTPUT:
            raise error
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if self.accelerated and not out_of_memory and not devices.answers(self.device):
            raise DeviceLostError(f"{self.facts.device} does not answer any more ({_first_line(error)}).") from error
        why = f"{_cause(error)} on {self.facts.device} in {self.facts.precision}"
        if self.networks != self.eager and not (out_of_memory and self.accelerated):
            return self.but(f"{why}; this song was done in float32").using(list(self.eager), device=str(self.device))
        if self.accelerated:
            return self.but(f"{why}; this song was done on the CPU")._on_cpu()
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
