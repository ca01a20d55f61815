"""What one group of rows measures, in a process of its own that says each row as soon as it is known, as JSON and a line each.

    {"row": "float16, 8 at once", "seconds": 0.0136, "x_real_time": 430.1, "gpu_bytes": 2012345678}

network    the warm network alone, on copies of the test segment, or compiled for it
song       a warm engine's step `separate`, with a song of noise
daemon     the daemon on a throw-away spool: its starts, songs alone, and songs in a row
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import soundfile
from benchmarks.gpu.messages import Plan, Row

from demixd.cli.bench.daemon import peak_bytes
from demixd.cli.console import exit_on_sigterm
from demixd.cli.songs.follow import Follower
from demixd.cli.throwaway import POLL_S, ThrowawayDaemon
from demixd.client import actions
from demixd.engine.models.demo.recording import record
from demixd.engine.models.store import Where
from demixd.errors import RefusedError
from demixd.protocol.job import State

RUNS = 5
"""The median counts."""


def network(plan: Plan) -> None:
    """The row of each precision, batch and runtime that `plan` names."""
    import torch

    from demixd.engine import batch as batches
    from demixd.engine import device as devices
    from demixd.engine.cache import private
    from demixd.engine.engine import Engine
    from demixd.engine.families.demucs import load
    from demixd.engine.inductor.runtime import Compiled, inductor, keep_caches_in
    from demixd.engine.networks import Eager, Network, Reduced

    loaded = load(_where(plan).locate(), allow_pickle=plan.allow_pickle)
    engine = Engine.warm(
        loaded.model, name=plan.model, sha256=loaded.sha256, device=plan.device, precision="float32", batch=1
    )
    stride_s = 0.75 * float(engine.members[0].segment)
    for wanted in plan.networks:
        is_gpu = engine.device.type == "cuda"
        if not is_gpu and (wanted.compiled or not devices.has(wanted.precision)):
            say(Row(row=wanted.title, note="not measured: no GPU"))
            continue
        began = time.monotonic()
        eager: Eager | Reduced = engine.eager[0]
        if wanted.precision != "float32":
            eager = Reduced(engine.members[0], engine.device, wanted.precision)
        made: Network = eager
        if wanted.compiled:
            assert isinstance(eager, Reduced)
            keep_caches_in(private(Path(plan.folder) / "compiled"))
            made = Compiled(eager, engine.segment(0), wanted.batch, inductor)
        trial = batches.trial_on(made, engine.segment(0))
        try:
            first = trial(wanted.batch)
            found = [first, *(trial(wanted.batch) for _ in range(RUNS - 1))]
        except torch.OutOfMemoryError:
            say(Row(row=wanted.title, note="not measured: out of memory"))
            continue
        seconds = sorted(each.seconds for each in found)[RUNS // 2] / wanted.batch
        peak = max(each.bytes for each in found) if is_gpu else None
        note = f"made in {time.monotonic() - began:.0f} s" if wanted.compiled else ""
        say(Row(row=wanted.title, seconds=round(seconds, 4), x_real_time=stride_s / seconds, gpu_bytes=peak, note=note))


def song(plan: Plan) -> None:
    """The step `separate` alone, of the second song."""
    import torch

    from demixd.engine import device as devices
    from demixd.engine.engine import Engine
    from demixd.engine.families.demucs import load
    from demixd.engine.networks import never
    from demixd.engine.separation import Plan as How
    from demixd.engine.separation import Separation, Song

    loaded = load(_where(plan).locate(), allow_pickle=plan.allow_pickle)
    engine = Engine.warm(loaded.model, name=plan.model, sha256=loaded.sha256, device=plan.device)
    frames = int(plan.seconds * engine.rate)
    sound = torch.randn(engine.channels, frames, device=engine.device)

    def read(start: int, stop: int) -> torch.Tensor:
        inside = sound[:, max(start, 0) : max(stop, 0)]
        return torch.nn.functional.pad(inside, (max(-start, 0), stop - max(start, 0) - inside.shape[-1]))

    mix = [[float(row == column) for column in range(len(engine.sources))] for row in range(len(engine.sources))]
    how = How(mix=mix, overlap=0.25, shifts=0, seed=1, check=never, progress=lambda _: None)
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        for _block in Separation(engine, Song(read=read, frames=frames), how).blocks():
            pass
        devices.wait_for(engine.device)
        seconds = time.monotonic() - began
    note = f"{engine.facts.runtime} in {engine.facts.precision}, {engine.batch} at once"
    peak = engine.gpu_peak_bytes
    say(Row(row="separate", seconds=seconds, x_real_time=plan.seconds / seconds, gpu_bytes=peak, note=note))


def daemon(plan: Plan) -> None:
    """Two starts, a song in WAV and in FLAC, and `plan.songs` of them at once, without settle time."""
    folder = Path(plan.folder)
    songs = _songs(folder / "songs", plan)
    sections: dict[str, dict[str, Any]] = {
        "paths": {"models": plan.models},
        "inbox": {"settle": 0.0, "settle_remote": 0.0, "after": "delete"},
        "status": {"heartbeat_s": 1.0},
        "model": {"name": plan.model, "device": plan.device, "allow_pickle": plan.allow_pickle},
        "defaults": {"stems": ("vocals", "instrumental")},
    }
    daemon = ThrowawayDaemon(folder / "daemon", sections)
    for which in ("first", "second"):
        began = time.monotonic()
        with daemon.running():
            say(Row(row=f"start to READY, {which}", seconds=time.monotonic() - began))
            if which == "first":
                continue
            _done(daemon, songs["warm-up"])
            for kind in ("wav", "flac"):
                seconds = _done(daemon, songs[kind])
                say(Row(row=f"drop to done, {kind}", seconds=seconds, x_real_time=plan.seconds / seconds))
            seconds = _done(daemon, songs["row"])
            title, length = f"{plan.songs} songs in a row", plan.songs * plan.seconds
            say(Row(row=title, seconds=seconds, x_real_time=length / seconds))
            worker = daemon.heartbeat().get("worker", {})
            memory = peak_bytes(daemon.pid) + peak_bytes(worker.get("pid", 0))
            how = f"{worker.get('runtime')} in {worker.get('precision')}, {worker.get('batch')} at once"
            say(Row(row="peak memory", bytes=memory, gpu_bytes=worker.get("gpu_peak_bytes"), note=how))


def _songs(folder: Path, plan: Plan) -> dict[str, list[Path]]:
    """Songs that differ, so that none is a duplicate."""
    folder.mkdir()
    record(folder / "whole.wav", plan.seconds + plan.songs + 2)
    sound, rate = soundfile.read(folder / "whole.wav", dtype="int16")
    frames = int(plan.seconds * rate)

    def cut(name: str, at: int, length: int) -> Path:
        soundfile.write(folder / name, sound[at * rate // 2 : at * rate // 2 + length], rate)
        return folder / name

    return {
        "warm-up": [cut("warm-up.wav", 0, min(frames, 10 * rate))],
        "wav": [cut("song.wav", 1, frames)],
        "flac": [cut("song.flac", 2, frames)],
        "row": [cut(f"{number}.flac", 3 + number, frames) for number in range(plan.songs)],
    }


def _done(daemon: ThrowawayDaemon, songs: list[Path]) -> float:
    """Drop all of them, and wait until each is done; the seconds. Raises RefusedError where one is not."""
    waiting = [Follower(daemon.spool, path.name) for path in songs]
    began = time.monotonic()
    for path in songs:
        actions.drop(daemon.spool, path)
    for follower in waiting:
        while not (follower.refresh() and follower.ended):
            daemon.check()
            time.sleep(POLL_S)
        if follower.state is not State.DONE:
            raise RefusedError(follower.result(daemon.spool))
    return time.monotonic() - began


def _where(plan: Plan) -> Where:
    return Where(name=plan.model, repo=None, models=plan.models, allow_pickle=plan.allow_pickle)


def say(row: Row) -> None:
    sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    exit_on_sigterm()
    plan = msgspec.json.decode(sys.argv[2], type=Plan)
    with tempfile.TemporaryDirectory(dir=plan.folder) as own:
        {"network": network, "song": song, "daemon": daemon}[sys.argv[1]](msgspec.structs.replace(plan, folder=own))


if __name__ == "__main__":
    main()
