"""What daemons go through while something happens to them, and what must be so afterwards, whatever happened."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemons import Daemon, make_song
from end_lines import wrong_ends
from watching import faults, lives, lying_about

FINAL = ("done", "failed", "cancelled")


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`prepare` brings a daemon to where it begins, `act` is what is watched; `ends` are the states that songs may end in.

    Both are given a word with which the names of the songs begin, so that one daemon can go through it many times.
    """

    name: str
    prepare: Callable[[Daemon, str], None]
    act: Callable[[Daemon, str], None]
    ends: dict[str, tuple[str, ...]]
    crash: str = ""
    """The trace point at which a first life ended: then the start of the second one is what is watched."""
    workers: int = 1

    @property
    def sections(self) -> dict[str, Any]:
        """Of the daemon's configuration."""
        return {"model": {"device": ["cpu"] * self.workers}}


def _song(daemon: Daemon, name: str, seconds: float = 0.3) -> None:
    make_song(daemon.folder / name, seconds).rename(daemon.inbox / name)


def _nothing(_: Daemon, __: str) -> None:
    """It is ready, and that will do."""


def _drop(daemon: Daemon, tag: str) -> None:
    _song(daemon, f"{tag}song.wav")


def _held(daemon: Daemon, tag: str) -> None:
    held = daemon.folder / "held"
    held.unlink(missing_ok=True)
    daemon.hold.touch()
    name = f"{tag}song.wav"
    _song(daemon, name)
    daemon.until(held.exists, f"{name} is held")


def _done_before(daemon: Daemon, tag: str) -> None:
    _song(daemon, f"{tag}first.wav")
    assert daemon.final(f"{tag}first.wav")["state"] == "done"
    daemon.quiet()
    first = daemon.spool / "done" / f"{tag}first.wav"
    (daemon.folder / "second.wav").write_bytes(first.read_bytes())


def _drop_second(daemon: Daemon, tag: str) -> None:
    (daemon.folder / "second.wav").rename(daemon.inbox / f"{tag}second.wav")


def _kill_worker(daemon: Daemon, _: str) -> None:
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(daemon.read("_daemon.json")["worker"]["pid"], signal.SIGKILL)
    daemon.hold.unlink(missing_ok=True)


def _cancel(daemon: Daemon, tag: str) -> None:
    (daemon.inbox / f"{tag}song.wav.cancel").touch()


def _drop_bad(daemon: Daemon, tag: str) -> None:
    (daemon.folder / "bad.wav").write_bytes(b"RIFF, and then nothing that is audio" * 50)
    (daemon.folder / "bad.wav").rename(daemon.inbox / f"{tag}bad.wav")


SIX_NAMES = ("one.wav", "two.wav", "three.wav", "four.wav", "five.wav", "six.wav")


def _drop_three(daemon: Daemon, tag: str) -> None:
    for name in SIX_NAMES[:3]:
        _song(daemon, f"{tag}{name}")


def _drop_six(daemon: Daemon, tag: str) -> None:
    for name in SIX_NAMES:
        _song(daemon, f"{tag}{name}")


RUN = Scenario(name="run", prepare=_nothing, act=_drop, ends={"song.wav": ("done",)})
CANCEL = Scenario(name="cancel", prepare=_held, act=_cancel, ends={"song.wav": ("cancelled",)})
RETRY = Scenario(name="retry", prepare=_held, act=_kill_worker, ends={"song.wav": ("done",)})
DUPLICATE = Scenario(
    name="duplicate",
    prepare=_done_before,
    act=_drop_second,
    ends={"first.wav": ("done",), "second.wav": ("done",)},
)
FAIL = Scenario(name="fail", prepare=_nothing, act=_drop_bad, ends={"bad.wav": ("failed",)})
THREE = Scenario(
    name="three",
    prepare=_nothing,
    act=_drop_three,
    ends=dict.fromkeys(SIX_NAMES[:3], ("done",)),
)
SIX = Scenario(name="six", prepare=_nothing, act=_drop_six, ends=dict.fromkeys(SIX_NAMES, ("done",)))
"""As many that each of two workers has several, whichever is the faster."""
STARTS = tuple(
    Scenario(name=f"start-after-{point}", prepare=_nothing, act=_drop, ends={"song.wav": ("done",)}, crash=point)
    for point in ("3-started", "6-rename", "7-final", "9-original")
)
OF_TWO = tuple(
    msgspec.structs.replace(each, name=f"{each.name}-of-two", workers=2) for each in (CANCEL, RETRY, DUPLICATE, SIX)
)
SCENARIOS = (RUN, CANCEL, RETRY, DUPLICATE, FAIL, THREE, *OF_TWO, *STARTS)


def is_over(daemon: Daemon, scenario: Scenario, tag: str = "") -> bool:
    """Whether every song has ended, or the daemon has."""
    assert daemon.process is not None
    if daemon.process.poll() is not None or not lives(daemon.process.pid):
        return True
    songs = [daemon.song(tag + name) for name in scenario.ends]
    return all(song.get("state") in FINAL for song in songs) and not daemon.works()


def violations(daemon: Daemon, scenario: Scenario, tag: str = "", *, may_stay: bool = False) -> list[str]:
    """What is wrong after all is over: lost, done twice, visible in part, stuck, or left lying about.

    An original that could not be put away `may_stay` in the inbox, where its sidecar says so.
    """
    found, staying = [], set()
    for plain, ends in scenario.ends.items():
        name = tag + plain
        sidecar = daemon.song(name)
        if sidecar.get("state") not in ends:
            found.append(f"{name} is {sidecar.get('state')}, {sidecar.get('reason')}, {sidecar.get('error')}")
            continue
        where = "done" if sidecar["state"] == "done" else "failed"
        stays = may_stay and any("stays in the inbox" in warning for warning in sidecar["warnings"])
        if (daemon.inbox / name).exists() != stays or (daemon.spool / where / name).exists() == stays:
            found.append(f"{name} is not in {where}/")
        staying |= {name} if stays else set()
    folders = [path for path in daemon.outbox.iterdir() if path.name != ".demixd"]
    for folder in folders:
        found += (
            [f"{folder.name}: {each}" for each in faults(folder)] if (folder / "stems.json").exists() else [folder.name]
        )
    expected = {
        sidecar["output"]["dir"] for name in scenario.ends if (sidecar := daemon.song(tag + name)).get("output")
    }
    if {folder.name for folder in folders} != expected:
        found.append(f"results {sorted(folder.name for folder in folders)}, and the sidecars know {sorted(expected)}")
    private = [path.name for path in (daemon.outbox / ".demixd").iterdir() if path.name != "lock"]
    found += [f"left in the work folder: {name}" for name in private]
    found += [f"left behind: {path.relative_to(daemon.spool)}" for path in lying_about(daemon.spool)]
    found += wrong_ends(daemon.spool / "status")
    found += [f"left in the inbox: {path.name}" for path in daemon.inbox.iterdir() if path.name not in staying]
    return found


def tidy(daemon: Daemon) -> None:
    """Take away what the next one need not look at; all of it is a consumer's to take."""
    for folder in (daemon.inbox, daemon.outbox, daemon.spool / "done", daemon.spool / "failed"):
        for path in folder.iterdir():
            if path.is_dir() and path.name != ".demixd":
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()


def made(folder: Path, name: str) -> Path:
    """A folder in `folder`, which is new."""
    (folder / name).mkdir()
    return folder / name
