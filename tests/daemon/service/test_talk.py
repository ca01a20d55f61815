"""A worker that speaks nonsense: the supervisor does not crash, hang, grow or believe it."""

import json
import queue
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import PATIENCE_S, Daemon, below, make_song, running
from demixd.supervisor.workers import process
from demixd.supervisor.workers.line import UNHEARD, Died, Said
from demixd.supervisor.workers.process import WorkerProcess
from demixd.supervisor.workers.validate import doubt
from demixd.worker.messages import LONGEST

ERROR = {"code": "bad-audio", "message": "", "detail": None, "retryable": False}
TRACK = {"format": "wav", "subtype": "PCM_16", "rate": 44100, "channels": 2, "song_channels": 2, "frames": 9}
TICK = {"step": "separate", "progress": {"fraction": 0.5, "step_fraction": 0.5}, "message": ""}
ENGINE = {"model": "m", "model_sha256": "0", "device": "cpu", "device_name": "x", "precision": "float32"}
STEM = {"stem": "vocals", "name": "vocals.wav", "format": "wav", "subtype": "PCM_16", "frames": 9, "rate": 44100}
STEM |= {"channels": 2, "bytes": 9, "sha256": "0", "peak": 0.0, "gain_db": 0.0}


def line(type: str, **fields: Any) -> bytes:
    return json.dumps({"type": type, "job_id": "JOB"} | fields).encode() + b"\n"


def finished(*files: dict[str, Any]) -> bytes:
    return line("finished", files=files, gain_db=0, engine=ENGINE, timing={}, warnings=[])


BOTH = ({**STEM}, {**STEM, "stem": "instrumental", "name": "instrumental.wav"})

NONSENSE = {
    "noise": bytes(range(128, 256)) + b"\n",
    "no-object": b"[1, 2]\n",
    "deep": b'{"a": ' + b"[" * 100_000 + b"\n",
    "no-text": b'{"type": "fetching", "message": "\xff"}\n',
    "endless": b"x" * (LONGEST + 1),
    "wrong-union": line("fetching", message="x"),
    "rate-of-nothing": line("decoded", track=TRACK | {"rate": 0, "bitrate": None}),
    "too-many-frames": line("decoded", track=TRACK | {"frames": 10**400, "bitrate": None}),
    "no-number": line("progressed", at=TICK | {"progress": {"fraction": float("nan")}}),
    "out-of-range": line("progressed", at=TICK | {"progress": {"fraction": 1e300}}),
    "endless-segment": line("progressed", at=TICK | {"segment_s": 1e300}),
    "stopped-by-nobody": line("stopped"),
    "finished-without-files": finished(*BOTH),
    "finished-elsewhere": finished({**STEM, "name": "../../../../elsewhere.wav"}, BOTH[1]),
    "finished-by-half": finished(STEM),
}
"""What a worker that is not itself any more says of the song that it has: all of it ends the process."""

HARMLESS = {
    "flood": line("progressed", at=TICK),
    "others": line("progressed", at=TICK).replace(b"JOB", b"0" * 32) + finished(*BOTH).replace(b"JOB", b"0" * 32),
    "fetching": b'{"type": "fetching", "message": "x"}\n',
    "tuning": b'{"type": "tuning", "message": "x"}\n',
    "prepared": line("prepared", error=ERROR),
}
"""What is said at the wrong time, or of other jobs, or without end: it is heard and not believed."""


def memory_kb(daemon: Daemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def speak(daemon: Daemon, name: str, said: bytes) -> None:
    """The worker says it over a song, which is done nevertheless, once it says so no more."""
    (daemon.folder / "part").write_bytes(said)
    (daemon.folder / "part").rename(daemon.folder / "babble")
    song = f"{name}.wav"
    make_song(daemon.folder / song, 0.2).rename(daemon.inbox / song)
    if name in NONSENSE:
        daemon.until(lambda: daemon.song(song).get("reason") == "retry", f"the worker is ended over {name}")
    else:
        daemon.until(lambda: daemon.song(song).get("step") == "separate", f"{name} is said")
        before = memory_kb(daemon)
        beats: set[int] = set()
        daemon.until(lambda: beats.add(daemon.read("_daemon.json")["seq"]) or len(beats) > 6, "the heart beats")
        assert memory_kb(daemon) - before < 20_000
    (daemon.folder / "babble").unlink()
    sidecar = daemon.final(song)
    assert (sidecar["state"], sidecar["attempt"]) == ("done", 2 if name in NONSENSE else 1), sidecar
    assert sorted(file["name"] for file in sidecar["output"]["files"]) == ["instrumental.wav", "vocals.wav"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that is said."""
    with running(tmp_path_factory.mktemp("talk"), fake=True) as one:
        yield one
        assert not [path for path in below(one.folder) if path.name == "elsewhere.wav"]


@pytest.mark.parametrize("name", NONSENSE | HARMLESS)
def test_nonsense(daemon: Daemon, name: str, record_property: Callable[[str, object], None]) -> None:
    """What a worker says that cannot be true costs it its life and the song an attempt; what is for nobody costs nothing."""
    speak(daemon, name, (NONSENSE | HARMLESS)[name])
    record_property("nonsense said to a daemon", 1)


# ---- any bytes at all, from a process


def heard_from(program: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """How many messages a process says, and how its death is told."""
    monkeypatch.setattr(process, "PROGRAM", program)
    said: queue.SimpleQueue[Said | Died] = queue.SimpleQueue()
    one, count = WorkerProcess(said.put), 0
    try:
        while isinstance(event := said.get(timeout=PATIENCE_S), Said):
            assert doubt(event.message) is None
            one.heard()
            count += 1
        return count, event.how
    finally:
        one.close()


GOOD = [
    b'{"type":"fetching","message":"x"}\n',
    line("progressed", at=TICK | {"step": "mix"}),
    line("progressed", at=TICK),
]


def test_any_bytes_are_heard_to_their_end(
    tmp_path: Path, day: int, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Whatever comes from a worker, messages before the first nonsense are heard, and then that it is dead, once."""
    rng = random.Random(day)
    pieces = [*GOOD, *GOOD, *NONSENSE.values(), b"\n", b"{", b'{"type":', b"null\n", rng.randbytes(50)]
    for _ in range(200):
        data = bytearray(b"".join(rng.choices(pieces, k=rng.randrange(6))))
        for _ in range(rng.choice((0, 0, 1, 5))):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "said").write_bytes(data)
        count, how = heard_from(["cat", str(tmp_path / "said")], monkeypatch)
        assert count <= data.count(b"\n")
        assert how.startswith(("it ended", "it said", "killed"))
    record_property("streams of a worker heard", 200)


def test_a_half_line_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies in the middle of a line is one that died, whatever the half says."""
    (tmp_path / "said").write_bytes(GOOD[0] + GOOD[0].strip())
    assert heard_from(["cat", str(tmp_path / "said")], monkeypatch) == (1, "it ended with status 0")


def test_a_line_that_is_closed_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that closes its output and lives on is ended, for nothing more can be heard of it."""
    monkeypatch.setattr(process, "CLOSE_S", 0.2)
    program = [sys.executable, "-c", "import os, time; os.close(1); time.sleep(600)"]
    assert heard_from(program, monkeypatch) == (0, "it closed its line and did not end")


def test_a_flood_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: no more than so many lines are taken from a worker, and it can be ended all the same."""
    monkeypatch.setattr(process, "PROGRAM", ["sh", "-c", f"while :; do echo '{GOOD[0].decode().strip()}'; done"])
    said: queue.SimpleQueue[Said | Died] = queue.SimpleQueue()
    one = WorkerProcess(said.put)
    for _ in range(UNHEARD):
        said.get(timeout=PATIENCE_S)
    with pytest.raises(queue.Empty):
        said.get(timeout=0.3)
    one.close()
    assert said.empty() or isinstance(said.get(), Died)
