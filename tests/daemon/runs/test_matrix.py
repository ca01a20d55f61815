"""The matrix of races (tests/support/faults/matrix.py) on real daemons: each goes through many cells, one after the other."""

import itertools
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile

from daemons import PATIENCE_S, Daemon, make_song
from matrix import FIRST_S, MATRIX, OTHER_S, THINGS, Cell, fate
from points import POINTS
from watching import DELETE, MOVED_FROM, MOVED_TO, Events, Histories, again_and_again, faults

FINAL = ("done", "failed", "cancelled")


def new(folder: Path, after: str) -> Daemon:
    """A quick daemon; and configurations for a second one that shares its state, its spool, or its outbox alone."""
    folder.mkdir(exist_ok=True)
    daemon = Daemon(folder, fake=True, inbox={"after": after})
    spool, state = json.dumps(str(daemon.spool)), json.dumps(str(folder / "state"))
    other = folder / "other"
    shared = {
        "state": f"spool = {json.dumps(str(other))}\nstate = {state}",
        "spool": f"spool = {spool}\nstate = {json.dumps(str(other / 'state'))}",
        "outbox": f"spool = {json.dumps(str(other))}\noutbox = {json.dumps(str(daemon.outbox))}\n"
        f"state = {json.dumps(str(folder / 'other-state'))}",
    }
    for part, paths in shared.items():
        (folder / f"second-{part}.toml").write_text(f'[paths]\n{paths}\n[model]\nname = "demo"\ndevice = "cpu"\n')
    return daemon


class Watch:
    """What was seen of a spool from the first cell to the last."""

    def __init__(self, daemon: Daemon) -> None:
        self.histories = Histories(daemon.spool / "status")
        self.events = Events(daemon.outbox)

    def look(self) -> None:
        self.histories.look()
        time.sleep(0.01)


@contextmanager
def watched(daemon: Daemon) -> Iterator[Watch]:
    """A daemon that is ready, and looked at until it is stopped."""
    try:
        daemon.start().ready()
        watch = Watch(daemon)
        with again_and_again(watch.look) as raised:
            yield watch
            assert daemon.stop() == 0
        assert raised == []
    finally:
        daemon.end()


def play(daemon: Daemon, cell: Cell, name: str) -> None:
    """Drop a song, let the thing happen at the point, and wait until nothing is left to do."""
    make_song(daemon.folder / name, FIRST_S)
    make_song(daemon.folder / f"other-{name}", OTHER_S)
    again = daemon.folder / (name if cell.thing == "again" else f"other-{name}")
    (daemon.folder / "again").write_bytes(again.read_bytes())
    (daemon.folder / "refused").unlink(missing_ok=True)
    (daemon.folder / "plan").write_text(cell.plan(name))
    (daemon.folder / name).rename(daemon.inbox / name)
    assert daemon.process is not None
    if cell.crash:
        assert daemon.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
        daemon.start().ready()
    daemon.until(lambda: not (daemon.folder / "plan").exists() and daemon.song(name), "the point")
    daemon.quiet()


def lengths(folder: Path, name: str, where: Callable[[Path], Path]) -> list[float]:
    """How long the songs of a name are that lie in a folder, numbered or not."""
    stem = Path(name).stem
    mine = (path for path in folder.iterdir() if path.name.startswith((f"{stem} (", f"{stem}.")) or path.name == stem)
    return sorted(soundfile.info(str(where(path))).duration for path in mine)


def violations(daemon: Daemon, watch: Watch, cell: Cell, name: str) -> list[str]:
    """What is not as the contract says."""
    must, sidecar = fate(cell), daemon.song(name)
    first = sidecar if must.new is None else sidecar["previous"] or {}
    answer = (sidecar["cancel"] or {}).get("result")
    found = {
        "the first job": (first.get("state"), must.first),
        "the new drop": (None if must.new is None else sidecar["state"], must.new),
        "the length": (sidecar["input"]["size"], (daemon.folder / "again").stat().st_size if must.new else None),
        "the cancel": (answer, must.cancel),
        "results": (lengths(daemon.outbox, name, lambda path: path / "vocals.wav"), must.results),
        "duplicate of": (sidecar["duplicate_of"], first.get("job_id") if must.is_duplicate else None),
        "next": (sidecar["next"], None),
        **{
            where: (lengths(daemon.spool / where, name, lambda path: path), each)
            for where, each in must.originals.items()
        },
        "cancel files": ([path.name for path in daemon.inbox.iterdir() if path.name.endswith(".cancel")], []),
    }
    if must.cancel is None:
        del found["the cancel"]
    if must.new is None:
        del found["the length"]
    wrong = [f"{what}: {is_}, and must be {ought}" for what, (is_, ought) in found.items() if is_ != ought]
    return (
        wrong + of_history(watch, sidecar, cell) + (of_second(daemon, cell, sidecar) if "second" in cell.thing else [])
    )


def of_history(watch: Watch, sidecar: dict[str, Any], cell: Cell) -> list[str]:
    """One final state for each job, and nothing after it; the jobs of a name are the two that there must be."""
    ids = [sidecar["job_id"], *([sidecar["previous"]["job_id"]] if sidecar["previous"] else [])]
    wrong = [] if len(ids) == 1 + (fate(cell).new is not None) else [f"jobs {ids}"]
    for job_id in ids:
        states = watch.histories.of.get(job_id, [])
        ends = [state for state in states if state in FINAL]
        if len(ends) > 1 or (ends and states[-1] not in FINAL):
            wrong.append(f"{job_id} was seen {states}")
    return wrong


def of_second(daemon: Daemon, cell: Cell, sidecar: dict[str, Any]) -> list[str]:
    """The second daemon was refused, and the first noticed nothing of it."""
    said = (daemon.folder / "refused").read_text()
    part = {"second-state": "state", "second-spool": "status", "second-outbox": "outbox"}[cell.thing]
    words = ["78 ", "is used by another demixd (process ", f"each daemon needs its own {part} folder"]
    wrong = [f"the second daemon said {said}"] if not all(word in said for word in words) else []
    if not cell.crash and sidecar["attempt"] != 1:
        wrong.append(f"attempt {sidecar['attempt']}")
    return wrong


def came_once(daemon: Daemon, watch: Watch) -> list[str]:
    """Results have come by one rename each, none has gone again, and no job that was cancelled has one."""
    told = [(name, what) for _, name, what in watch.events.take() if name != ".demixd"]
    there = sorted(path.name for path in daemon.outbox.iterdir() if path.name != ".demixd")
    came = sorted(name for name, what in told if what & MOVED_TO)
    wrong = [] if came == there else [f"{came} have come, and {there} are there"]
    wrong += [f"{name} went" for name, what in told if what & (MOVED_FROM | DELETE)]
    for name in there:
        job_id = json.loads((daemon.outbox / name / "stems.json").read_bytes())["job_id"]
        if set(watch.histories.of.get(job_id, ())) & {"cancelled", "failed"}:
            wrong.append(f"{name} is an output of a job that was seen {watch.histories.of[job_id]}")
        wrong += [f"{name}: {fault}" for fault in faults(daemon.outbox / name)]
    return wrong


def walk(folder: Path, cells: list[Cell]) -> int:
    """All cells, those of each policy through one daemon; how many."""
    wrong: list[str] = []
    for after, group in itertools.groupby(sorted(cells, key=lambda cell: cell.after), lambda cell: cell.after):
        daemon = new(folder / after, after)
        names: list[str] = []
        daemon.outbox.mkdir()
        with watched(daemon) as watch:
            for number, cell in enumerate(group):
                names.append(f"s{number}.wav")
                play(daemon, cell, names[-1])
                wrong += [f"{cell}: {each}" for each in violations(daemon, watch, cell, names[-1])]
        wrong += [f"after = {after}: {each}" for each in came_once(daemon, watch)]
    assert wrong == []
    return len(cells)


@pytest.mark.parametrize("after", ["move", "keep", "delete"])
def test_a_share_of_the_matrix(
    tmp_path: Path, after: str, day: int, record_property: Callable[[str, object], None]
) -> None:
    """One final state each, the new drop served, never an output after `cancelled`: every thing, elsewhere each day."""
    dice = random.Random(f"{day} {after}")
    cells = [dice.choice([cell for cell in MATRIX if (cell.thing, cell.after) == (thing, after)]) for thing in THINGS]
    record_property("races", walk(tmp_path, cells))


@pytest.mark.slow
@pytest.mark.parametrize("after", ["move", "keep", "delete"])
@pytest.mark.parametrize("point", POINTS)
def test_the_matrix(tmp_path: Path, point: str, after: str, record_property: Callable[[str, object], None]) -> None:
    """One final state each, the new drop served, never an output after `cancelled`: at each point, every thing."""
    cells = [cell for cell in MATRIX if (cell.point, cell.after) == (point, after)]
    record_property("races", walk(tmp_path, cells))
