"""The matrix of races, wider than with real daemons: whatever happens at a point of a job, its fate is the contract's."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cells import CELLS, SimulatedCell, attempts, fate, options_go_along, other_fate
from demixd.config import load
from demixd.errors import ConfigError
from demixd.protocol.inbox_names import Kind
from demixd.spool.tree import OPTIONS
from demixd.supervisor.service import Service
from matrix import FIRST_S, OTHER_S, THINGS
from points import POINTS
from simulated import Simulated, bury
from simulated_clock import SimulatedClock
from simulated_songs import make_song, track_of
from simulated_worker import Script, SimulatedWorker

SHARE = 8
"""One cell in so many is tried each day."""

AWAY_S = 20.0
"""For how long a folder is away."""


def new(folder: Path, after: str, workers: int) -> Simulated:
    """A quick daemon; and configurations for a second one that shares its state, its spool, or its outbox alone."""
    daemon = Simulated(
        folder,
        model={"device": ["cpu"] * workers},
        inbox={"settle": 1.0, "scan_interval": 1.0, "after": after},
        status={"heartbeat_s": 5.0},
        limits={"truncated_grace_s": 10.0},
    )
    spool, outbox, other = daemon.spool, daemon.outbox, folder / "other"
    shared = {
        "state": f'spool = "{other}"\nstate = "{folder / "state"}"',
        "spool": f'spool = "{spool}"\nstate = "{other / "state"}"',
        "outbox": f'spool = "{other}"\noutbox = "{outbox}"\nstate = "{folder / "other-state"}"',
    }
    other.mkdir()
    for part, paths in shared.items():
        (folder / f"second-{part}.toml").write_text(f'[paths]\n{paths}\n[model]\nname = "demo"\ndevice = "cpu"\n')
    return daemon


def deeds(daemon: Simulated, cell: SimulatedCell, name: str) -> list[str | Callable[[], None]]:
    """What happens at the point."""
    verb, _, what = cell.thing.partition("-")
    if cell.thing.startswith("second-"):
        return [partial(refused, daemon, what)]
    if cell.thing in THINGS:
        return [*THINGS[cell.thing].format(name=name).split()]
    if verb == "script":
        return [partial(daemon.script.put, name, what)]
    if verb == "away":
        return [partial(go_away, daemon, daemon.spool / what)]
    others: dict[str, Callable[[], None]] = {
        "nothing": lambda: None,
        "worker-dies": partial(die, daemon),
        "full-disk": partial(fill, daemon),
        "stop": daemon.restart,
        "reload": partial(reload, daemon),
        "late-options": partial(write_options, daemon, name, "late"),
        "name-taken": (daemon.outbox / Path(name).stem).mkdir,
        "result-taken": partial(take, daemon, Path(name).stem),
    }
    return [others[cell.thing]]


def refused(daemon: Simulated, part: str) -> None:
    """A second daemon, which shares that part with the first, says so and ends."""
    clock, found = SimulatedClock(), load(daemon.folder / f"second-{part}.toml")
    second = Service(
        found,
        lambda: found,
        clock=clock,
        start_worker=lambda post, threads=None: SimulatedWorker(post, clock, daemon.folder, Script(), threads),
    )
    folder = "status" if part == "spool" else part
    words = rf"is used by another demixd \(process .*each daemon needs its own {folder} folder"
    with pytest.raises(ConfigError, match=words):
        second.start_up()
        second.turn()
        second.turn()
    if part != "state":  # else it had no ledger yet
        bury(second)


def die(daemon: Simulated) -> None:
    if daemon.worker is not None:  # after a restart one may not have been started yet
        daemon.worker.die()


def go_away(daemon: Simulated, folder: Path) -> None:
    away = folder.with_name(f"away-{folder.name}")
    folder.rename(away)
    daemon.clock.after(AWAY_S, lambda: away.rename(folder) and None)


def fill(daemon: Simulated) -> None:
    (daemon.folder / "full").touch()
    daemon.clock.after(AWAY_S, (daemon.folder / "full").unlink)


def reload(daemon: Simulated) -> None:
    config = daemon.config.read_text(encoding="utf-8")
    daemon.config.write_text(f'{config}\n[defaults]\nstems = ["drums"]\n', encoding="utf-8")
    daemon.reload()


def write_options(daemon: Simulated, name: str, tag: str) -> None:
    (daemon.inbox / f"{name}{OPTIONS}").write_text(json.dumps({"tag": tag, "priority": 1}))


def take(daemon: Simulated, name: str) -> None:
    daemon.eyes.look()
    daemon.eyes.take(daemon.outbox / name)


def play(daemon: Simulated, cell: SimulatedCell, name: str) -> None:
    """Drop a song, let the thing happen at the point, and wait until nothing is left to do."""
    again = FIRST_S if cell.thing == "again" else OTHER_S
    make_song(daemon.folder / name, again).rename(daemon.folder / "again")
    if cell.extra == "options":
        write_options(daemon, name, "mine")
    daemon.at[cell.point] = [*deeds(daemon, cell, name), *(["kill"] if cell.crash else [])]
    for each in (name, f"z-{name}") if cell.extra == "beside" else (name,):
        make_song(daemon.inbox / each, FIRST_S)
    daemon.start()
    if cell.crash:
        daemon.until_dead()
        daemon.start()
    daemon.until(lambda: cell.point not in daemon.at and not daemon.is_restarting and daemon.song(name), "the point")
    daemon.quiet()


def lengths(folder: Path, name: str) -> list[float]:
    """How long the songs of a name are that lie in a folder, numbered or not."""
    stem = Path(name).stem
    mine = (path for path in folder.iterdir() if path.name.startswith((f"{stem} (", f"{stem}.")))
    return sorted(track_of(path.read_bytes()).duration_s for path in mine if path.suffix == ".wav")


def results(daemon: Simulated, name: str) -> list[float]:
    manifests = (json.loads(path.read_bytes()) for path in daemon.outbox.glob("*/stems.json"))
    return sorted(each["frames"] / each["rate"] for each in manifests if each["song"] == name)


def violations(daemon: Simulated, cell: SimulatedCell, name: str) -> list[str]:
    """What is not as the contract says."""
    must, sidecar = fate(cell), daemon.song(name)
    first = sidecar if must.new is None else sidecar["previous"] or {}
    found: dict[str, tuple[Any, Any]] = {
        "the first job": (first.get("state"), must.first),
        "the new drop": (None if must.new is None else sidecar["state"], must.new),
        "results": (results(daemon, name), must.results),
        "duplicate of": (sidecar["duplicate_of"], first.get("job_id") if must.is_duplicate else None),
        "next": (sidecar["next"], None),
        **{where: (lengths(daemon.spool / where, name), each) for where, each in must.originals.items()},
        "cancel files": ([path.name for path in daemon.inbox.iterdir() if path.name.endswith(".cancel")], []),
        "private files": ([path.name for path in daemon.spool.rglob(".demixd-*") if path.name != ".demixd-lock"], []),
    }
    if must.new is not None:
        size = (daemon.folder / "again").stat().st_size
        found["the length"] = (sidecar["input"]["size"], size)
    if must.cancel is not None:
        found["the cancel"] = ((sidecar["cancel"] or {}).get("result"), must.cancel)
    if cell.extra == "beside":
        found["the other song"] = (daemon.song(f"z-{name}")["state"], other_fate(cell))
    wrong = [f"{what}: {is_}, and must be {ought}" for what, (is_, ought) in found.items() if is_ != ought]
    if must.new is None and must.first in ("done", "failed") and sidecar["attempt"] not in attempts(cell):
        wrong.append(f"attempts: {sidecar['attempt']}, and must be one of {attempts(cell)}")
    return wrong + of_options(daemon, cell, name, sidecar)


def of_options(daemon: Simulated, cell: SimulatedCell, name: str, sidecar: dict[str, Any]) -> list[str]:
    """The option file went along with its song, or is explained where it lies."""
    path = f"{name}{OPTIONS}"
    places = [where for where in ("inbox", "done", "failed") if (daemon.spool / where / path).exists()]
    listed = {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json")["entries"]}
    if options_go_along(cell):
        ought = [where for where, songs in fate(cell).originals.items() if songs]
        wrong = [] if (places, sidecar["tag"]) == (ought, "mine") else [f"options in {places}, and must be in {ought}"]
        return wrong + ([f"options are {listed[path]}"] if path in listed else [])
    if cell.thing == "late-options" and sidecar["tag"] is None:
        reason = Kind.LATE_OPTIONS if cell.after == "keep" else Kind.LONELY_OPTIONS
        return [] if (places, listed.get(path)) == (["inbox"], reason) else [f"late options: {places}, {listed}"]
    if "inbox" in places and not (daemon.inbox / name).exists() and listed.get(path) != Kind.LONELY_OPTIONS:
        return [f"options that nobody explains: {listed}"]
    return []


def walk(folder: Path, chosen: list[SimulatedCell], workers: tuple[int, ...] = (1, 2)) -> int:
    """Each cell on a daemon of its own, with so many workers in turn; how many."""
    wrong: list[str] = []
    for number, cell in enumerate(chosen):
        home = folder / f"{number}"
        # Beside another song at another worker either may pass a point first, and what happens there is meant for one.
        daemon = new(home, cell.after, 1 if cell.extra == "beside" else workers[number % len(workers)])
        try:
            play(daemon, cell, "song.wav")
            wrong += [f"{cell}: {each}" for each in violations(daemon, cell, "song.wav")]
        except AssertionError as error:
            wrong.append(f"{cell}: {error}")
        finally:
            daemon.end()
    assert wrong == []
    return len(chosen)


@pytest.mark.parametrize("point", POINTS)
def test_a_share_of_the_cells(
    tmp_path: Path, point: str, day: int, record_property: Callable[[str, object], None]
) -> None:
    """One final state each, the new drop served, never an output after `cancelled`: some cells, others each day."""
    mine = [cell for cell in CELLS if cell.point == point]
    record_property("cells", walk(tmp_path, random.Random(day).sample(mine, len(mine) // SHARE)))


@pytest.mark.slow
@pytest.mark.parametrize("after", ["move", "keep", "delete"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_the_cells(
    tmp_path: Path, point: str, workers: int, after: str, record_property: Callable[[str, object], None]
) -> None:
    """The same with every cell."""
    mine = [cell for cell in CELLS if (cell.point, cell.after) == (point, after)]
    record_property("cells", walk(tmp_path, mine, (workers,)))
