"""`demixd bench`: it runs, what it says is there, and it leaves nothing. How fast anything is, no test judges."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import soundfile

from daemons import PATIENCE_S, ROOT, make_song
from demixd.cli.bench import measure, report
from demixd.cli.bench.report import Machine, Measured, Report, Run, Settings, Song
from demixd.protocol.job import EngineFacts

STEPS = {"snapshot_s", "decode_s", "separate_s", "mix_s", "encode_s", "publish_s"}


def start(folder: Path, *words: str | Path) -> subprocess.Popen[str]:
    """`demixd bench` with the demo model on nobody's configuration; its temporary files are in `folder`/tmp."""
    (folder / "tmp").mkdir(exist_ok=True)
    settings = folder / "demixd.toml"
    settings.write_text(f'[paths]\nspool = "{folder}/spool"\nstate = "{folder}/state"\n[model]\nname = "demo"\n')
    return subprocess.Popen(
        [sys.executable, "-m", "demixd", "--config", str(settings), "bench", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def bench(folder: Path, *words: str | Path) -> tuple[int, str]:
    """Its exit status, and what it says."""
    process = start(folder, *words)
    said, _ = process.communicate(timeout=3 * PATIENCE_S)
    return process.returncode, said


@pytest.mark.daily
def test_it_measures(tmp_path: Path) -> None:
    """One run has the song's time, the steps, memory, starts and the machine, in its JSON and as lines, and cleans up."""
    path, song = tmp_path / "found.json", make_song(tmp_path / "Song.flac", 3.0)
    code, said = bench(tmp_path, song, "--device", "cpu", "--repeat", "1", "--json", path)
    assert code == 0, said
    found = msgspec.json.decode(path.read_bytes(), type=Report)
    (run,) = found.measured.runs
    assert run.song == Song(name="Song.flac", seconds=3.0)
    assert set(run.timing) == STEPS
    assert run.seconds > max(run.timing.values())
    assert found.measured.medians == report.medians([run])
    assert {"first", "second"} <= set(found.measured.start_s) <= {"first", "second", "conversion"}
    assert set(found.measured.peak_bytes) == {"supervisor", "worker"}
    assert min(found.measured.peak_bytes.values()) > 1e7
    assert found.measured.gpu_peak_bytes is None
    assert (found.engine.model, found.engine.device, found.settings.device) == ("demo", "cpu", "cpu")
    assert {"demixd", "python", "torch", "demucs"} <= set(found.machine.versions)
    assert said.endswith("\n".join(["", *report.lines(found), ""]))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "spool").exists()


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while its daemon runs, it ends with 130, and daemon, worker and temporary files are gone."""
    process = start(tmp_path, "--device", "cpu", "--seconds", "2")
    limit = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("tmp/*/demixd/spool/status/_daemon.json")) and time.monotonic() < limit:
        time.sleep(0.05)
    assert running(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert list((tmp_path / "tmp").iterdir()) == []
    assert running(tmp_path) == []


def running(folder: Path) -> list[str]:
    """Processes that are told of the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder / "tmp") in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "htdemucs_ft"], "demixd models fetch htdemucs_ft"),
        (["--precision", "int3"], '[model] precision = "int3": it must be "auto", '),
        ([str(ROOT / "README.md")], "cannot be read"),
        (["missing.flac"], "missing.flac: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], sentence: str, tmp_path: Path) -> None:
    """A model or song that is not there, and an unknown precision, are a sentence and exit status 1."""
    code, said = bench(tmp_path, *words)
    assert code == 1
    assert sentence in said
    assert "Traceback" not in said
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("seconds", [3.0, 65.0])
def test_the_song_is_made_to_measure(seconds: float, tmp_path: Path) -> None:
    """The synthetic song has the length that was asked for, two channels, and music's level to its end."""
    path, song = measure.synthetic_song(tmp_path / "song.flac", seconds)
    audio, rate = soundfile.read(path)
    assert audio.shape == (round(seconds * rate), 2)
    assert (song.seconds, rate) == (seconds, 44100)
    for part in (audio, audio[-rate:]):
        assert 0.03 < (part**2).mean() ** 0.5 < 0.3


# ---- the pure parts

SONG = Song(name="Song.flac", seconds=60.0)


def run(seconds: float, separate_s: float | None = None, **timing: float) -> Run:
    return Run(song=SONG, seconds=seconds, separate_s=separate_s, timing=timing)


def test_medians() -> None:
    """Medians are of all runs; what no run tells of is null."""
    found = report.medians([run(10.0, 8.0, decode_s=1.0), run(30.0, 20.0, decode_s=3.0), run(12.0, 10.0, decode_s=2.0)])
    assert (found.seconds, found.speed_x, found.separate_s, found.separate_x) == (12.0, 5.0, 10.0, 6.0)
    assert found.timing == {"decode_s": 2.0}
    assert report.medians([run(10.0)]).separate_x is None


def test_the_lines() -> None:
    """The report as lines: the machine, the figures with what was not measured, and the steps with what none accounts for."""
    timing = {"decode_s": 1.0, "separate_s": 9.0, "publish_s": 0.5}
    runs = (Run(song=SONG, seconds=12.0, separate_s=9.0, timing=timing),)
    found = Report(
        date="2026-01-31",
        machine=Machine(
            processor="A processor",
            cores=1,
            load=0.1,
            memory_bytes=8_000_000_000,
            gpu=None,
            filesystem="ext4",
            kernel="6.1",
            versions={"demixd": "0.1.0"},
        ),
        settings=Settings(
            model="demo", device="auto", precision="auto", repeat=3, stems=("vocals", "instrumental"), format="wav"
        ),
        songs=(SONG,),
        engine=EngineFacts(
            model="demo", model_sha256="0", device="cpu", device_name="A", precision="float32", fallback="a reason"
        ),
        measured=Measured(
            start_s={"first": 4.0, "second": 3.0},
            peak_bytes={"supervisor": 50_000_000, "worker": 1_500_000_000},
            gpu_peak_bytes=None,
            medians=report.medians(runs),
            runs=runs,
        ),
    )
    assert report.lines(found) == [
        "A processor, 1 core, 8.0 GB, no GPU",
        "2026-01-31; Linux 6.1, files on ext4, load 0.1 before; demixd 0.1.0",
        "demo on cpu in float32, by torch; a reason",
        "Song.flac (1:00), 3 times; medians; vocals and instrumental as wav",
        "",
        "seconds, drop to done     12.00",
        "x real time               5.00",
        "model alone, x real time  6.67",
        "start to ready, s         first 4.0, second 3.0",
        "peak memory               50 MB supervisor + 1.5 GB worker",
        "peak GPU memory           not measured",
        "",
        "seconds of each step",
        "  decode                  1.00",
        "  separate                9.00",
        "  publish                 0.50",
        "  rest                    1.50",
        "  drop to done            12.00",
    ]
    assert msgspec.json.decode(report.encode(found), type=Report) == found
