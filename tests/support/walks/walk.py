"""A random walk over one spool: a user, other programs and the machine do what they like, and the model keeps count.

Each step draws one of `ACTIONS` by its weight. Now and then, and at the end, the walk rests: what is away comes back,
nothing more is done, and when all is quiet every drop must be accounted for.
"""

import contextlib
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemons import Daemon, make_song
from demixd.spool.tree import CANCEL, OPTIONS, companion
from mounts import may_mount, mounts, tmpfs
from walk_actions import ACTIONS, IN_PLACE, WAYS, take
from walk_model import Drop, Model
from walk_rest import rest
from walk_watch import Eyes
from watching import again_and_again

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
        time.sleep(self.random.choice((0.02, 0.02, 0.05, 0.2, 0.5)))
        self._judge()

    def rest(self) -> None:
        """Let all become quiet, and hold what is there against the model."""
        self.story.append(f"{self.steps}: rest")
        for folder in list(self.away):
            self.bring_back(folder)
        for name in ("hold", "hold-encode", "hold-ahead", "deaf", "disk/ballast"):
            (self.folder / name).unlink(missing_ok=True)
        if not self.is_up:
            self.daemon.start()
        self.eyes.wrong += rest(self)
        self._judge()
        while may_mount() and shutil.disk_usage(self.disk).free < DISK // 2 and (taken := take(self)):
            self.story.append(f"{self.steps}: {taken}")  # a long walk would fill the disk for good

    def _judge(self) -> None:
        if self.eyes.wrong:
            wrong = "\n  ".join(self.eyes.wrong)
            told = "\n  ".join(self.story[-30:])
            log = self.daemon.log.read_text(errors="replace")[-6000:]
            raise ViolationError(f"seed {self.seed}, step {self.steps}:\n  {wrong}\nthe last actions:\n  {told}\n{log}")

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
