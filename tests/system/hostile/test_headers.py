"""Audio headers that lie, through the worker: the decode step in a process of its own, with a bound on its memory."""

import contextlib
import itertools
import queue
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemons import PATIENCE_S, ROOT
from demixd.engine import host
from demixd.errors import Code
from demixd.protocol.job import Error
from demixd.supervisor.workers import patience, process
from demixd.supervisor.workers.line import Died, Said
from demixd.supervisor.workers.process import WorkerProcess
from demixd.worker.messages import Forget, Prepare, Prepared
from mutants import burdens, mutants, originals

MEMORY_KB = 3 << 20
"""Address space of the worker, threads' stacks and libraries included."""

RESIDENT = 600 << 20
"""What of it may be real at most: 60 MB for the program, the rest for blocks."""

LIMIT_S = 60.0
"""Of decoded audio: what goes on for longer is stopped."""

ANSWERS = {Code.BAD_AUDIO, Code.TRUNCATED, Code.NOT_FINITE, Code.TOO_LONG}

FAKE = ROOT / "tests" / "support" / "fake_worker.py"


class Decoder:
    """The fake worker, which decodes for real; when it dies, another one takes its place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.deaths, self.count = folder, 0, 0
        self._start()

    def _start(self) -> None:
        self.said: queue.SimpleQueue[Said | Died] = queue.SimpleQueue()
        self.handle = WorkerProcess(self.said.put)

    def decode(self, data: bytes) -> Error | None:
        """What came of it; None for a song."""
        self.count += 1
        job_id = f"job-{self.count}"
        (self.folder / "song").write_bytes(data)
        began = time.monotonic()
        song, tmp = str(self.folder / "song"), str(self.folder)
        self.handle.send(Prepare(job_id=job_id, snapshot=song, tmp=tmp, work=tmp, max_duration_s=LIMIT_S))
        answer = self.said.get(timeout=PATIENCE_S)
        assert time.monotonic() - began < patience.STALL_FLOOR_S, "it was silent for longer than a worker may be"
        if isinstance(answer, Died):
            self.deaths += 1
            self.handle.close()
            self._start()
            return Error(code=Code.GAVE_UP, message=answer.how)
        self.handle.heard()
        assert isinstance(answer.message, Prepared)
        self.handle.send(Forget(job_id=job_id))
        return answer.message.error


@contextlib.contextmanager
def decoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    bounded = f'ulimit -v {MEMORY_KB}; exec "$0" "$1"'
    monkeypatch.setattr(process, "PROGRAM", ["sh", "-c", bounded, sys.executable, str(FAKE)])
    # What it is given in the daemon keeps memory; here it is to be seen how much is needed.
    monkeypatch.setattr(host, "WORKER", {"OMP_WAIT_POLICY": "passive"})
    monkeypatch.setenv("FAKE_FOLDER", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "daemon"))
    one = Decoder(folder)
    try:
        yield one
    finally:
        one.handle.close()


def sweep(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, count: int) -> Counter[str]:
    """How often each answer came."""
    files, rng = originals(folder), random.Random(seed)
    answers: Counter[str] = Counter()
    with decoder(folder, monkeypatch) as one:
        for name, data in itertools.islice(mutants(files, rng), count):
            error = one.decode(data)
            answers[error.code if error else "decoded"] += 1
            if error is not None and error.code not in ANSWERS:
                kept = folder / "fault"
                kept.write_bytes(data)
                raise AssertionError(f"{name}, changed: {error}; seed {seed}, number {one.count}, kept as {kept}")
            if one.count % 50 == 0:
                assert (one.handle.resident_bytes() or 0) < RESIDENT
    return answers


def test_a_share_of_lying_headers(
    tmp_path: Path, day: int, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """A changed header makes a song or one of the codes that a bad song has, soon, in bounded memory, in a worker that lives."""
    answers = sweep(tmp_path, monkeypatch, day, 800)
    assert len(answers) >= 3  # some decode, some do not, and not all for one reason
    record_property("headers through the worker", answers.total())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_lying_headers(
    tmp_path: Path,
    day: int,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The same 400,000 times."""
    record_property("headers through the worker", sweep(tmp_path, monkeypatch, day * 8 + part + 1, 50_000).total())


def test_burdens_are_put_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of chunks or tags, a run of junk, empty pages, 1,024 channels: an answer soon, and in bounded memory."""
    with decoder(tmp_path, monkeypatch) as one:
        answers = {}
        for name, data in burdens().items():
            error = one.decode(data)
            answers[name] = error.code if error else None
            assert (one.handle.resident_bytes() or 0) < RESIDENT, name
        assert one.deaths == 0
    assert answers["channels.wav"] is None
    assert {answers[name] for name in answers.keys() - {"channels.wav"}} <= ANSWERS | {None}
    assert answers["chunks.wav"] is answers["tags.mp3"] is Code.BAD_AUDIO
