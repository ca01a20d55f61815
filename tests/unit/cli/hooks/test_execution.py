"""One run of an executable for one end: what it is given, its time, and its output."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.cli.hooks.execution import LINES, LONGEST, Limits, StoppedError, facts, run
from demixd.protocol.job import Error, Output, OutputFile, State
from demixd.protocol.status import End
from demixd.spool.tree import Spool
from end_lines import START, line, spool_in_its_third_start


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return spool_in_its_third_start(tmp_path)


def hook(folder: Path, text: str) -> Path:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def ran(
    spool: Spool, folder: Path, text: str, raw: bytes = line(1), limit_s: float = 60.0
) -> tuple[str | None, list[str]]:
    """What went wrong in a run of that script, and its output."""
    told: list[str] = []
    limits = Limits(limit_s, threading.Event())
    end = msgspec.json.decode(raw, type=End)
    return run(hook(folder, text), end, raw, spool, limits, told.append), told


FILES = (("vocals", "vocals.flac"), ("drums", "a b.flac"))
RESULT = Output(
    dir="album/Söng; rm -rf (2)",
    files=tuple(OutputFile(stem=stem, name=name, sha256="0", bytes=1) for stem, name in FILES),
)
HOSTILE = "album/$(touch x) `id` \"q\" 'p'\n\u202egpj; rm.wav"


def test_what_it_is_given(spool: Spool, tmp_path: Path) -> None:
    """The sidecar's path is its argument, the line its input, and the facts are as they are, whatever signs are in them."""
    raw = line(5, HOSTILE, output=RESULT, tag="a\u0000b")
    wrong, told = ran(
        spool, tmp_path, f'printf %s "$1" > {tmp_path}/argument; cat > {tmp_path}/input; env -0 > {tmp_path}/env', raw
    )
    assert (wrong, told) == (None, [])
    assert (tmp_path / "argument").read_text() == str(spool.sidecar(HOSTILE))
    assert (tmp_path / "input").read_bytes() == raw
    environment = dict(each.split("=", 1) for each in (tmp_path / "env").read_text().split("\0") if each)
    given = {key.removeprefix("DEMIXD_"): value for key, value in environment.items() if key.startswith("DEMIXD_")}
    assert given == {
        "END": str(START + 5),
        "JOB_ID": "1" * 32,
        "STATE": "done",
        "NAME": HOSTILE,
        "SONG": HOSTILE[6:-4],
        "TAG": "ab",
        "SIDECAR": str(spool.sidecar(HOSTILE)),
        "DIR": str(spool.outbox / RESULT.dir),
        "FILES": "vocals.flac\na b.flac",
        "ERROR": "",
        "MESSAGE": "",
        "MODEL": "",
    }
    assert environment["PATH"] == os.environ["PATH"]


def test_a_failed_song(spool: Spool) -> None:
    """It has an error and no folder; a name that is not UTF-8 has its own bytes."""
    error = Error(code="bad-audio", message="No music.", retryable=False)
    raw = line(5, state=State.FAILED, error=error, message="No music.", raw_name=b"stray \xff.wav")
    given = facts(msgspec.json.decode(raw, type=End), "stray \udcff.wav", spool)
    assert (given["DEMIXD_STATE"], given["DEMIXD_ERROR"], given["DEMIXD_MESSAGE"]) == (
        "failed",
        "bad-audio",
        "No music.",
    )
    assert (given["DEMIXD_DIR"], given["DEMIXD_FILES"]) == ("", "")
    assert os.fsencode(given["DEMIXD_NAME"]) == b"stray \xff.wav"


@pytest.mark.parametrize("folder", ["/etc", "../../etc", "a/../../b"])
def test_a_forged_folder(spool: Spool, folder: str) -> None:
    """No line leads out of the outbox."""
    raw = line(5, output=msgspec.structs.replace(RESULT, dir=folder))
    given = facts(msgspec.json.decode(raw, type=End), "song.wav", spool)
    assert (given["DEMIXD_DIR"], given["DEMIXD_FILES"]) == ("", "")


@pytest.mark.parametrize("name", ["../song.wav", "/etc/passwd", "a/../../b.wav", "", "a\0b.wav"])
def test_a_forged_name(spool: Spool, tmp_path: Path, name: str) -> None:
    """A line with a name that no song has is none of the daemon's: nothing is run for it."""
    assert ran(spool, tmp_path, f"touch {tmp_path}/ran", line(1, name)) == (None, [])
    assert not (tmp_path / "ran").exists()


def test_a_fact_of_a_megabyte(spool: Spool, tmp_path: Path) -> None:
    """What is longer than the kernel takes is cut; the input has all of it."""
    raw = line(1, message="x" * 900_000)
    wrong, told = ran(spool, tmp_path, "echo ${#DEMIXD_MESSAGE}; wc -c", raw)
    assert (wrong, told) == (None, ["100000", str(len(raw))])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("exit 0", None),
        ("exit 3", "it ended with status 3"),
        ("kill -9 $$", "it was ended by SIGKILL"),
        ("exec 1>&- 2>&-; sleep 0.5; exit 4", "it ended with status 4"),
    ],
)
def test_how_it_ended(spool: Spool, tmp_path: Path, text: str, wrong: str | None) -> None:
    """Status 0 is success; any other, and a signal, are told."""
    assert ran(spool, tmp_path, text) == (wrong, [])


def test_what_cannot_be_run(spool: Spool, tmp_path: Path) -> None:
    """An interpreter that is not there is what went wrong, and no traceback."""
    path = hook(tmp_path, "")
    path.write_text("#!/no/such/interpreter\n")
    end = msgspec.json.decode(line(1), type=End)
    wrong = run(path, end, line(1), spool, Limits(5, threading.Event()), pytest.fail)
    assert wrong == "it cannot be run: No such file or directory"


def test_a_flood(spool: Spool, tmp_path: Path) -> None:
    """Output is told up to a bound, a line each, on one line, and nothing that a terminal obeys."""
    wrong, told = ran(
        spool,
        tmp_path,
        r"printf 'a\033[2Jb\n'; head -c 100000 /dev/zero | tr '\0' x; echo; yes | head -n 5000; echo error >&2",
    )
    assert wrong is None
    assert told[0] == "a\ufffd[2Jb"
    assert told[1] == "x" * LONGEST
    assert len(told) == LINES + 1
    assert told[-1] == f"({5000 + 3 - LINES} more lines of output are left out)"


def test_a_run_that_hangs(spool: Spool, tmp_path: Path) -> None:
    """Its time over, it is ended with all that it has started, also where it does not hear SIGTERM."""
    text = f"trap '' TERM; (trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done) & echo on; wait; wait"
    wrong, told = ran(spool, tmp_path, text, limit_s=1.0)
    assert (wrong, told) == ("it took longer than 1 s, and was ended", ["on"])
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]


def test_what_it_leaves_behind(spool: Spool, tmp_path: Path) -> None:
    """A process that goes on after the run, with its output open, keeps nobody waiting."""
    began = time.monotonic()
    wrong, told = ran(spool, tmp_path, f"sleep 30 & echo $! > {tmp_path}/pid; echo done")
    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert (wrong, told) == (None, ["done"])
    assert time.monotonic() - began < 30


def test_what_it_leaves_behind_talks(spool: Spool, tmp_path: Path) -> None:
    """A process that goes on to write after the run has ended makes no failure of it, and is let be."""
    text = f"(while :; do echo on; sleep 0.05; done) & echo $! > {tmp_path}/pid; sleep 0.2"
    wrong, told = ran(spool, tmp_path, text, limit_s=20.0)
    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert wrong is None
    assert set(told) == {"on"}


def test_forged_files(spool: Spool) -> None:
    """Names that lead out of the result's folder, or onto another line, are none of its files."""
    names = ("vocals.flac", "../../etc/passwd", "/etc/shadow", "a\nb.flac", "sub/drums.flac")
    output = Output(dir="Song", files=tuple(OutputFile(stem="s", name=name, sha256="0", bytes=1) for name in names))
    given = facts(msgspec.json.decode(line(5, output=output), type=End), "song.wav", spool)
    assert given["DEMIXD_FILES"] == "vocals.flac\nsub/drums.flac"


def test_a_stop(spool: Spool, tmp_path: Path) -> None:
    """A run that is made when we are stopped is ended, and counts as not made."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    end = msgspec.json.decode(line(1), type=End)
    with pytest.raises(StoppedError):
        run(hook(tmp_path, "sleep 30"), end, line(1), spool, Limits(60, stop), pytest.fail)


def test_the_input_need_not_be_read(spool: Spool, tmp_path: Path) -> None:
    """A line of a megabyte that nobody reads keeps nobody waiting."""
    raw = line(1, message="x" * 900_000)
    assert ran(spool, tmp_path, "echo on", raw) == (None, ["on"])


def test_json_is_json(spool: Spool, tmp_path: Path) -> None:
    """A program can read its input as one document."""
    raw = line(1, "ünï.wav")
    told = ran(spool, tmp_path, "cat", raw)[1]
    found: Any = json.loads(told[0])
    assert found["input"]["name"] == "ünï.wav"
