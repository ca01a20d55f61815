"""Judge the demo model on songs that it never heard: `python -m demixd.engine.models.demo.evaluate`.

For each stem, and for the instrumental (everything but vocals), the mean over the songs of

    SDR = 10 log10( sum of reference^2 / sum of (reference - estimate)^2 )        in dB, over the whole song

next to what the mixture itself would get as the estimate. The table goes to standard output, and into the model's card
where there is one beside it.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import torch
from demucs.apply import BagOfModels, apply_model

from demixd.engine.models.demo.checkpoint import SOURCES, load
from demixd.engine.models.demo.songs import make_song
from demixd.engine.models.demo.train import TRAINING_SEEDS

FIRST_SEED = TRAINING_SEEDS[1]
"""The training's songs end before this one."""

CARD = "CARD.md"
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)


def sdr(references: torch.Tensor, estimates: torch.Tensor) -> list[float]:
    """In dB for each; both [stems, 2, frames]."""
    power, error = references.square().sum((1, 2)), (references - estimates).square().sum((1, 2))
    return [float(ratio) for ratio in 10 * torch.log10(power / error)]


def with_instrumental(stems: torch.Tensor) -> torch.Tensor:
    """The stems [stems, 2, frames], and after them the sum of all but the vocals."""
    others = [number for number, name in enumerate(SOURCES) if name != "vocals"]
    return torch.cat([stems, stems[others].sum(0, keepdim=True)])


def evaluate(model: BagOfModels, songs: int, seconds: float) -> tuple[list[float], list[float]]:
    """Mean SDR in dB of the mixture and of the model, for each stem and then the instrumental."""
    of_mixture, of_model = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + songs):
        song = make_song(seed, seconds, model.samplerate)
        stems = torch.from_numpy(np.stack([song[name] for name in SOURCES]))
        mixture = stems.sum(0)
        # Without random shifts, so that the table can be repeated.
        estimates = apply_model(model, mixture[None], shifts=0)[0]
        references = with_instrumental(stems)
        of_model.append(sdr(references, with_instrumental(estimates)))
        of_mixture.append(sdr(references, mixture.expand_as(references)))
    return [float(mean) for mean in np.mean(of_mixture, 0)], [float(mean) for mean in np.mean(of_model, 0)]


def table(rows: dict[str, list[float]]) -> str:
    """In Markdown, one row for each estimate."""
    columns = ["SDR in dB", *SOURCES, "instrumental"]
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    lines += [[name, *(f"{value:.1f}" for value in values)] for name, values in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demixd.engine.models.demo.evaluate", description="Judge the demo model."
    )
    parser.add_argument("--songs", type=int, default=20, help="how many songs (20)")
    parser.add_argument("--seconds", type=float, default=12, help="how long each is (12)")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent, help="the model's folder (the package's)")
    options = parser.parse_args()
    of_mixture, of_model = evaluate(load(options.model), options.songs, options.seconds)
    result = table({"the mixture itself": of_mixture, "this model": of_model})
    sys.stdout.write(result)
    card = options.model / CARD
    if card.exists():
        text, count = TABLE.subn(lambda _: result, card.read_text(encoding="utf-8"))
        if count != 1:
            raise SystemExit(f"{card} has no place for the table")
        card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
