"""tests/benchmarks/run: it measures demixd against Demucs, and leaves nothing. How fast anything is, no test judges.

How near the contenders come to reference stems is in test_sdr.py.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from benchmarks import measure, program, report, tables, weights
from benchmarks.ceiling import report as ceiling
from benchmarks.ceiling.report import OLDER, PRESENT
from benchmarks.contenders import demucs as demucs_contenders
from benchmarks.contenders import unblend
from benchmarks.models import RANDOM
from benchmarks.report import COMMAND, DEMIXD, MIXTURE, SEPARATOR
from benchmarks.workers import WAYS
from demucs.pretrained import get_model

import stems
from daemons import PATIENCE_S, ROOT
from demixd.cli.bench.measure import synthetic_song
from demixd.cli.bench.report import Run, Song, encode
from demixd.engine.families import demucs
from demixd.engine.models.store import Where
from demixd.errors import RefusedError
from demixd.protocol.progress import Step
from reports import example, run

RESULTS = ROOT / "tests" / "benchmarks"
STEPS = {f"{step}_s" for step in Step}


def benchmark(folder: Path, *words: str | Path) -> tuple[int, str]:
    """Its exit status and output, with the demo model on nobody's configuration; its temporary files are in `folder`/tmp."""
    settings = folder / "demixd.toml"
    settings.write_text(f'[paths]\nspool = "{folder}/spool"\nstate = "{folder}/state"\n[model]\nname = "demo"\n')
    return started(folder, "benchmarks.program", "--config", settings, *words)


def started(folder: Path, module: str, *words: str | Path) -> tuple[int, str]:
    (folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT / 'tests'}", "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )
    return done.returncode, done.stdout


SONG_S = 3.0


@pytest.mark.daily
def test_it_compares(tmp_path: Path) -> None:
    """One run has all contenders, their ratios, memory and starts, demixd's steps and the machine, and cleans up.

    With references there is the SDR of each, and they come equally near, since they have the same weights.
    """
    path, song = tmp_path / "found.json", stems.write(tmp_path, "Song.flac", SONG_S)
    code, said = benchmark(
        tmp_path, song, "--references", tmp_path, "--device", "cpu", "--repeat", "1", "--seconds", "2", "--json", path
    )
    assert code == 0, said
    found = report.decode(path.read_bytes())
    assert list(found.contenders) == [DEMIXD, SEPARATOR, COMMAND]
    for name, each in found.contenders.items():
        assert [run.song for run in each.runs] == [Song(name="Song.flac", seconds=SONG_S)]
        assert each.medians.seconds > 0
        assert min(each.peak_bytes.values()) > 1e7
        assert each.gpu_peak_bytes is None
        assert bool(each.start_s) is (name != COMMAND)
    assert set(found.contenders[DEMIXD].start_s) == {"first", "second"}
    assert set(found.contenders[DEMIXD].peak_bytes) == {"supervisor", "worker"}
    assert set(found.contenders[DEMIXD].medians.timing) == STEPS
    assert found.ratios[SEPARATOR].seconds > 0
    assert found.ratios[SEPARATOR].separate
    assert found.ratios[COMMAND].seconds > 0
    assert (found.engine.model, found.engine.device, found.settings.device) == ("demo", "cpu", "cpu")
    assert {"demixd", "python", "torch", "demucs"} <= set(found.machine.versions)
    assert found.machine.processor in said
    assert list(found.sdr) == [MIXTURE, DEMIXD, SEPARATOR, COMMAND]
    assert found.notes == ()
    assert found.contenders[DEMIXD].runs[0].gain_db == 0.0
    for stem, of_song in found.sdr[MIXTURE].medians.items():
        theirs = [found.sdr[name].medians[stem] for name in (DEMIXD, SEPARATOR, COMMAND)]
        assert of_song is not None
        assert min(each or 0.0 for each in theirs) > of_song + 3
        assert theirs == pytest.approx([theirs[0]] * 3, abs=0.1)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "spool").exists()
    assert benchmark(tmp_path, "--show", path) == (0, tables.markdown(found))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--show", "README.md"], "is no report"),
        (["--references", "README.md", "SONG"], "is no folder of reference stems"),
        (["--references", "TMP", "SONG"], "has no reference stem of Song.flac"),
        (["--model", "htdemucs", "--references", "STEMS", "SONG"], "demixd models fetch htdemucs"),
    ],
)
def test_what_cannot_be_compared_is_said(words: list[str], sentence: str, tmp_path: Path) -> None:
    """References that are not there, a model that they need, and a file that is no report are a sentence and status 1."""
    there = tmp_path / "there"
    there.mkdir()
    places = {"README.md": ROOT / "README.md", "TMP": tmp_path, "STEMS": there}
    if "SONG" in words:
        places["SONG"] = stems.write(there, "Song.flac", 1.0)
    code, said = benchmark(tmp_path, *(places.get(word, word) for word in words))
    assert code == 1
    assert sentence in said
    assert "Traceback" not in said
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.daily
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository, and so no commit")
def test_the_ceiling(tmp_path: Path) -> None:
    """One run has every kind of song at both commits, in the same order, with steps, processors' time and bytes."""
    path = tmp_path / "found.json"
    words = ("--against", "HEAD", "--seconds", "1", "--repeat", "1", "--json", path)
    code, said = started(tmp_path, "benchmarks.ceiling.program", *words)
    assert code == 0, said
    found = msgspec.json.decode(path.read_bytes(), type=ceiling.Ceiling)
    assert list(found.rounds) == [OLDER, PRESENT]
    for rounds in found.rounds.values():
        assert [(each.format, len(each.stems)) for each in rounds] == [
            (name, count) for name in ("wav", "flac", "mp3") for count in (2, 4)
        ]
        for each in rounds:
            assert set(each.cost.timing) == STEPS - {"snapshot_s", "publish_s"}
            assert each.cost.cpu_s > 0
            assert (each.cost.written_bytes > 0) or found.machine.filesystem == "tmpfs"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert program.markdown(path) in said


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository, and so no commit")
def test_a_commit_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A commit that git does not know is a sentence that names it, and status 1."""
    code, said = started(tmp_path, "benchmarks.ceiling.program", "--against", "no-such-commit")
    assert code == 1
    assert "no-such-commit" in said
    assert "Traceback" not in said


def random_model(folder: Path) -> Where:
    weights.make_random(folder)
    return Where(name=RANDOM, repo=None, models=str(folder), allow_pickle=False)


def demo_model(folder: Path) -> Where:
    where = Where(name="demo", repo=None, models=str(folder), allow_pickle=False)
    weights.copy(where, folder)
    return where


@pytest.mark.parametrize("make", [random_model, demo_model])
def test_all_have_the_same_weights(make: Callable[[Path], Where], tmp_path: Path) -> None:
    """What demixd loads from the folder and what Demucs does are the same model."""
    where = make(tmp_path)
    ours = demucs.load(where.locate(), allow_pickle=False).model
    theirs = get_model(where.name, repo=tmp_path)
    assert ours.sources == theirs.sources
    for one, other in zip(ours.models, theirs.models, strict=True):
        mine, their = one.state_dict(), other.state_dict()
        assert mine.keys() == their.keys()
        assert all(torch.equal(mine[name], their[name]) for name in mine)
    if where.name == RANDOM:
        assert round(sum(each.numel() for each in ours.parameters()) / 1e6) == 42


# ---- unblend


def test_unblend_is_given_the_same_weights(tmp_path: Path) -> None:
    """What unblend is told of the model is its file of weights and what its network is made of."""
    random_model(tmp_path)
    (entry,) = json.loads((tmp_path / unblend.MODELS).read_bytes())["models"].values()
    assert (tmp_path / entry["checkpoint"]["path"]).exists()
    assert entry["config"] == {**weights.FULL_SIZE, "segment": 7.8}
    assert entry["sources"] == entry["config"]["sources"]


def test_unblend_is_left_out_where_it_cannot_have_the_model(tmp_path: Path) -> None:
    """A model that is no single HTDemucs is named in the sentence that says why unblend is not measured."""
    where = Where(name="bag-of-four", repo=None, models=str(tmp_path), allow_pickle=False)
    running = unblend.running(tmp_path / "unblend", where, "cpu", lambda _: None)
    with pytest.raises(RefusedError, match="bag-of-four"), running:
        pass


@pytest.mark.daily
def test_unblend_is_left_out_where_it_cannot_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip complains of is said, and the next run tries again."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(unblend, "ENVIRONMENT", tmp_path / "environment")
    where = demo_model(tmp_path)
    for _ in range(2):
        running = unblend.running(tmp_path / "unblend", where, "cpu", lambda _: None)
        with pytest.raises(RefusedError, match=r"cannot be installed: .*unblend"), running:
            pass


@pytest.mark.skipif(not unblend.is_there(), reason="no unblend: tests/benchmarks/run NAME --with-unblend installs it")
def test_unblend_separates_as_demucs_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights unblend's stems are those of `demucs.api.Separator`."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'daemon'}:{ROOT / 'tests'}")
    where = demo_model(tmp_path)
    song = synthetic_song(tmp_path / "song.flac", SONG_S)
    heard: list[dict[str, np.ndarray]] = []
    for name, running in (
        ("separator", demucs_contenders.separator(tmp_path / "separator", where, "cpu")),
        ("unblend", unblend.running(tmp_path / "unblend", where, "cpu", lambda _: None)),
    ):
        with running as contender, contender.separated(song) as (run, stems):
            assert run.separate_s, name
            heard.append({stem: soundfile.read(path)[0] for stem, path in stems.items()})
    theirs, its = heard
    for stem in theirs:
        assert its[stem] == pytest.approx(theirs[stem], abs=2e-3)


@pytest.mark.daily
def test_two_workers_against_one(tmp_path: Path) -> None:
    """The tables have a row for each kind of network, for each way to a worker, and for a crowd of songs."""
    table = tmp_path / "table.md"
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as short:  # Ray's sockets fit below a short path alone
        words = ("benchmarks.workers", "--songs", "2", "--quick", "--table", table)
        status, said = started(Path(short), *words)
        left = list(Path(short, "tmp").iterdir())
    assert status == 0, said
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    first = [row.split(" | ")[0].removeprefix("| ") for row in rows if not row.startswith("| ---")]
    ways = [way for way, ray in WAYS.items() if importlib.util.find_spec("ray") or not ray]
    assert first == [
        *("several songs", "demo model", "a network that waits for 2 s"),
        *("a worker, with songs of 5 s", *ways),
        *("workers, songs, seconds that a song takes", "2, 100, 0.2"),
    ]
    assert left == []


# ---- the pure parts


def test_contenders_take_turns() -> None:
    """Each song goes through every contender before the next one, round after round."""
    order: list[str] = []

    def contender(name: str) -> Callable[[str], Run]:
        def go(song: str) -> Run:
            order.append(f"{name}{song}")
            return run(1.0)

        return go

    told: list[tuple[str, int]] = []
    runs = measure.alternate({"a": contender("a"), "b": contender("b")}, ["1", "2"], 2, lambda *at: told.append(at[:2]))
    assert order == ["a1", "b1", "a2", "b2"] * 2
    assert told == [("a", 1), ("b", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 2), ("b", 2)]
    assert {name: len(each) for name, each in runs.items()} == {"a": 4, "b": 4}


def test_a_ratio_is_of_pairs() -> None:
    """A slow round slows both, and does not move the ratio."""
    ours = [run(10.0, 8.0), run(100.0, 80.0), run(11.0, 9.0)]
    theirs = [run(20.0, 12.0), run(200.0, 120.0), run(22.0, 13.5)]
    assert measure.ratio(ours, theirs) == report.Ratio(seconds=2.0, separate=1.5)
    assert measure.ratio(ours, [run(each.seconds) for each in theirs]).separate is None


def test_the_report_comes_back() -> None:
    """A report is the same after its JSON; another schema is refused."""
    found = example()
    assert report.decode(encode(found)) == found
    with pytest.raises(ValueError, match="schema"):
        report.decode(json.dumps(json.loads(encode(found)) | {"schema": 99}).encode())


def test_the_tables() -> None:
    """Tables have what each takes, what was not measured, and where the time goes; the rest is what no step tells of."""
    found = example()
    lines = tables.markdown(found).splitlines()
    assert lines[0] == "## A | B, 1 core, 8.0 GB, no GPU"
    assert "| | demixd |" in lines
    assert "| seconds, song to stems | 12.00 |" in lines
    assert "| x real time | 5.00 |" in lines
    assert "| start to ready, s | first 4.0, second 3.0 |" in lines
    assert "| peak memory | 50 MB + 1.5 GB |" in lines
    assert "| peak GPU memory | not measured |" in lines
    assert lines[-1] == "| 1.00 | 9.00 | 0.50 | 1.50 | 12.00 |"


def test_results_are_not_typed() -> None:
    """Every report beside RESULTS.md is in it, as `tests/benchmarks/run --show` shows it, and names no place of its machine."""
    page = (RESULTS / "RESULTS.md").read_text(encoding="utf-8")
    for path in RESULTS.glob("results/*.json"):
        assert program.markdown(path).strip() in page, path
        assert b"/" not in path.read_bytes(), path
