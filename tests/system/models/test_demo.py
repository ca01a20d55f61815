"""The demo model does what its card says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from benchmarks.quality.sdr import sdr

from daemons import Daemon, running
from decoding import heard
from demixd.engine.models.demo import checkpoint, evaluate
from demixd.engine.models.demo.songs import make_song
from demixd.engine.models.store import DEMO_FOLDER

TARGETS = {"drums": 11.0, "bass": 13.0, "other": 6.5, "vocals": 7.0, "instrumental": 13.0}
"""Mean SDR in dB that the model must have on unseen songs."""


def card() -> dict[str, float]:
    """The figures of the card, in dB."""
    text = (DEMO_FOLDER / evaluate.CARD).read_text()
    names = re.search(r"\| SDR in dB \|(.*)\|", text)
    values = re.search(r"\| this model \|(.*)\|", text)
    assert names and values
    columns = [each.strip() for each in names[1].split("|")]
    return dict(zip(columns, map(float, values[1].split("|")), strict=True))


def test_the_card_reaches_its_targets() -> None:
    """Every figure of the card is what was asked for, or better."""
    figures = card()
    assert {name for name, target in TARGETS.items() if figures[name] < target} == set()


@pytest.mark.parametrize("songs", [pytest.param(4, marks=pytest.mark.daily), pytest.param(20, marks=pytest.mark.slow)])
def test_the_card_is_true(songs: int) -> None:
    """Judged again on unseen songs, the model has the card's figures: to a tenth on all of them, nearly on a few."""
    with torch.inference_mode():
        _, figures = evaluate.evaluate(checkpoint.load(DEMO_FOLDER), songs, 12.0)
    within = 0.11 if songs == 20 else 4.0
    for (name, told), found in zip(card().items(), figures, strict=True):
        assert abs(told - found) < within, name


LOSSLESS = [("wav", 16), ("wav", 24), ("wav", "float"), ("flac", 16), ("flac", 24), ("alac", 16), ("alac", 24)]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    stems = [*checkpoint.SOURCES, "instrumental"]
    folder = tmp_path_factory.mktemp("card")
    with running(
        folder, defaults={"stems": stems}, model={"name": "demo", "device": "cpu", "precision": "float32"}
    ) as made:
        yield made.ready()


@pytest.mark.daily
@pytest.mark.parametrize(
    ("seed", "seconds"), [(0, 4.0), *(pytest.param(seed, 12.0, marks=pytest.mark.slow) for seed in range(20))]
)
def test_the_card_is_true_of_the_daemon(daemon: Daemon, tmp_path: Path, seed: int, seconds: float) -> None:
    """A song of the card, through the daemon and every lossless format, has the figures that the bare model has of it.

    The bare model gives the song's mean to each stem, and the daemon shares it out among them, so that they add up to the song.
    """
    rate = 44100
    parts = make_song(evaluate.FIRST_SEED + seed, seconds, rate)
    song = torch.from_numpy(np.stack([parts[name] for name in checkpoint.SOURCES]))
    with torch.inference_mode():
        model = checkpoint.load(DEMO_FOLDER)
        separated = evaluate.apply_model(model, song.sum(0)[None], shifts=0)[0]
        bare = evaluate.with_instrumental(separated - song.sum(0).mean() * (1 - 1 / len(separated)))
    references = evaluate.with_instrumental(song)
    expected = evaluate.sdr(references, bare)
    soundfile.write(tmp_path / "song.wav", song.sum(0).T.numpy(), rate, subtype="FLOAT")
    for format, depth in LOSSLESS:
        name = f"{seed}-{format}-{depth}.wav"
        (daemon.inbox / f"{name}.job.json").write_text(json.dumps({"format": format, "bit_depth": depth}))
        (daemon.inbox / f".{name}.part").write_bytes((tmp_path / "song.wav").read_bytes())
        (daemon.inbox / f".{name}.part").rename(daemon.inbox / name)
        output = daemon.state(name, "done")["output"]
        manifest = json.loads((daemon.outbox / output["dir"] / "stems.json").read_text())
        for file, reference, wanted in zip(manifest["files"], references, expected, strict=True):
            path = daemon.outbox / output["dir"] / file["name"]
            estimate = heard(path)[1].astype(np.float64)
            found = sdr([reference.T.numpy().astype(np.float64)], [estimate / 10 ** (file["gain_db"] / 20)])
            assert found == pytest.approx(wanted, abs=0.02), (file["stem"], format, depth)
