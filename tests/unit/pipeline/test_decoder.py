"""Decoding in a process of its own: the same samples, and songs that hang, crash or fill the memory cost only themselves."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from audio import nothing
from daemons import make_song
from decoding import heard
from demixd.audio.budget import Budget
from demixd.audio.pcm import Frames, Shelf
from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.pipeline import decoder
from demixd.protocol.track import Track
from demixd.spool import child_process
from processes import children


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    decoder.close()


def decoded(
    song: Path,
    folder: Path,
    *,
    check: Callable[[], None] = nothing,
    progress: Callable[[float], None] = nothing,
    memory_bytes: int = 1 << 30,
) -> tuple[Track, Frames]:
    with Shelf(Budget(memory_bytes), (folder,)) as shelf:
        track, pcm = decoder.decode(song, shelf, max_duration_s=60, check=check, progress=progress)
        return track, pcm.read(0, pcm.frames).copy()


def refusal(song: Path, folder: Path) -> AudioProcessingError:
    with pytest.raises(AudioProcessingError) as error:
        decoded(song, folder)
    return error.value


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """From now on a decoder runs this instead."""
    monkeypatch.setattr(child_process, "python", lambda _: [sys.executable, "-c", code])


def test_it_decodes_as_in_this_process(tmp_path: Path) -> None:
    """The same track, samples and fractions; the process serves the next song too, whatever became of the one before."""
    song, bad = make_song(tmp_path / "song.flac", 8.0), tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF, and then nothing that is audio" * 50)
    fractions: list[float] = []
    expected, samples = heard(song)
    track, audio = decoded(song, tmp_path, progress=fractions.append)
    assert track == expected
    assert np.array_equal(audio, samples)
    assert fractions and fractions == sorted(fractions)
    (child,) = children()
    with pytest.raises(AudioProcessingError) as error:
        heard(bad)
    told = refusal(bad, tmp_path)
    assert (told.code, told.message, told.detail) == (error.value.code, error.value.message, error.value.detail)
    assert decoded(song, tmp_path)[0] == expected
    assert children() == [child]


def test_a_stop_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the decoder hangs: the process goes, and the next song has another."""
    song, began = make_song(tmp_path / "song.wav"), time.monotonic()

    def check() -> None:
        if time.monotonic() > began + 0.3:
            raise StopProcessingError("stop")

    with monkeypatch.context() as patch:
        program(patch, "import time; time.sleep(600)")
        with pytest.raises(StopProcessingError):
            decoded(song, tmp_path, check=check)
    assert time.monotonic() < began + 1
    assert children() == []
    assert decoded(song, tmp_path)[0].frames == 44100


def test_one_that_gets_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the song's fault, and the process does not outlive it; saying the same again is not getting further."""
    monkeypatch.setattr(decoder, "STALL_S", 2.0)
    again = (
        "import socket; line = socket.socket(fileno=0); line.recv(9999)\n"
        'while True: line.send(b\'{"type": "Reached", "fraction": 0.0, "byte": 0}\'); sum(range(99_999))'
    )
    for code in ("import time; time.sleep(600)", again):
        program(monkeypatch, code)
        began = time.monotonic()
        told = refusal(make_song(tmp_path / "song.wav"), tmp_path)
        assert told.code is Code.BAD_AUDIO and "has got no further" in told.message
        assert time.monotonic() < began + 6.5
        assert children() == []


def test_a_pause_of_both_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is frozen for longer than a decoder may be silent costs the song nothing."""
    monkeypatch.setattr(decoder, "STALL_S", 0.9)
    monkeypatch.setattr(child_process, "PAUSE_S", 0.8)
    pauses = [1.2]

    def check() -> None:
        if pauses:
            time.sleep(pauses.pop())

    song = make_song(tmp_path / "song.wav")
    assert decoded(song, tmp_path, check=check)[0].frames == 44100


def test_one_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's SIGSTOP is not the song's fault; the process does not outlive it."""
    monkeypatch.setattr(decoder, "STALL_S", 2.0)
    program(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    told = refusal(make_song(tmp_path / "song.wav"), tmp_path)
    assert told.code is Code.IO_ERROR and "was stopped" in told.message
    assert children() == []


@pytest.mark.parametrize(("share", "code"), [(0.01, Code.IO_ERROR), (0.9, Code.BAD_AUDIO)])
def test_one_that_could_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, code: Code) -> None:
    """What the machine gave no time to may be a good song; what used its time, and got no further, is not."""
    monkeypatch.setattr(decoder, "STALL_S", 0.5)
    monkeypatch.setattr(decoder, "state_and_time", lambda _: ("R", share * time.monotonic()))
    program(monkeypatch, "import time; time.sleep(600)")
    assert refusal(make_song(tmp_path / "song.wav"), tmp_path).code is code


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGSEGV, Code.BAD_AUDIO), (signal.SIGKILL, Code.IO_ERROR)])
def test_one_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int, code: Code) -> None:
    """A crash is the song's; SIGKILL is the machine's, which had no memory."""
    program(monkeypatch, f"import os; os.read(0, 9999); os.kill(os.getpid(), {signal_number:d})")
    told = refusal(make_song(tmp_path / "song.wav"), tmp_path)
    assert (told.code, told.detail) == (code, f"by {signal.Signals(signal_number).name}")


def test_one_that_died_while_it_waited(tmp_path: Path) -> None:
    """The next song has another, and is none the wiser."""
    song = make_song(tmp_path / "song.wav")
    decoded(song, tmp_path)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert decoded(song, tmp_path)[0].frames == 44100


def test_one_that_took_its_place_is_kept(tmp_path: Path) -> None:
    """The song after it has that one too, and nothing of the dead one stays open."""
    song = make_song(tmp_path / "song.wav")
    decoded(song, tmp_path)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    decoded(song, tmp_path)
    (other,) = children()
    decoded(song, tmp_path)
    assert children() == [other]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_memory_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A song that would take all of it is refused, by name."""
    greedy = "from demixd.pipeline import decode_child as child; child.decode = lambda *_, **__: bytearray(4 << 30)"
    program(monkeypatch, f"{greedy}; child.main()")
    told = refusal(make_song(tmp_path / "song.wav"), tmp_path)
    assert told.code is Code.BAD_AUDIO
    assert "takes more than 1024 MiB of memory" in told.message


def test_one_waits_for_the_first_song(tmp_path: Path) -> None:
    """A worker that is warm has its decoder started: the first song does not wait for that."""
    decoder.warm()
    waiting = children()
    assert len(waiting) == 1
    decoded(make_song(tmp_path / "song.wav", 0.2), tmp_path)
    assert children() == waiting
