"""Songs by the hundred, brought by every program at once, with pauses as the day's seed draws them.

However a song comes, it is not begun before it is whole, it is not missed, and it is done once; one that never becomes
whole is not done without a warning. Every day each way brings a few songs, with `tests/run --full` a hundred.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import samba
from arrivals import GRACE_S, LONGER, SETTLE_S, SHORT_S, Drop, Fate, Faults, Way, sweep, verdict, ways
from daemons import running
from downloads import DOWNLOADS, GIVEN_UP, HASTY, LEFT, PLACEHOLDER, REPLACED, resumed
from mounts import Mount, may_mount, mounts
from programs import BROUGHT, FED, RESUMED, RSYNC, fed_and_killed, rsync_killed, secure_copy
from writers import AT_ONCE, KEEPING, Parts, Writer

Sweep = tuple[list[Drop], Faults]


def at_once(write: Callable[[Path, bytes], object]) -> Writer:
    def writer(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        write(path, b"".join(parts))
        yield ()

    return writer


ONCE = {way: at_once(write) for way, write in AT_ONCE.items()}
HAS_RSYNC, HAS_SCP = shutil.which("rsync") is not None, shutil.which("scp") is not None
BROKEN = {
    **GIVEN_UP,
    "cp, killed": fed_and_killed(lambda path: ["cp", "/dev/stdin", str(path)]),
}

LOCAL: dict[str, Way] = {
    **ways({**KEEPING, **ONCE, **FED, **BROUGHT, **DOWNLOADS}),
    **ways({"scp": secure_copy} if HAS_SCP else {}),
    **ways(RSYNC if HAS_RSYNC else {}),
    **ways(PLACEHOLDER, replaces=True),
    **ways(HASTY, pause_s=SHORT_S),
    **ways(REPLACED, pause_s=SHORT_S, replaces=True),
    **ways({"resumed": resumed}, in_parts=True),
    **ways(RESUMED if HAS_RSYNC else {}, in_parts=True, frames=LONGER),
    **ways(
        {"rsync --inplace, given up": rsync_killed("--inplace", "", is_resumed=False)} if HAS_RSYNC else {},
        fate=Fate.LOST,
        frames=LONGER,
    ),
    **ways(BROKEN, fate=Fate.LOST),
    **ways(LEFT, fate=Fate.LEFT),
}

REMOTE_S = 3 * SETTLE_S
AFAR: dict[str, Any] = {"pause_s": 3 * SHORT_S, "settle_s": REMOTE_S}
"""Nothing but time tells there: all of it is longer, so that a stall of this machine is not taken for an end."""

UNTOLD = ("mapped", *GIVEN_UP)
"""What cannot be told on FUSE, and is not promised there: writing through memory by others, and holes."""

STALE: dict[str, Way] = {
    **ways({way: write for way, write in {**KEEPING, **FED, **HASTY}.items() if way not in UNTOLD}, **AFAR),
    **ways({**ONCE, **BROUGHT, **DOWNLOADS}),
    **ways(PLACEHOLDER, replaces=True),
    **ways(REPLACED, **AFAR, replaces=True),
    **ways({way: RSYNC[way] for way in RSYNC if HAS_RSYNC and way != "rsync --inplace"}),
    **ways({"rsync --inplace": RSYNC["rsync --inplace"]} if HAS_RSYNC else {}, **AFAR),
    **ways({"given up": GIVEN_UP["given up"]}, fate=Fate.LOST),
}


def local(folder: Path, watch: str, **how: int) -> Sweep:
    """Into an inbox on the temporary folder's filesystem."""
    with a_daemon(folder, watch=watch) as daemon:
        drops = sweep(daemon, daemon.inbox, LOCAL, **how)
        return drops, verdict(daemon, drops)


def by_samba(folder: Path, **how: int) -> Sweep:
    """By clients of a real server, which shares the inbox."""
    if samba.WHAT_IS_MISSING:
        pytest.skip(samba.WHAT_IS_MISSING)
    with a_daemon(folder) as daemon, samba.serving(folder / "samba", daemon.inbox) as server:
        table = {
            **ways(samba.clients(server)),
            **ways(samba.clients_that_go_away(server), fate=Fate.LOST),
        }
        drops = sweep(daemon, daemon.inbox, table, **how)
        return drops, verdict(daemon, drops)


def stale(folder: Path, **how: int) -> Sweep:
    """Into the folder behind a FUSE mount, in which the daemon sees sizes and times as they were up to 30 s ago."""
    if shutil.which("bindfs") is None or not may_mount():
        pytest.skip("needs bindfs, and root that may mount: apt-get install bindfs; sudo tests/run")
    behind, seen = folder / "outside" / "behind", folder / "seen"
    behind.mkdir(parents=True)
    mount = Mount(seen, "-t", "fuse.bindfs", "-o", "attr_timeout=30", str(behind))
    with mounts(mount), a_daemon(folder, paths={"inbox": str(seen)}) as daemon:
        drops = sweep(daemon, behind, STALE, **how)
        return drops, verdict(daemon, drops)


def a_daemon(folder: Path, *, watch: str = "auto", **sections: dict[str, Any]) -> Any:
    inbox = {"settle": SETTLE_S, "settle_remote": REMOTE_S, "scan_interval": 0.5, "watch": watch}
    limits = {"truncated_grace_s": GRACE_S}
    return running(folder, fake=True, inbox=inbox, limits=limits, **sections)


@pytest.fixture(scope="module")
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Sweep | str"]:
    """All of it at the same time, for waiting is most of it: what came of each, or why it could not be tried."""
    is_full, seed = request.config.getoption("--full"), request.config.getoption("--day")
    how = {"count": 100 if is_full else 2, "lanes": 4, "seed": seed}
    watch = random.Random(seed).choice(["events", "poll"])

    def tried(work: Callable[..., Sweep], *words: Path | str) -> Sweep | str:
        try:
            return work(*words, **how)
        except pytest.skip.Exception as skipped:
            return str(skipped)

    places = {name: tmp_path_factory.mktemp(name) for name in ("local", "samba", "stale")}
    with ThreadPoolExecutor(3) as pool:
        futures = {
            "local": pool.submit(tried, local, places["local"], watch),
            "samba": pool.submit(tried, by_samba, places["samba"]),
            "stale": pool.submit(tried, stale, places["stale"]),
        }
        return {name: future.result() for name, future in futures.items()}


def judged(swept: dict[str, "Sweep | str"], where: str, record: Callable[[str, object], None]) -> None:
    found = swept[where]
    if isinstance(found, str):
        pytest.skip(found)
    drops, faults = found
    assert not faults, "\n".join(f"{kind}: {each}" for kind in faults for each in faults[kind])
    held_up, short = sum(drop.held_up for drop in drops), sum(drop.way.pause_s < drop.way.settle_s for drop in drops)
    assert held_up <= short // 2, "this machine is too busy for pauses that were to be short"
    record("arrivals that came whole", sum(drop.way.fate is Fate.WHOLE for drop in drops) - held_up)
    record("arrivals that were broken off", sum(drop.way.fate is not Fate.WHOLE for drop in drops))
    record("arrivals held up by this machine, and not judged", held_up)
    for kind in ("missed", "begun early", "done twice", "done without a warning"):
        record(f"arrivals {kind}", len(faults.get(kind, [])))


def test_every_way(swept: dict[str, "Sweep | str"], record_property: Callable[[str, object], None]) -> None:
    """Into a local inbox, in every way there is: none begun early, none missed, each done once, none silently in part."""
    judged(swept, "local", record_property)


def test_real_samba(swept: dict[str, "Sweep | str"], record_property: Callable[[str, object], None]) -> None:
    """By a real Samba server, plain, pre-sized with stalls and broken off half-way: the same."""
    judged(swept, "samba", record_property)


def test_stale_attributes(swept: dict[str, "Sweep | str"], record_property: Callable[[str, object], None]) -> None:
    """On a FUSE mount whose sizes and times are old: the same, where a writer never pauses for `settle_remote`."""
    judged(swept, "stale", record_property)
