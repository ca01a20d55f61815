"""`demixd hooks` and `demixd follow` beside a real daemon, whatever happens to the three of them."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import Daemon, make_song, running
from end_lines import lines, wrong_ends

PATIENCE_S = 60.0


STARTED: list["Companion"] = []
"""The companions of the test that runs, which ends them also where it fails."""


class Companion:
    """A command beside the daemon, that can be killed and started again; it writes to a file of its own."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self._words = [sys.executable, "-m", "demixd", "--config", str(daemon.folder / "demixd.toml"), *words]
        self._log = daemon.folder / f"{words[0]}.log"
        self._env = os.environ | {"STATE_DIRECTORY": str(daemon.folder / "hooks-state")}
        self._process: subprocess.Popen[bytes] | None = None
        STARTED.append(self)

    def start(self) -> "Companion":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._env
            )
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def said(self) -> str:
        return self._log.read_text()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    folder = tmp_path / "hooks.d"
    folder.mkdir(mode=0o755)
    hooks = {"folder": str(folder), "limit_s": 2.0}
    with running(tmp_path, fake=True, hooks=hooks, inbox={"settle": 0.1}) as daemon:
        yield daemon
        while STARTED:
            STARTED.pop().kill()


def put(daemon: Daemon, name: str, text: str) -> None:
    """An executable, which is there at once."""
    new = daemon.folder / name
    new.write_text(f"#!/bin/sh\n{text}\n")
    new.chmod(0o755)
    new.rename(daemon.folder / "hooks.d" / name)


def noted(daemon: Daemon, name: str) -> list[int]:
    """The ends that an executable has noted, in the order of its runs."""
    path = daemon.folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def once(numbers: list[int]) -> list[int]:
    """Without those that come again at once: the last run before a death may be made again."""
    return [number for number, _ in itertools.groupby(numbers)]


def fails_fast(daemon: Daemon, name: str) -> None:
    """A song that fails as soon as it is begun."""
    (daemon.folder / name).write_bytes(b"no music\n" * 400)
    (daemon.folder / name).rename(daemon.inbox / name)


def until(condition: Callable[[], Any], what: str) -> Any:
    limit = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < limit, what
        time.sleep(0.05)
    return found


def told(daemon: Daemon) -> list[int]:
    return once([line["end"] for line in lines(daemon.spool / "status")])


def test_each_end_is_run_for(daemon: Daemon) -> None:
    """One that is new begins with the next end; one that fails or hangs is passed over, and holds nobody else up."""
    fails_fast(daemon, "before.wav")
    daemon.final("before.wav")
    daemon.quiet()
    put(daemon, "good", f'echo "$DEMIXD_END" >> {daemon.folder}/good.noted; echo "$DEMIXD_NAME is $DEMIXD_STATE"')
    put(daemon, "hangs", f'echo "$DEMIXD_END" >> {daemon.folder}/hangs.noted; sleep 60')
    put(daemon, "open", "exit 0")
    (daemon.folder / "hooks.d" / "open").chmod(0o777)
    (daemon.folder / "hooks.d" / "notes").write_text("no program\n")
    hooks = Companion(daemon, "hooks").start()
    try:
        # What is new begins after what is there when it is first seen.
        kept = daemon.folder / "hooks-state"
        until(
            lambda: any({"good", "hangs"} <= json.loads(each.read_bytes()).keys() for each in kept.glob("*.json")),
            "places",
        )
        make_song(daemon.folder / "song.wav", 0.3).rename(daemon.inbox / "song.wav")
        assert daemon.final("song.wav")["state"] == "done"
        fails_fast(daemon, "after.wav")
        daemon.final("after.wav")
        expected = told(daemon)[1:]
        until(lambda: noted(daemon, "good.noted") == expected, "each end was run for")
        until(lambda: "it took longer than 2 s, and was ended; again in 10 s" in hooks.said, "one has hung")
        assert "good: song.wav is done" in hooks.said
        assert f"{daemon.folder}/hooks.d/open can be written to by others" in hooks.said
        assert hooks.said.count("notes is not executable") == 1
        assert len(noted(daemon, "hangs.noted")) == 1
    finally:
        assert hooks.end() == 0


def test_a_place_outlives_both(daemon: Daemon) -> None:
    """What ended while hooks did not run is made up for, in order, and nothing that was run for is run for again."""
    put(daemon, "good", f'echo "$DEMIXD_END" >> {daemon.folder}/noted')
    hooks = Companion(daemon, "hooks").start()
    until(lambda: "for each end" in hooks.said, "it has begun")
    until(lambda: list((daemon.folder / "hooks-state").glob("*.json")), "it has its place")
    fails_fast(daemon, "one.wav")
    until(lambda: len(noted(daemon, "noted")) == 1, "the first")
    until(
        lambda: str(noted(daemon, "noted")[0]) in next((daemon.folder / "hooks-state").glob("*.json")).read_text(),
        "kept",
    )
    assert hooks.end() == 0
    for name in ("two.wav", "three.wav"):
        fails_fast(daemon, name)
        daemon.final(name)
    daemon.stop()
    daemon.start().ready()
    fails_fast(daemon, "four.wav")
    daemon.final("four.wav")
    hooks.start()
    try:
        until(lambda: noted(daemon, "noted") == told(daemon), "the others")
        assert len(told(daemon)) == 4
    finally:
        assert hooks.end() == 0


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_kills_at_random(daemon: Daemon, count: int, day: int) -> None:
    """Songs while daemon and hooks are killed again and again: each end at least once, in order, none lost."""
    draw = random.Random(day * 1000 + count)
    put(daemon, "good", f'echo "$DEMIXD_END" >> {daemon.folder}/good.noted')
    put(daemon, "slow", f'sleep 0.0$(($$ % 10)); echo "$DEMIXD_END" >> {daemon.folder}/slow.noted')
    put(daemon, "floods", f'yes | head -n 500; echo "$DEMIXD_END" >> {daemon.folder}/floods.noted')
    hooks = Companion(daemon, "hooks").start()
    until(lambda: "for each end" in hooks.said, "it has begun")
    places = until(lambda: list((daemon.folder / "hooks-state").glob("*.json")), "there are places")
    until(lambda: len(json.loads(places[0].read_bytes())) == 3, "each has its place")
    names = [f"{number:03}.wav" for number in range(count)]
    for name in names:
        fails_fast(daemon, name)
        if draw.random() < 0.1:
            hooks.end(signal.SIGKILL)
            hooks.start()
        if draw.random() < 0.05:
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            daemon.start().ready()
        time.sleep(draw.random() * 0.1)
    daemon.quiet()
    assert wrong_ends(daemon.spool / "status") == []
    ends = told(daemon)
    assert len({line["job_id"] for line in lines(daemon.spool / "status")}) == count
    for name in ("good", "slow", "floods"):
        until(lambda name=name: noted(daemon, f"{name}.noted")[-1:] == ends[-1:], f"{name} is at the end")
        assert once(noted(daemon, f"{name}.noted")) == sorted(set(ends))
    assert hooks.end() == 0


def test_two_at_once(daemon: Daemon) -> None:
    """A second one with the same places is refused: every hook would run twice."""
    hooks = Companion(daemon, "hooks").start()
    try:
        until(lambda: "for each end" in hooks.said, "it has begun")
        second = subprocess.run(hooks._words, env=hooks._env, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "hooks of this spool run already" in second.stderr
    finally:
        assert hooks.end() == 0


def test_a_new_one_while_places_cannot_be_kept(daemon: Daemon) -> None:
    """It is told, the others go on, and it begins once its place can be kept."""
    put(daemon, "good", f'echo "$DEMIXD_END" >> {daemon.folder}/noted')
    hooks = Companion(daemon, "hooks").start()
    state = daemon.folder / "hooks-state"
    until(lambda: list(state.glob("*.json")), "it has its place")
    (places,) = state.glob("*.json")
    kept = places.read_bytes()
    places.unlink()
    (places / "a folder").mkdir(parents=True)
    try:
        put(daemon, "late", "exit 0")
        until(lambda: "late: " in hooks.said and "Is a directory" in hooks.said, "it is told")
        (places / "a folder").rmdir()
        places.rmdir()
        places.write_bytes(kept)
        until(lambda: "late" in json.loads(places.read_bytes()), "it has its place")
        fails_fast(daemon, "song.wav")
        until(lambda: noted(daemon, "noted") == told(daemon) != [], "the other goes on")
    finally:
        assert hooks.end() == 0


def _reads_the_list(pid: int) -> bool:
    """Whether a process has the list of ends open."""
    handles = Path(f"/proc/{pid}/fd").iterdir()
    return any(os.path.realpath(handle).endswith("_ends.jsonl") for handle in handles)


def test_follow(daemon: Daemon) -> None:
    """Lines come as the ends do, from now on or after a number; with --all other states come too."""
    fails_fast(daemon, "before.wav")
    daemon.final("before.wav")
    daemon.quiet()
    first = told(daemon)[0]
    commands = [("follow",), ("follow", "--since", "0"), ("follow", "--since", str(first)), ("follow", "--all")]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "demixd", "--config", str(daemon.folder / "demixd.toml"), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    assert running[1].stdout is not None
    assert json.loads(running[1].stdout.readline())["end"] == first
    until(lambda: all(_reads_the_list(process.pid) for process in running), "the others have seen what is there")
    daemon.hold.touch()
    make_song(daemon.folder / "song.wav", 0.3).rename(daemon.inbox / "song.wav")
    daemon.state("song.wav", "running")
    time.sleep(1.2)
    daemon.hold.unlink()
    daemon.final("song.wav")
    found = []
    for process in running:
        assert process.stdout is not None
        told_lines = [json.loads(process.stdout.readline())]
        while told_lines[-1]["state"] != "done":
            told_lines.append(json.loads(process.stdout.readline()))
        found.append(told_lines)
        process.send_signal(signal.SIGINT)
        with process:
            assert process.wait(PATIENCE_S) == 0
    assert [len(each) for each in found[:3]] == [1, 1, 1]
    assert len({each[-1]["end"] for each in found}) == 1
    assert [each["state"] for each in found[3]][-2:] == ["running", "done"]
