"""Many songs brought into one daemon in many ways at once, and what is to be held against what came of them.

Way       how a song is written (writers.py), how long it may pause, and what its fate is
bring     one way's songs, one after the other, with pauses drawn from the seed
verdict   what went wrong, by kind: missed, begun early, done twice, done without a warning
"""

import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from daemons import PATIENCE_S, Daemon, below
from writers import COMPANION, EMPTY, Writer, song

SETTLE_S = 1.5
LONG_S, SHORT_S = 3 * SETTLE_S, 0.4 * SETTLE_S
"""The longest pause of writers that can be told not to be ready, and of those that cannot."""

GRACE_S = 10.0
"""How long what is truncated may stay so."""

BLOCK = 4096
"""A hole cannot be told that is within one block of a file."""

SHORT, LONGER = (4_410, 22_050), (33_000, 44_100)
"""How many frames a song has, at least and at most."""


class Fate(StrEnum):
    WHOLE = "it is written to its end"
    LOST = "its last part never comes"
    LEFT = "its last part never comes, and what lies beside it says so for ever"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """`in_parts`: a part lies there closed until the rest comes; the worker may have been asked whether it is whole.

    `settle_s`: how long songs settle where it writes. `replaces`: the song takes the place of another file of its name, which
    had a job of its own. `frames` are those of its songs, at least and at most.
    """

    write: Writer
    pause_s: float = LONG_S
    settle_s: float = SETTLE_S
    fate: Fate = Fate.WHOLE
    in_parts: bool = False
    replaces: bool = False
    frames: tuple[int, int] = SHORT


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """`held_up`: this machine let it pause for nearly as long as a song needs to settle, which was not meant."""

    name: str
    way: Way
    size: int
    sha256: str
    held_up: bool

    @property
    def leaf(self) -> str:
        return self.name.rpartition("/")[2]


def ways(table: Mapping[str, Writer], **how: Any) -> dict[str, Way]:
    """All of them with the same pauses, fate and so on."""
    return {name: Way(write=write, **how) for name, write in table.items()}


def folder(way: str) -> str:
    """Where its songs are: no folder that means something."""
    return re.sub(r"[^\w-]+", "-", way)


def cut(whole: bytes, drawn: random.Random) -> list[bytes]:
    """Two to four parts; the last one has a block of its own, so that it leaves a hole where it never comes."""
    places = sorted(drawn.sample(range(1, len(whole) - 2 * BLOCK), drawn.randint(1, 3)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


def bring(daemon: Daemon, inbox: Path, name: str, way: Way, numbers: Iterable[int], seed: int) -> list[Drop]:
    """Drop songs below the folder of that way in `inbox`, the next one when the one before has ended."""
    drops = []
    for number in numbers:
        drawn = random.Random(f"{seed} {name} {number}")
        path = inbox / folder(name) / f"{folder(name)} {number}.wav"
        is_told = way.in_parts or way.fate is not Fate.WHOLE
        whole = song(path.name, frames=drawn.randint(*way.frames), knows_its_length=is_told)
        gap_s = written(way.write(path, cut(whole, drawn)), drawn, way.pause_s)
        drops.append(
            Drop(
                name=path.relative_to(inbox).as_posix(),
                way=way,
                size=len(whole),
                sha256=sha256(whole).hexdigest(),
                held_up=way.pause_s < way.settle_s and gap_s > 0.75 * way.settle_s,
            )
        )
        if way.fate is not Fate.LEFT:
            ended(daemon, drops[-1].name)
    return drops


def written(steps: Iterator[object], drawn: random.Random, pause_s: float) -> float:
    """Let a writer go on to its end; the longest time between two of its steps.

    One pause of two is longer than a song needs to settle, where the writer may.
    """
    last, gap_s = time.monotonic(), 0.0
    for _ in steps:
        is_long = pause_s > SETTLE_S and drawn.random() < 0.5
        time.sleep(drawn.uniform(SETTLE_S, pause_s) if is_long else drawn.uniform(0.05, SHORT_S))
        # The next step ends when the writer pauses again; what it takes itself is part of the gap.
        gap_s, last = max(gap_s, time.monotonic() - last), time.monotonic()
    return max(gap_s, time.monotonic() - last)


def ended(daemon: Daemon, name: str) -> None:
    """Wait for the song's end, but not for ever: what has not ended is missed."""
    limit = time.monotonic() + PATIENCE_S
    while daemon.song(name).get("state") not in ("done", "failed") and time.monotonic() < limit:
        time.sleep(0.3)


def sweep(daemon: Daemon, inbox: Path, table: Mapping[str, Way], *, count: int, lanes: int, seed: int) -> list[Drop]:
    """`count` songs in each way, in so many lanes for each; all have ended but those that wait for ever."""
    for name in table:
        (inbox / folder(name)).mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(table) * lanes) as pool:
        brought = [
            pool.submit(bring, daemon, inbox, name, way, range(lane, count, lanes), seed)
            for name, way in table.items()
            for lane in range(lanes)
        ]
        drops = [drop for lane in brought for drop in lane.result()]
    time.sleep(2 * SETTLE_S)  # what was begun too early shows itself by what follows
    wait_for = {drop.name for drop in drops if drop.way.fate is not Fate.LEFT}
    limit = time.monotonic() + PATIENCE_S
    while wait_for & set(daemon.unfinished()) and time.monotonic() < limit:
        time.sleep(0.3)
    return drops


Faults = dict[str, list[str]]


def verdict(daemon: Daemon, drops: list[Drop]) -> Faults:
    """What went wrong, in sentences, by kind; nothing is not there."""
    faults: Faults = defaultdict(list)
    manifests = [json.loads(path.read_bytes()) for path in below(daemon.outbox) if path.name == "stems.json"]
    results = defaultdict(list)
    for manifest in manifests:
        results[manifest["song"]].append(manifest)
    lines = (daemon.folder / "orders").read_bytes().splitlines()
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    for order in map(json.loads, lines):
        if order["type"] == "separate":
            asked[order["name"]][order["job_id"]] += 1
    for drop in drops:
        judge = {Fate.WHOLE: _whole, Fate.LOST: _lost, Fate.LEFT: _left}[drop.way.fate]
        for kind, what in judge(daemon, drop, results[drop.name], asked[drop.leaf]):
            faults[kind].append(f"{drop.name}: {what}")
    return faults


Judgement = Iterator[tuple[str, str]]


def _whole(daemon: Daemon, drop: Drop, results: list[dict[str, object]], asked: Counter[str]) -> Judgement:
    sidecar = daemon.song(drop.name)
    if sidecar.get("state") != "done":
        yield "missed", f"not done: {sidecar}"
        return
    if sidecar["input"]["sha256"] != drop.sha256:
        yield "begun early", f"a part of it is done: {sidecar}"
        return
    if any("has-holes" in warning for warning in sidecar["warnings"]):
        yield "begun early", f"{sidecar['warnings']}"
    if drop.held_up:
        return  # it may have been ready for a while, and then a new drop
    if any(result["song_sha256"] != drop.sha256 for result in results):
        yield "begun early", "there is a result of a part of it"
    elif len(results) != 1:
        yield "done twice", f"{len(results)} results"
    yield from _asked_once(drop, sidecar, asked)
    done = daemon.spool / "done" / drop.name
    if sha256(done.read_bytes()).hexdigest() != drop.sha256:
        yield "missed", "another original is in done/"
    if list(done.parent.glob(f"{done.stem} (*")):
        yield "done twice", "two originals are in done/"


def _asked_once(drop: Drop, sidecar: dict[str, Any], asked: Counter[str]) -> Judgement:
    """One job, for which the worker was asked once; a part that lies there closed may be asked for, and may be replaced."""
    if drop.way.in_parts:
        return
    if sidecar["previous"] and not drop.way.replaces:
        yield "begun early", f"it was ready before: {sidecar['previous']}"
    if asked != {sidecar["job_id"]: 1}:
        yield "begun early", f"the worker was asked {dict(asked)}"


def _lost(daemon: Daemon, drop: Drop, results: list[dict[str, object]], asked: Counter[str]) -> Judgement:
    sidecar = daemon.song(drop.name)
    state, warnings = sidecar.get("state"), sidecar.get("warnings", [])
    if state == "done" and sidecar["input"]["sha256"] == drop.sha256:
        yield "not broken off", "it is whole"
    elif state == "done" and not any("has-holes" in warning for warning in warnings):
        yield "done without a warning", f"{sidecar}"
    elif state not in ("done", "failed"):
        yield "missed", f"it has no end: {sidecar}"
    if len(results) != (state == "done"):
        yield "done twice" if results else "missed", f"{len(results)} results, {state}"
    if state == "failed" and not (daemon.spool / "failed" / drop.name).exists():
        yield "missed", "its original is not in failed/"


def _left(daemon: Daemon, drop: Drop, results: list[dict[str, object]], asked: Counter[str]) -> Judgement:
    sidecar = daemon.song(drop.name)
    if (sidecar.get("state"), sidecar.get("reason")) not in (("waiting", EMPTY), ("waiting", COMPANION)):
        yield "missed", f"nobody is told that it is not whole: {sidecar}"
    if results or asked:
        yield "begun early", f"{len(results)} results, the worker was asked {dict(asked)}"
