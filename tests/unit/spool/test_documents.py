"""Documents in folders that others may write to."""

from pathlib import Path

import msgspec

from demixd.protocol import status
from demixd.protocol.job import Output, OutputFile, Stage, State
from demixd.protocol.status import DaemonFacts, Sidecar
from demixd.spool import documents
from jobs import job


def test_a_large_file_is_no_sidecar(tmp_path: Path) -> None:
    """A file that is larger than any sidecar is not read, unless the caller expects a list."""
    path = tmp_path / "song.wav.json"
    path.write_bytes(b"{}" + b" " * documents.LARGEST)
    assert documents.read(path, dict) is None
    assert documents.read(path, dict, largest=documents.LARGEST_LIST) == {}


def test_the_largest_sidecar_is_read(tmp_path: Path) -> None:
    """A sidecar with the longest of names, paths, stems and tags has less than half of the bytes that are read."""
    escaped = "\1"  # six bytes in JSON
    files = tuple(OutputFile(stem=escaped * 255, name=escaped * 255, sha256="0" * 64, bytes=1 << 50) for _ in range(64))
    given = job(
        escaped * 2255,
        state=State.DONE,
        stage=Stage.FINISHED,
        reason=None,
        tag=escaped * 1000,
        output=Output(dir=escaped * 4095, files=files),
    )
    facts = DaemonFacts(instance="i", version="v")
    data = status.encode(status.sidecar(given, seq=1, position=None, eta_s=None, daemon=facts, now="now"))
    path = tmp_path / "song.wav.json"
    path.write_bytes(data)
    assert len(data) < documents.LARGEST / 2
    assert isinstance(documents.read(path, Sidecar), Sidecar)
    assert msgspec.json.decode(data)["tag"] == given.tag


def test_a_walk_can_be_ended_at_any_entry(tmp_path: Path) -> None:
    """What is walked over counts as well as what is found: strange names and empty folders."""
    for number in range(3):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}.txt").touch()
    asked: list[int] = []
    assert list(documents.sidecars(tmp_path, lambda: asked.append(1))) == []
    assert len(asked) == 6
