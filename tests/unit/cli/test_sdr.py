"""The signal-to-distortion ratio of tests/benchmarks: the formula, where references may lie, and what is wrong with them."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from benchmarks import measure, report, tables
from benchmarks.quality import references
from benchmarks.quality.references import Judge
from benchmarks.quality.sdr import Block, sdr
from benchmarks.report import DEMIXD, MIXTURE, SEPARATOR, SongSdr

import stems
from daemons import ROOT
from demixd.cli.bench.daemon import SongFile
from demixd.cli.bench.measure import read_song
from demixd.cli.bench.report import Song, encode
from demixd.errors import RefusedError
from reports import example

STEMS = ("vocals", "instrumental")


def cut(audio: Block, *sizes: int) -> list[Block]:
    return np.split(audio, np.cumsum(sizes))


def noise(frames: int, channels: int = 2, seed: int = 0) -> Block:
    return np.random.default_rng(seed).standard_normal((frames, channels))


@pytest.mark.parametrize("db", [-10.0, 0.0, 7.5, 20.0, 90.0])
def test_a_known_ratio(db: float) -> None:
    """An error of a known level below the reference gives that level, however the blocks are cut."""
    reference, error = noise(1000), noise(1000, seed=1)
    error *= np.linalg.norm(reference) / np.linalg.norm(error) * 10 ** (-db / 20)
    for sizes in ((), (1,), (300, 600)):
        found = sdr(cut(reference, *sizes), cut(reference + error, *sizes))
        assert found == pytest.approx(db, abs=1e-9)


def test_it_is_of_the_whole_song() -> None:
    """Energies are summed over the song, and no mean of blocks or channels is taken."""
    reference, estimate = np.zeros((200, 2)), np.zeros((200, 2))
    reference[:100] = 1.0  # a silent half, with an error in it
    estimate[:, 0] = 1.0
    # 200 of reference^2; an error of 1 in 100 frames of each channel.
    assert sdr(cut(reference, 100), cut(estimate, 100)) == pytest.approx(0.0)


def test_silence_and_perfection_have_no_number() -> None:
    """A reference that is silent, and an estimate that is the reference, give None; a silent estimate gives 0 dB."""
    sound, silence = noise(100), np.zeros((100, 2))
    assert sdr([silence], [sound]) is None
    assert sdr([silence], [silence]) is None
    assert sdr([sound], [sound]) is None
    assert sdr([sound], [silence]) == 0.0


def test_one_channel_is_the_same_on_both_sides() -> None:
    """Mono against stereo is compared on both sides."""
    mono = noise(100, channels=1)
    both = np.repeat(mono, 2, axis=1)
    assert sdr([mono], [0.9 * both]) == pytest.approx(20.0)
    assert sdr([mono], [0.9 * mono]) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("reference", "estimate", "words"),
    [
        ([noise(10), noise(5)], [noise(10)], "longer"),
        ([noise(10)], [noise(9)], "longer"),
        ([noise(10)], [noise(10, channels=3)], "2 channels, the other 3"),
        ([np.full((10, 2), math.nan)], [noise(10)], "not a number"),
        ([noise(10)], [np.full((10, 2), math.inf)], "not a number"),
    ],
)
def test_what_cannot_be_compared(reference: list[Block], estimate: list[Block], words: str) -> None:
    """Another length, other channels, or a sample that is no number is an error and no figure."""
    with pytest.raises(ValueError, match=words):
        sdr(reference, estimate)


def test_the_median_is_over_songs() -> None:
    """A song that has no number for a stem does not count for it; where none has, there is no median."""
    names = ("a", "b", "c")
    values: tuple[dict[str, float | None], ...] = (
        {"vocals": 5.0, "instrumental": None},
        {"vocals": 9.0, "instrumental": None},
        {"vocals": None},
    )
    told = [SongSdr(song=Song(name=n, seconds=1.0), stems=v) for n, v in zip(names, values, strict=True)]
    assert measure.sdr(told).medians == {"vocals": 7.0, "instrumental": None}


# ---- where they lie


def given(*paths: Path) -> list[SongFile]:
    return [read_song(path) for path in paths]


def tone(path: Path, frames: int = 100, rate: int = 44100, channels: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * noise(frames, channels).clip(-1, 1), rate)
    return path


LAYOUTS = [
    ("vocals.flac", "instrumental.wav"),
    ("Song/vocals.flac", "Song/instrumental.wav"),
    ("Song.vocals.flac", "Song.instrumental.WAV"),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_the_three_layouts(layout: tuple[str, str], tmp_path: Path) -> None:
    """References are found by stem in the folder, in one of the song's name, or under the song's name and a dot."""
    song = tone(tmp_path / "Song.flac")
    expected = {stem: tone(tmp_path / "refs" / name) for stem, name in zip(STEMS, layout, strict=True)}
    tone(tmp_path / "refs" / "Other.vocals.flac")
    (tmp_path / "refs" / "vocals.txt").touch()
    assert references.find(tmp_path / "refs", given(song), STEMS) == {song: expected}


def test_several_songs_have_their_own(tmp_path: Path) -> None:
    """With two songs, files that are named by a stem alone are nobody's."""
    playlist = given(tone(tmp_path / "A.flac"), tone(tmp_path / "B.flac", frames=200))
    refs = tmp_path / "refs"
    tone(refs / "vocals.flac")
    a, b = tone(refs / "A" / "vocals.flac"), tone(refs / "B.vocals.flac", frames=200)
    found = references.find(refs, playlist, STEMS)
    assert list(found.values()) == [{"vocals": a}, {"vocals": b}]
    b.unlink()
    with pytest.raises(
        RefusedError, match=r"no reference stem of B\.flac: name them such as B/vocals\.flac, B\.vocals"
    ):
        references.find(refs, playlist, STEMS)


def test_a_song_is_not_its_own_reference(tmp_path: Path) -> None:
    """A song called as a stem, beside its references, is no reference."""
    song, other = tone(tmp_path / "vocals.flac"), tone(tmp_path / "instrumental.flac")
    assert references.find(tmp_path, given(song), STEMS) == {song: {"instrumental": other}}


WRONG: list[tuple[dict[str, dict[str, Any]], str]] = [
    ({}, "no reference stem of Song.flac: name them such as Song/vocals.flac, Song.vocals.flac, vocals.flac"),
    (
        {"vocals.flac": {"rate": 48000}},
        "vocals.flac has 48000 Hz, and {song} 44100 Hz: take references of the song's rate",
    ),
    (
        {"vocals.flac": {"frames": 99}},
        "vocals.flac has 99 frames, and {song} 100 frames: take references that begin and end",
    ),
    (
        {"vocals.flac": {"channels": 1}},
        "vocals.flac has 1 channel, and {song} 2 channels: take references in the song's",
    ),
    ({"vocals.flac": {}, "vocals.wav": {}}, "more than one reference for vocals"),
]


@pytest.mark.parametrize(("files", "words"), WRONG)
def test_what_is_wrong_is_said(files: dict[str, dict[str, Any]], words: str, tmp_path: Path) -> None:
    """No reference, one of another rate, length or channels, and two for a stem: an error with both values and a remedy."""
    song, refs = tone(tmp_path / "Song.flac"), tmp_path / "refs"
    refs.mkdir()
    for name, how in files.items():
        tone(refs / name, **how)
    with pytest.raises(RefusedError) as error:
        references.find(refs, given(song), STEMS)
    assert words.format(song=song) in str(error.value)
    assert str(refs) in str(error.value)


def test_other_errors(tmp_path: Path) -> None:
    """A folder that is none, a reference that is no audio, and a song in more than stereo are errors."""
    song, refs = tone(tmp_path / "Song.flac"), tmp_path / "refs"
    with pytest.raises(RefusedError, match="is no folder"):
        references.find(refs, given(song), STEMS)
    refs.mkdir()
    (refs / "vocals.flac").write_text("no audio")
    with pytest.raises(RefusedError, match=r"vocals\.flac cannot be read"):
        references.find(refs, given(song), STEMS)
    (refs / "vocals.flac").unlink()
    wide = tone(tmp_path / "Wide.wav", channels=6)
    tone(refs / "Wide.vocals.wav", channels=6)
    with pytest.raises(RefusedError, match="6 channels: SDR is measured of songs in mono or stereo"):
        references.find(refs, given(wide), STEMS)


# ---- the judge


def judged(folder: Path, song: Path) -> tuple[Judge, list[str]]:
    said: list[str] = []
    judge = Judge(references.find(folder, given(song), STEMS), said.append)
    judge.hear_songs(given(song), STEMS)
    return judge, said


def test_the_judge_hears_each_once(tmp_path: Path) -> None:
    """Each contender is judged by what came out first; the song itself gets the ratio of its stems."""
    song = stems.write(tmp_path, "Song.flac", 1.0)
    judge, said = judged(tmp_path, song)
    (piece,) = given(song)
    there = {stem: tmp_path / f"Song.{stem}.flac" for stem in STEMS}
    vocals, rate = soundfile.read(there["vocals"])
    half = tmp_path / "half.wav"
    soundfile.write(half, 0.5 * vocals, rate, subtype="FLOAT")
    judge.hear(DEMIXD, piece, {"vocals": half, "instrumental": song})
    judge.hear(DEMIXD, piece, there)
    found = judge.verdict()
    assert said == []
    assert found[DEMIXD].medians == {
        "vocals": pytest.approx(6.021),
        "instrumental": found[MIXTURE].medians["instrumental"],
    }
    of_song = found[MIXTURE].medians
    assert of_song["vocals"] == pytest.approx(-(of_song["instrumental"] or 0.0), abs=0.01)
    unknown = (tmp_path / "warm-up.flac", piece[1])
    judge.hear(SEPARATOR, unknown, {})
    assert judge.verdict() == found


def test_an_estimate_that_is_not_alike_is_noted(tmp_path: Path) -> None:
    """Stems at the model's rate, where it is not the song's, have no SDR, and that is said."""
    song = stems.write(tmp_path, "Song.flac", 1.0)
    judge, said = judged(tmp_path, song)
    other = tone(tmp_path / "other.wav", rate=48000)
    judge.hear(SEPARATOR, given(song)[0], dict.fromkeys(STEMS, other))
    assert judge.verdict()[SEPARATOR].medians == {"vocals": None, "instrumental": None}
    assert said[0] == "Song.flac: separator: no SDR of vocals, which is not like its reference: 48000 Hz, not 44100."


def test_references_add_up(tmp_path: Path) -> None:
    """Where a stem has none, or together they are not the song, that is said and in the report: normalised ones are common."""
    song = stems.write(tmp_path, "Song.flac", 1.0)
    path = tmp_path / "Song.vocals.flac"
    vocals, rate = soundfile.read(path)
    soundfile.write(path, 0.5 * vocals, rate)
    judge, said = judged(tmp_path, song)
    assert len(said) == 1
    assert said[0].startswith("Song.flac: its references do not add up to it (")
    assert said == [f"{note}." for note in judge.notes]
    path.unlink()
    judge, said = judged(tmp_path, song)
    assert said == ["Song.flac: there is no reference for vocals, and so no SDR."]
    assert list(judge.verdict()[MIXTURE].medians) == ["instrumental"]


def test_a_reference_is_read_to_its_end_first(tmp_path: Path) -> None:
    """One that holds fewer frames than its header says is refused before anything is measured."""
    song = stems.write(tmp_path, "Song.flac", 1.0)
    path = tmp_path / "Song.vocals.flac"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RefusedError, match=r"Song\.vocals\.flac"):
        judged(tmp_path, song)


# ---- the report


def told(*values: dict[str, float | None]) -> report.Sdr:
    return measure.sdr(
        [SongSdr(song=Song(name=f"{n} | x", seconds=1.0), stems=stems) for n, stems in enumerate(values)]
    )


def test_an_old_report_is_still_one() -> None:
    """A report from before there were SDRs is read, and is shown without them."""
    old = json.loads(encode(example()))
    del old["sdr"], old["notes"]
    found = report.decode(json.dumps(old).encode())
    assert found == example()
    assert "SDR" not in tables.markdown(found)
    kept = (path.read_bytes() for path in (ROOT / "tests" / "benchmarks" / "results").glob("*.json"))
    reports = [text for text in kept if "settings" in json.loads(text)]  # the others are of the pipeline alone
    assert reports
    assert {report.decode(text).schema for text in reports} == {1}


def test_the_table() -> None:
    """It has the song itself and the contenders, by stem; each song only where there are several; notes are in the facts."""
    one = msgspec.structs.replace(
        example(),
        sdr={MIXTURE: told({"vocals": -3.0, "instrumental": 3.0}), DEMIXD: told({"vocals": 7.0, "instrumental": None})},
        notes=("Something to know",),
    )
    assert report.decode(encode(one)) == one
    ours = one.contenders[DEMIXD]
    (run,) = ours.runs
    quieter = msgspec.structs.replace(ours, runs=(msgspec.structs.replace(run, gain_db=-1.62),))
    one = msgspec.structs.replace(one, contenders={DEMIXD: quieter})
    lines = tables.markdown(one).splitlines()
    assert "- Something to know" in lines
    assert "- Song.flac: demixd has turned all stems down by 1.6 dB, so that none clips" in lines
    at = lines.index("| SDR in dB | the song itself | demixd |")
    assert lines[at + 2 : at + 5] == ["| vocals | -3.00 | 7.00 |", "| instrumental | 3.00 | |", ""]
    two = msgspec.structs.replace(
        example(), sdr={MIXTURE: told({"vocals": 1.0}, {"vocals": 2.0}), DEMIXD: told({"vocals": 3.0}, {"vocals": 5.0})}
    )
    assert tables.sdr(two).rows == (
        ("vocals", "1.50", "4.00"),
        ("0 | x: vocals", "1.00", "3.00"),
        ("1 | x: vocals", "2.00", "5.00"),
    )
    assert r"| 0 \| x: vocals | 1.00 | 3.00 |" in tables.markdown(two)
