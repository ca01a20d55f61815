"""Songs in a quick daemon: dropped one by one, waited for, and counted at the end."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemons import Daemon
from watching import faults


@contextmanager
def started(folder: Path, **sections: Any) -> Iterator[Daemon]:
    """A daemon that is ready, and is stopped at the end."""
    daemon = Daemon(folder, fake=True, **sections)
    daemon.constants["demixd.supervisor.runs.outcomes:RETRY_S"] = 0.5
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def drop(daemon: Daemon, *names: str, seconds: float = 0.3) -> None:
    """Songs by the best way to drop, one after the other: each has been seen before the next one comes."""
    for name in names:
        source = daemon.make_song(daemon.folder / f"dropped-{Path(name).name}", seconds)
        part = daemon.inbox / f".{name}.part"
        shutil.copy2(source, part)
        part.rename(daemon.inbox / name)
        daemon.until(lambda n=name: daemon.song(n), f"{name} is seen")


def running(daemon: Daemon, name: str) -> None:
    daemon.until(lambda: daemon.song(name).get("step") == "separate", f"{name} runs")


def queued(daemon: Daemon, *names: str) -> None:
    """Wait until just these songs are in the queue, in this order."""
    wanted = list(names)
    daemon.until(lambda: queue(daemon) == wanted, f"the queue is {wanted}")


def queue(daemon: Daemon) -> list[str]:
    return [each["name"] for each in daemon.read("_daemon.json").get("queue", ())]


def warned(daemon: Daemon, *words: str) -> str:
    """Wait until `_daemon.json` has a warning with these words in it."""

    def find() -> str:
        warnings: list[str] = daemon.read("_daemon.json").get("warnings", [])
        return next((text for text in warnings if all(word in text for word in words)), "")

    return str(daemon.until(find, f"a warning with {words}"))


def looks(daemon: Daemon, number: int = 5) -> None:
    """Let some looks and heartbeats go by."""
    seq = daemon.read("_daemon.json")["seq"]
    daemon.until(lambda: daemon.read("_daemon.json").get("seq", 0) > seq + number, "some heartbeats")


def order_of_work(daemon: Daemon) -> list[str]:
    """The songs in the order in which the worker got them."""
    told = [json.loads(line) for line in (daemon.folder / "orders").read_bytes().splitlines()]
    return [each["name"] for each in told if each["type"] == "separate"]


def all_done_once(daemon: Daemon, *names: str) -> None:
    """Every song is done, its original is put away, its result is whole, and there is no other."""
    for name in names:
        assert daemon.final(name)["state"] == "done", daemon.song(name)
        daemon.until((daemon.spool / "done" / name).exists, f"{name} is put away")
        assert not (daemon.inbox / name).exists()
        assert faults(daemon.outbox / daemon.song(name)["output"]["dir"]) == []
    daemon.until(lambda: not daemon.works(), "no work folder")
    songs = [json.loads(path.read_bytes())["song"] for path in daemon.outbox.glob("*/stems.json")]
    assert sorted(songs) == sorted(names)
