"""A random walk over one spool: a user, other programs and the machine do what they like, and the model keeps count.

Each step draws one of `ACTIONS` by its weight. Now and then, and at the end, the walk rests: what is away comes back,
nothing more is done, and when all is quiet every drop must be accounted for.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemons import PATIENCE_S, Daemon, make_song
from demixd.spool.tree import CANCEL, OPTIONS, companion
from mounts import may_mount, mounts, tmpfs
from walk_actions import ACTIONS, IN_PLACE, WAYS, take
from walk_model import Drop, Model
from walk_rest import rest, wait_until_quiet
from walk_watch import Eyes
from watching import again_and_again, holds

DISK = 24 << 20


class ViolationError(AssertionError):
    """Something that the contract forbids, and how it came to it."""


class Walk:
    """`seed` draws what is done. With `real` the demo model separates, else tests/support/fake_worker.py."""

    def __init__(self, folder: Path, seed: int, *, real: bool = False) -> None:
        self.folder, self.seed, self.real = folder, seed, real
        self.random = random.Random(seed)
        self.steps = 0
        self.story: list[str] = []
        self.model = Model("move")
        self.stems = ["vocals", "instrumental"]
        self.disk = folder / "disk"
        """Where the outbox is, if it may have a small disk of its own."""
        self.daemon = self.configured()
        self.may_go = (self.daemon.inbox, self.daemon.outbox)
        """The folders that may go away."""
        self.daemon.constants = {
            "demixd.supervisor.runs.outcomes:RETRY_S": 1.0,
            "demixd.supervisor.workers.missing:RETRY_S": [0.5] * 7,
        }
        self.eyes = Eyes(self.daemon.spool / "status", self.daemon.outbox)
        self.bank: list[Path] = []
        """Good songs that were dropped before."""
        self.away: dict[Path, int] = {}
        """Folders that are away, and for how many steps still."""
        self.figures: tuple[int, int, int] | None = None
        """The daemon's process, with its descriptors and threads when it was first quiet."""
        (folder / "bank").mkdir()

    def configured(self) -> Daemon:
        """The configuration as it is now, written down."""
        daemon = Daemon(
            self.folder,
            fake=not self.real,
            inbox={"settle": 0.2, "scan_interval": 0.2, "after": self.model.after},
            status={"heartbeat_s": 0.1},
            limits={"cancel_grace_s": 1.0, "truncated_grace_s": 1.5},
            defaults={"stems": self.stems},
            paths={"outbox": str(self.disk / "outbox")} if may_mount() else {},
            **{"profiles.karaoke": {"stems": ["vocals"]}},
        )
        if may_mount():
            daemon.outbox = self.disk / "outbox"
        return daemon

    @contextlib.contextmanager
    def begun(self) -> Iterator["Walk"]:
        """With a daemon that is ready, and eyes on it; stopped at the end."""
        with mounts(*([tmpfs(self.disk, DISK)] if may_mount() else [])):
            try:
                self.daemon.start().ready()
                with again_and_again(self._look) as raised:
                    yield self
                    assert self.daemon.stop() == 0
                assert raised == []
                self._judge()
            finally:
                self.daemon.end()

    def _look(self) -> None:
        self.eyes.look()
        time.sleep(0.01)

    # ---- steps

    def step(self) -> None:
        self.steps += 1
        weights = [weight for weight, _ in ACTIONS]
        while not (told := self.random.choices(ACTIONS, weights)[0][1](self)):
            continue  # it could not be done just now
        self.story.append(f"{self.steps}: {told}")
        for folder in list(self.away):
            self.away[folder] -= 1
            if self.away[folder] <= 0:
                self.bring_back(folder)
        self.sleep(self.random.choice((0.02, 0.02, 0.05, 0.2, 0.5)))
        self._judge()

    def rest(self) -> None:
        """Let all become quiet, and hold what is there against the model."""
        self.story.append(f"{self.steps}: rest")
        for folder in list(self.away):
            self.bring_back(folder)
        for name in ("hold", "hold-encode", "hold-ahead", "deaf", "full", "disk/ballast"):
            (self.folder / name).unlink(missing_ok=True)
        if not self.is_up:
            self.daemon.start()
        self.eyes.wrong += rest(self)
        self._judge()
        while self._is_crowded() and (taken := take(self)):
            self.story.append(f"{self.steps}: {taken}")

    def _is_crowded(self) -> bool:
        """Whether results have to be taken away: a long walk would fill the disk for good."""
        return may_mount() and shutil.disk_usage(self.disk).free < DISK // 2

    def _judge(self) -> None:
        if self.eyes.wrong:
            wrong = "\n  ".join(self.eyes.wrong)
            told = "\n  ".join(self.story[-30:])
            log = self.daemon.log.read_text(errors="replace")[-6000:] if self.daemon.log.exists() else ""
            raise ViolationError(f"seed {self.seed}, step {self.steps}:\n  {wrong}\nthe last actions:\n  {told}\n{log}")

    # ---- what is done to the daemon

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def fill(self) -> str:
        """The disk below the outbox is full, or has room again."""
        ballast = self.disk / "ballast"
        if not may_mount():
            return ""
        if ballast.exists():
            ballast.unlink()
            return "the disk has room again"
        words = ["dd", "if=/dev/zero", f"of={ballast}", "bs=64k", "status=none"]
        subprocess.run(words, capture_output=True, check=False)
        return "the disk is full"

    def kill_worker(self) -> bool:
        """Whether there was one."""
        pid = self.daemon.read("_daemon.json")["worker"]["pid"]
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pid)

    def stop(self) -> None:
        assert self.daemon.process is not None
        # Before it has said who it is, the signal may find a program that is still being loaded, and end it.
        allowed = (0,) if self.is_listening() else (0, -signal.SIGTERM)
        self.daemon.process.send_signal(signal.SIGTERM)
        try:
            status = self.daemon.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        self.eyes.check(status in allowed, f"SIGTERM: exit status {status}")

    def reload(self) -> None:
        """It reads its configuration again."""
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGHUP)

    def unrest(self) -> list[str]:
        """Wait until all is quiet; what still was to be done at the end, where it never was."""
        return wait_until_quiet(self)

    def leaked(self) -> list[str]:
        """Descriptors and threads, against those of the same process when it was first quiet."""
        assert self.daemon.process is not None
        pid = self.daemon.process.pid
        handles, threads = holds(pid)
        if self.figures is None or self.figures[0] != pid:
            self.figures = pid, handles, threads
        if handles > self.figures[1] or threads > self.figures[2]:
            return [f"{handles} descriptors and {threads} threads, and {self.figures[1:]} when it was first quiet"]
        return []

    # ---- what the actions need

    @property
    def is_up(self) -> bool:
        return self.daemon.process is not None and self.daemon.process.poll() is None

    @property
    def inbox_is_there(self) -> bool:
        return self.daemon.inbox not in self.away

    def away_from(self, folder: Path) -> Path:
        """Where a folder is while it is away, on its own filesystem."""
        return folder.with_name(f"away-{folder.name}")

    def is_listening(self) -> bool:
        """Whether a signal would not end it: it has got as far as to say who it is."""
        return (
            self.daemon.process is not None and self.daemon.read("_daemon.json").get("pid") == self.daemon.process.pid
        )

    def bring_back(self, folder: Path) -> None:
        with self.eyes.lock:
            self.away_from(folder).rename(folder)
        del self.away[folder]
        self.story.append(f"{self.steps}: {folder.name} is back")

    def new_song(self, name: str) -> Path:
        """A song that there never was before, beside the spool."""
        path = self.folder / "bank" / f"{self.steps}{Path(name).suffix}"
        make_song(path, self.random.choice((0.05, 0.2, 0.5, 1.0)), channels=self.random.choice((1, 2)))
        return path

    def spoiled(self, song: Path) -> str:
        """Spoil a copy of a song; its kind then."""
        kind = self.random.choice(("bad", "cut") if song.suffix in (".wav", ".flac") else ("bad",))
        data = song.read_bytes()
        song.write_bytes(data[: len(data) // 2] if kind == "cut" else b"what is this? " * 100)
        return kind

    def write_options(self, name: str, song: Path) -> tuple[dict[str, Any], str]:
        """Options for the song, before it comes; and the kind that they make of it. Or none."""
        path = self.daemon.inbox / companion(name, OPTIONS)
        path.unlink(missing_ok=True)
        if self.random.random() < 0.6:
            return {}, "good"
        sha256 = hashlib.sha256(song.read_bytes()).hexdigest()
        options: dict[str, Any] = self.random.choice(
            (
                {"tag": f"step {self.steps}"},
                {"priority": self.random.randint(-5, 5)},
                {"format": "flac", "tag": "as flac"},
                {"force": True},
                {"wait_for_sha256": sha256},
                {"wait_for_sha256": "0" * 64},
                {"what": 1},
            )
        )
        path.write_text(json.dumps(options))
        wrong = options.get("wait_for_sha256", sha256) != sha256
        return options, "bad-options" if "what" in options else "wrong-hash" if wrong else "good"

    def arrive(self, song: Path, name: str, kind: str) -> str:
        """`song` comes to the inbox under `name`, in some way; with options or without."""
        path = self.daemon.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options, as_asked = self.write_options(name, song)
        kind = as_asked if as_asked in ("bad-options", "wrong-hash") else kind
        data = song.read_bytes()
        way = self.random.choice(tuple(WAYS))
        bare = (self.daemon.inbox / CANCEL).exists()
        found = WAYS[way](self, data, path)
        drop = Drop(
            name=name,
            kind=kind,
            sha256=hashlib.sha256(data).hexdigest(),
            inode=found.st_ino,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            options=options,
        )
        self.model.drop(drop, bare=bare, in_place=way in IN_PLACE)
        return f"{kind} {song.name} comes to {name!r}, {way}{f', with {options}' if options else ''}"
