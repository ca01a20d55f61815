"""Train the demo model on songs made up as it goes: `python -m demixd.engine.models.demo.train --minutes 50 --out demo-model`.

What is right for this model, found by trying:
- float32. In bfloat16 some CPUs compute this model's narrow convolutions wrongly, and it learns nonsense.
- Batches of two pieces of 1.95 s, half the segment: many small steps teach more in an hour than few large ones.
- In half of the batches each stem comes from another song, so that key and beat are no crutch.
- The learning rate falls in a line to zero over the given time, and what is published is a moving average of the
  weights, which is good at any moment.

A model is in `--out` from the first minutes on. Interrupted, the same command goes on where the last save left it.
A model that is finished can be trained further, at a lower rate: `--further` names its folder.
"""

import argparse
import copy
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demucs.htdemucs import HTDemucs
from torch import nn

from demixd.engine.models.demo.checkpoint import ARCHITECTURE, SOURCES, TRAINING, load, publish, save_training
from demixd.engine.models.demo.songs import make_song

log = logging.getLogger(__name__)

TRAINING_SEEDS = (1_000_000, 2_000_000)
"""Songs to train on. Those for judging (`evaluate`) begin where these end; small numbers are for tests and people."""

RATE = 44100
PIECE = int(1.95 * RATE)  # frames
BATCH = 2
LEARNING_RATE = 3e-3  # found by trying: after 120 steps 6e-4 is where 2e-3 is after 60, and 5e-3 gains little more
FURTHER_RATE = 1.5e-3
WARM_UP_S = 20.0
AVERAGE_OVER = 150  # steps

POOL = 64  # songs held in memory, as float16: half a gigabyte
SONG_S = 12.0
RENEW_EVERY = 15  # steps after which one song of the pool gives way to a new one

SAVE_EVERY_S = 120.0


class Pool:
    """A few songs to cut pieces from, renewed one by one so that none is seen often."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.songs = [self.new_song() for _ in range(POOL)]

    def new_song(self) -> np.ndarray[Any, np.dtype[np.float16]]:
        """[stems, 2, frames]"""
        song = make_song(int(self.rng.integers(*TRAINING_SEEDS)), SONG_S, RATE)
        return np.stack([song[name] for name in SOURCES]).astype(np.float16)

    def renew(self) -> None:
        self.songs[self.rng.integers(POOL)] = self.new_song()

    def batch(self) -> torch.Tensor:
        """Stems [batch, stems, 2, frames] of which the sum over stems is the mixture."""
        remix = self.rng.random() < 0.5
        return torch.from_numpy(np.stack([self.piece(remix) for _ in range(BATCH)]))

    def piece(self, remix: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Stems [stems, 2, frames] of one song, or each of another; each louder or softer, some swapped left for right.

        One in twenty is silent: a model that never heard silence would invent a singer for an instrumental.
        """
        stems = len(SOURCES)
        picks = self.rng.integers(POOL, size=stems) if remix else np.full(stems, self.rng.integers(POOL))
        starts = self.rng.integers(int(SONG_S * RATE) - PIECE, size=stems)
        piece = np.empty((stems, 2, PIECE), np.float32)
        for stem, (pick, start) in enumerate(zip(picks, starts if remix else starts[[0] * stems], strict=True)):
            cut = self.songs[pick][stem, :, start : start + PIECE]
            gain = 10 ** (self.rng.uniform(-3, 3) / 20) * (self.rng.random() > 0.05)
            piece[stem] = gain * cut[:: self.rng.choice([-1, 1])]
        return piece


class Training:
    """Model, average and optimizer, and how far they have come."""

    def __init__(self, minutes: float, further: Path | None = None) -> None:
        self.model: nn.Module = HTDemucs(**ARCHITECTURE).train()
        self.rate = LEARNING_RATE
        if further is not None:
            self.model.load_state_dict(load(further).models[0].state_dict())
            self.rate = FURTHER_RATE
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.rate, fused=True)
        self.total_s = minutes * 60
        self.elapsed_s = 0.0
        self.step = 0

    def learn(self, stems: torch.Tensor) -> float:
        """One step; the loss, a mean absolute error."""
        rise, fall = self.elapsed_s / WARM_UP_S, 1 - self.elapsed_s / self.total_s
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * max(0.0, min(rise, fall))
        loss = nn.functional.l1_loss(self.model(stems.sum(1)), stems)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.follow()
        return loss.item()

    def follow(self) -> None:
        """Move the average towards the weights; early on it forgets faster, for the first steps are worth little."""
        share = max(1 / AVERAGE_OVER, 10 / (self.step + 9))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(weight, min(1.0, share))

    def save(self, folder: Path) -> None:
        target = publish(self.average.state_dict(), folder)
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        save_training({**parts, "elapsed_s": self.elapsed_s, "step": self.step}, folder)
        log.info("saved %s", target.name)

    def resume(self, folder: Path) -> None:
        state = torch.load(folder / TRAINING, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.elapsed_s, self.step = state["elapsed_s"], state["step"]


def ticks(training: Training) -> Iterator[float]:
    """The time since the last tick in seconds, until the training has had its time."""
    last = time.monotonic()
    while training.elapsed_s < training.total_s:
        yield last
        now = time.monotonic()
        training.elapsed_s += now - last
        last = now


def train(minutes: float, folder: Path, seed: int, further: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    training = Training(minutes, further)
    if (folder / TRAINING).exists():
        training.resume(folder)
    # A resumed training goes on with other songs, not with those from the start.
    pool = Pool(np.random.default_rng([seed, training.step]))
    saved_s, losses = training.elapsed_s, list[float]()
    for _ in ticks(training):
        losses.append(training.learn(pool.batch()))
        if training.step % RENEW_EVERY == 0:
            pool.renew()
        if training.step % 100 == 0:
            log.info("%5.0f s, step %d, loss %.5f", training.elapsed_s, training.step, math.fsum(losses) / len(losses))
            losses.clear()
        if training.elapsed_s - saved_s > SAVE_EVERY_S:
            training.save(folder)
            saved_s = training.elapsed_s
    training.save(folder)
    (folder / TRAINING).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demixd.engine.models.demo.train", description="Train the demo model."
    )
    parser.add_argument("--minutes", type=float, default=50, help="how long to train (default 50)")
    parser.add_argument("--out", type=Path, default=Path("demo-model"), help="folder for the model (demo-model)")
    parser.add_argument("--further", type=Path, metavar="FOLDER", help="begin with the model in this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads for torch (default: one for each core)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    train(options.minutes, options.out, options.seed, options.further)


if __name__ == "__main__":
    main()
