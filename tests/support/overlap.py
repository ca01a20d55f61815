"""Three songs at once: one is finishing, one is separated, one is decoded ahead. For real daemons and simulated ones."""

import json
import shutil
from typing import Any

from daemons import Daemon
from watching import faults


def drop(daemon: Daemon, name: str, *, like: str = "", **options: Any) -> str:
    """The song called `like` (its own name, if not given) is dropped as `name`; its job's id."""
    song = daemon.folder / f"song-{like or name}"
    if not song.exists():
        daemon.make_song(song, 0.3)
    if options:
        (daemon.inbox / f"{name}.job.json").write_text(json.dumps(options))
    shutil.copy(song, daemon.inbox / f".{name}.part")
    (daemon.inbox / f".{name}.part").rename(daemon.inbox / name)
    return str(daemon.until(lambda: daemon.song(name).get("job_id"), f"{name} is seen"))


def lines(daemon: Daemon, log: str, kind: str) -> list[dict[str, Any]]:
    path = daemon.folder / log
    told = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [each for each in told if each["type"] == kind]


def prepared(daemon: Daemon) -> list[str]:
    """The jobs that the worker has decoded ahead, in order."""
    return [each["job_id"] for each in lines(daemon, "said", "prepared") if each["error"] is None]


def separated(daemon: Daemon) -> list[str]:
    """The names that the worker was told to separate, in order."""
    return [each["name"] for each in lines(daemon, "orders", "separate")]


def until_step(daemon: Daemon, name: str, step: str) -> None:
    daemon.until(lambda: daemon.song(name).get("step") == step, f"{name}: {step}")


def behind(daemon: Daemon, name: str, twin: str) -> bool:
    """Whether a song waits for the end of the same one under another name."""
    song = daemon.song(name)
    return song.get("reason") == "queued" and song["message"].startswith(f"The same song as {twin}:")


def until_behind(daemon: Daemon, name: str, twin: str) -> None:
    daemon.until(lambda: behind(daemon, name, twin), f"{name} waits for {twin}")


def until_prepared(daemon: Daemon, job: str) -> None:
    daemon.until(lambda: job in prepared(daemon), "decoded ahead")


def held(daemon: Daemon, name: str) -> str:
    """A song that stays in separation."""
    daemon.hold.touch()
    job = drop(daemon, name)
    until_step(daemon, name, "separate")
    return job


def three(daemon: Daemon) -> tuple[str, str, str]:
    """a.wav is finishing, b.wav is separated, c.wav is prepared, and all of them stay there: their jobs."""
    (daemon.folder / "hold-encode").touch()
    first = held(daemon, "a.wav")
    second = drop(daemon, "b.wav")
    until_prepared(daemon, second)
    daemon.hold.unlink()
    until_step(daemon, "a.wav", "encode")
    daemon.hold.touch()
    until_step(daemon, "b.wav", "separate")
    third = drop(daemon, "c.wav")
    until_prepared(daemon, third)
    return first, second, third


def go_on(daemon: Daemon) -> None:
    for hold in ("hold", "hold-ahead", "hold-encode"):
        (daemon.folder / hold).unlink(missing_ok=True)


def done(daemon: Daemon, *names: str) -> None:
    """All of them are done, each once, with whole results, and nothing is left."""
    for name in names:
        sidecar = daemon.final(name)
        assert sidecar["state"] == "done", sidecar
        assert faults(daemon.outbox / sidecar["output"]["dir"]) == []
    daemon.quiet()
    assert {path for path in daemon.results() if "/" not in path} == {name.removesuffix(".wav") for name in names}


# ---- what overlaps


def run_alone(daemon: Daemon, *names: str, prepares: int) -> None:
    """They are tried again one after the other, with nothing beside them, and not charged for what was before.

    `prepares` is how many songs had been prepared by then.
    """
    for number, name in enumerate(names, 1):
        (daemon.folder / "hold-encode").touch()
        for step in ("separate", "encode"):
            until_step(daemon, name, step)
            assert daemon.song(name)["attempt"] == 1
            assert separated(daemon)[-number:] == list(names[:number])
            assert len(daemon.read("_daemon.json")["in_flight"]) <= 1
            assert len(daemon.works()) == 1
            daemon.hold.unlink(missing_ok=True)
        daemon.hold.touch()
        (daemon.folder / "hold-encode").unlink()
        assert daemon.final(name)["state"] == "done"
    assert len(lines(daemon, "orders", "prepare")) == prepares
    go_on(daemon)


def kill_worker(daemon: Daemon) -> None:
    pid = daemon.read("_daemon.json")["worker"]["pid"]
    daemon.kill_worker()
    daemon.until(lambda: daemon.read("_daemon.json")["worker"]["pid"] not in (None, pid), "another worker")
