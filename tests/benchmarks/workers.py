"""Two workers against one, and a worker in a cluster against one here, on the processor: tests/benchmarks/run --workers NAME.

The same songs go through a daemon with one worker and through one with two, each worker with one thread, from the drop of
them all to the last one's end: with the demo model, with htdemucs, and with the tests' fake worker, whose network waits for two
seconds and computes nothing, so that the daemon's own share is seen.

And a song of four minutes is done by a worker here, and by one in a cluster of this machine alone (Ray), which sees the spool, or
gets the song in pieces: what it takes beside the pipeline's own steps.

At last many short songs are done by fake workers, and the processor's time that the supervisor takes for each is told.
"""

import contextlib
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from benchmarks.models import STAND_IN, prepare
from benchmarks.program import run

from demixd.cli.bench.measure import machine, synthetic_song, today, warn_if_busy
from demixd.cli.bench.report import conditions
from demixd.cli.bench.report import machine as machine_line
from demixd.cli.console import exit_on_sigterm, interruptible, refusing_os_errors, say
from demixd.cli.throwaway import ThrowawayDaemon, child, last_line
from demixd.client import actions, reader
from demixd.client.overview import CANNOT_SEPARATE
from demixd.config import Config
from demixd.errors import RefusedError
from demixd.spool.processes import state_and_time
from demixd.spool.tree import Spool

LONG_S, WAIT_S = 20.0, 2.0
"""How long each song is, and how long the fake worker's network takes for it."""

UNABLE_S = 60.0
"""How long a worker may say that it can do nothing before it is believed."""

POLL_S = 0.01

CLUSTER_S, QUICK_S, CLUSTER_SONGS = 240.0, 5.0, 3
CROWDS = ((2, 100, 0.2), (8, 200, 0.5), (2, 1000, 0.05))

STEPS = ("decode_s", "separate_s", "mix_s", "encode_s")
WAYS: dict[str, dict[str, Any]] = {
    "here": {},
    "in a cluster, by path": {"address": "local", "workers": 1},
    "in a cluster, in pieces": {"address": "local", "workers": 1, "path_map": [["/", "/nowhere"]]},
}

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "tests" / "support" / "launch.py"


@click.command()
@click.option("--table", "path", type=click.Path(path_type=Path), help="A file for the table, in Markdown.")
@click.option("--songs", default=40, type=click.IntRange(2), help="How many, of 20 s each.")
@click.option(
    "--quick", is_flag=True, help="Short songs, a small crowd, and no model in full size: to see that it runs."
)
def main(path: Path | None, songs: int, quick: bool) -> None:
    """What two workers do in the time of one."""
    exit_on_sigterm()
    cluster_s, crowds = (QUICK_S, CROWDS[:1]) if quick else (CLUSTER_S, CROWDS)
    with interruptible("Nothing is left behind."), refusing_os_errors():
        at = machine(Path(tempfile.gettempdir()), None, warn_if_busy())
        lines = [
            f"## {machine_line(at)}",
            "",
            f"- {conditions(today(), at)}",
            f"- {songs} songs of {LONG_S:.0f} s, dropped at once; one thread a worker",
        ]
        lines += _table(
            "several songs | one worker, s | two workers, s | two by one", _two_against_one(songs, full_size=not quick)
        )
        lines += _table(
            f"a worker, with songs of {cluster_s:.0f} s | beside the steps, s | from start to ready, s",
            _ways(cluster_s),
        )
        head = "workers, songs, seconds that a song takes | the supervisor's time for a song, ms | songs in an hour of a core"
        lines += _table(head, _crowds(crowds))
        if path is not None:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(head: str, rows: Iterator[str]) -> list[str]:
    """A table in Markdown; each row is shown as soon as it is there."""
    lines = ["", f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    for row in rows:
        lines.append(f"| {row} |")
        say(lines[-1])
    return lines


def _two_against_one(songs: int, *, full_size: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary:
        measured: dict[str, dict[str, Any]] = {"demo model": {}}
        if full_size:
            there = prepare(Config(), STAND_IN, Path(temporary) / "models", say, may_be_random=True)
            measured[there.name] = {"name": there.name, "models": there.models}
        measured[f"a network that waits for {WAIT_S:g} s"] = {"fake": True}
        for name, how in measured.items():
            one, two = (_seconds(songs, workers, **how) for workers in (1, 2))
            yield f"{name} | {one:.1f} | {two:.1f} | {two / one:.2f}"


def _ways(song_s: float) -> Iterator[str]:
    for way, ray in WAYS.items():
        if importlib.util.find_spec("ray") or not ray:
            yield f"{way} | " + " | ".join(f"{each:.2f}" for each in _beside_steps(ray, song_s))


def _crowds(crowds: Iterable[tuple[int, int, float]]) -> Iterator[str]:
    for workers, number, wait_s in crowds:
        cpu_s = _supervisor_s(workers, number, wait_s)
        yield f"{workers}, {number:,}, {wait_s:g} | {1000 * cpu_s:.0f} | {3600 / cpu_s:,.0f}"


def _seconds(number: int, workers: int, **how: Any) -> float:
    """From the drop of so many songs to the end of the last one."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary:
        folder = Path(temporary)
        songs = [synthetic_song(folder / f"{each}.flac", LONG_S + each / 100)[0] for each in range(number)]
        with _running(folder / "daemon", workers, **how) as spool:
            began = time.monotonic()
            for song in songs:
                actions.drop(spool, song, song.name)
            while (counts := _told(spool)["counts"])["done"] < number:
                if counts["failed"] or counts["cancelled"]:
                    raise RefusedError("a song was not done")
                time.sleep(POLL_S)
            return time.monotonic() - began


def _beside_steps(ray: dict[str, Any], song_s: float) -> tuple[float, float]:
    """Seconds from when a song lies there to its end less those of the pipeline's steps, the median; and from start to ready."""
    beside = []
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary:
        folder, began = Path(temporary), time.monotonic()
        with _running(folder / "daemon", 1, ray=ray) as spool:
            ready_s = time.monotonic() - began
            for number in range(CLUSTER_SONGS):
                song = synthetic_song(folder / f"{number}.flac", song_s + number)[0]
                actions.drop(spool, song, song.name)
                began = time.monotonic()
                while (told := reader.read(spool.sidecar(song.name))) is None or told["state"] not in (
                    "done",
                    "failed",
                ):
                    time.sleep(POLL_S)
                took_s = time.monotonic() - began
                if told["state"] != "done":
                    raise RefusedError("a song was not done")
                beside.append(took_s - sum(told["timing"][step] for step in STEPS))
    return statistics.median(beside), ready_s


def _supervisor_s(workers: int, number: int, wait_s: float) -> float:
    """Seconds of a processor that the supervisor takes for a song, where so many are dropped at once."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary:
        folder = Path(temporary)
        songs = [synthetic_song(folder / f"{each}.wav", 0.1 + each / 44100)[0] for each in range(number)]
        with _running(folder / "daemon", workers, fake=True, wait_s=wait_s) as spool:
            pid = _told(spool)["pid"]
            before = state_and_time(pid)[1]
            for song in songs:
                actions.drop(spool, song, song.name)
            while _told(spool)["counts"]["done"] < number:
                time.sleep(10 * POLL_S)
            return (state_and_time(pid)[1] - before) / number


@contextlib.contextmanager
def _running(
    folder: Path,
    workers: int,
    *,
    name: str = "demo",
    models: str = "",
    fake: bool = False,
    ray: dict[str, Any] | None = None,
    wait_s: float = WAIT_S,
) -> Iterator[Spool]:
    """A daemon whose workers are all warm. `wait_s`: how long the network of a fake one takes."""
    spool = ThrowawayDaemon(
        folder,
        {
            "model": {"name": name, "device": "cpu" if ray else ["cpu"] * workers},
            "paths": {"models": models},
            "ray": ray or {},
            "inbox": {"settle": 0.0},
            "defaults": {"format": "wav"},
        },
    ).spool
    (folder / "network").write_text(f"{wait_s}", encoding="utf-8")
    words = [
        sys.executable,
        str(LAUNCH),
        *(["--fake"] if fake else []),
        "--",
        "--config",
        f"{folder}/demixd.toml",
        "run",
    ]
    environment = [f"PYTHONPATH={ROOT / 'daemon'}", f"FAKE_FOLDER={folder}", "OMP_NUM_THREADS=1"]
    with child(["env", *environment, *words], folder / "log") as process:
        last_able = time.monotonic()
        while [each["state"] for each in _workers(spool)] != ["ready"] * workers:
            if process.poll() is not None:
                raise RefusedError(f"the daemon has ended: {last_line(folder / 'log')}")
            unable = [each["message"] for each in _workers(spool) if each["state"] in CANNOT_SEPARATE]
            last_able = last_able if unable else time.monotonic()
            if time.monotonic() > last_able + UNABLE_S:
                raise RefusedError(f"no worker comes: {unable[0]}")
            time.sleep(POLL_S)
        yield spool


def _workers(spool: Spool) -> list[dict[str, Any]]:
    return list(_told(spool).get("workers", ()))


def _told(spool: Spool) -> dict[str, Any]:
    return reader.heartbeat(spool) or {}


if __name__ == "__main__":
    run(main, "tests/benchmarks/run --workers NAME")
