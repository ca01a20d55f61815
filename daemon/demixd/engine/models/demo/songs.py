"""Synthetic songs: drums, bass, other and vocals with a beat, a key and a singer of sorts, all from one seed.

They train and judge the demo model, and serve wherever a first try or a test needs a song whose stems are known.
numpy is all that it takes; a second of music takes about 20 ms.

- The same seed, length and rate give the same song.
- Each stem has its own random numbers: changing one player leaves the others' parts alone.
- Everything lies on a grid of sixteenths, 16 to a bar, with one chord a bar.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demixd.engine.models.demo.sounds import (
    Signal,
    cycle,
    held,
    low_pass,
    noise,
    place,
    resonances,
    seconds,
    struck,
    tone,
)

BAR = 16
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 3, 0, 4), (1, 4, 0, 0))
"""The chord of each bar, as a degree of the scale."""

KICKS = ((0, 8), (0, 4, 8, 12), (0, 7, 8), (0, 3, 8, 11), (0, 6, 10), (0, 10))
SNARES = ((4, 12), (4, 12, 15), (4, 7, 12), (8,))
"""The steps of a bar on which a drum plays."""

VOWELS = ((800, 1150, 2900), (400, 1900, 2600), (300, 2300, 3000), (450, 800, 2830), (325, 700, 2700))
"""The three formants in Hz of a, e, i, o and u."""

LEVEL_DB, SPREAD_DB = -22, 4
"""RMS of each stem in dBFS, and how far up or down it may be."""

PEAK = 0.98
"""A song that would exceed this as a mixture is turned down as a whole, so that 16 bits can hold it."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the players agree on."""

    rate: int
    frames: int
    step_s: float
    root: int  # the key as a MIDI note, low enough for a bass guitar
    scale: tuple[int, ...]
    chords: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Sixteenths that begin within the song."""
        return int(np.ceil(self.frames / self.rate / self.step_s))

    def at(self, step: int) -> int:
        """The frame on which a step begins."""
        return int(step * self.step_s * self.rate)

    def length(self, steps: float) -> int:
        """Frames in a number of steps."""
        return int(steps * self.step_s * self.rate)

    def chord(self, step: int) -> int:
        """The degree on which the step's chord stands."""
        return self.chords[step // BAR % len(self.chords)]

    def hz(self, degree: int) -> float:
        """The pitch of a degree of the scale; seven degrees are an octave."""
        octave, place_in_scale = divmod(degree, len(self.scale))
        return float(440 * 2 ** ((self.root + 12 * octave + self.scale[place_in_scale] - 69) / 12))

    def track(self) -> Signal:
        """Silence [2, frames]."""
        return np.zeros((2, self.frames))


def compose(rng: np.random.Generator, seconds_long: float, rate: int) -> Score:
    return Score(
        rate=rate,
        frames=round(seconds_long * rate),
        step_s=15 / rng.uniform(80, 150),  # beats a minute, four steps a beat
        root=int(rng.integers(28, 40)),
        scale=MAJOR if rng.random() < 0.5 else MINOR,
        chords=PROGRESSIONS[rng.integers(len(PROGRESSIONS))],
    )


def drums(score: Score, rng: np.random.Generator) -> Signal:
    """A swept-sine kick, a snare of noise over a short tone, and high noise for the hat."""
    rate, track = score.rate, score.track()
    time = seconds(int(0.4 * rate), rate)
    sweep = rng.uniform(42, 60) + rng.uniform(100, 250) * np.exp(-time / rng.uniform(0.02, 0.05))
    kick = np.sin(2 * np.pi * np.cumsum(sweep / rate)) * struck(len(time), rate, rng.uniform(0.08, 0.2))
    rattle = noise(rng, len(time), rate, rng.uniform(800, 2000), rng.uniform(6000, 12000))
    body = np.sin(2 * np.pi * rng.uniform(170, 250) * time) * struck(len(time), rate, 0.06)
    snare = rattle * struck(len(time), rate, rng.uniform(0.05, 0.15)) + 0.4 * body
    hiss = noise(rng, len(time), rate, rng.uniform(5000, 9000), 16000)
    hats = [hiss * struck(len(time), rate, decay_s) for decay_s in (rng.uniform(0.02, 0.05), 0.15)]

    kicks, snares = KICKS[rng.integers(len(KICKS))], SNARES[rng.integers(len(SNARES))]
    every, hat_level, hat_pan = rng.choice([1, 2, 2, 4]), rng.uniform(0.15, 0.5), rng.uniform(-0.6, 0.6)
    for step in range(score.steps):
        at, strength = score.at(step), rng.uniform(0.7, 1)
        if step % BAR in kicks or rng.random() < 0.03:
            place(track, at, kick * strength)
        if step % BAR in snares or rng.random() < 0.03:
            place(track, at, snare * strength, 0.1)
        if step % every == 0:
            place(track, at, hats[rng.random() < 0.1] * (strength * hat_level), hat_pan)
    return track


def bass(score: Score, rng: np.random.Generator) -> Signal:
    """A saw through a low-pass that closes over each note, on roots, fifths and octaves."""
    rate, track = score.rate, score.track()
    bright, dark = low_pass(rng.uniform(300, 1200)), low_pass(rng.uniform(80, 250))
    gap = rng.choice([2, 2, 4, 4, 8])
    decay_s, short = rng.uniform(0.15, 0.6), rng.uniform(0.6, 1)
    for step in range(0, score.steps, gap):
        if step % BAR and rng.random() < 0.15:
            continue
        degree = score.chord(step) + rng.choice([0, 0, 0, 0, 4, 7])
        hz, frames = score.hz(degree), score.length(gap * short)
        fade = 1 - np.exp(-seconds(frames, rate) / decay_s)
        note = tone(np.full(frames, hz), rate, cycle(hz, rate, bright), cycle(hz, rate, dark), fade)
        place(track, score.at(step), note * held(frames, rate, 0.004, 0.02) * rng.uniform(0.8, 1))
    return track


def pads(score: Score, rng: np.random.Generator) -> Signal:
    """A chord a bar, each of its notes a few detuned saws spread from left to right."""
    rate, track = score.rate, score.track()
    filter_, detune = low_pass(rng.uniform(800, 4000)), rng.uniform(0.002, 0.008)
    for step in range(0, score.steps, BAR):
        frames = score.length(BAR)
        envelope, still = held(frames, rate, rng.uniform(0.02, 0.2), 0.1), np.zeros(frames)
        for degree in (14, 16, 18):
            hz = score.hz(score.chord(step) + degree)
            wave = cycle(hz, rate, filter_)
            for side in (-1, 0, 1):
                pitch = np.full(frames, hz * (1 + detune * side))
                place(track, score.at(step), tone(pitch, rate, wave, wave, still, rng.random()) * envelope, 0.8 * side)
    return track


def plucks(score: Score, rng: np.random.Generator) -> Signal:
    """Chord notes one by one, bright when struck and dull as they ring."""
    rate, track = score.rate, score.track()
    bright, dark = low_pass(rng.uniform(2000, 6000)), low_pass(rng.uniform(300, 800))
    gap, decay_s, width = rng.choice([1, 2, 2, 3]), rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.8)
    figure = rng.choice([14, 16, 18, 21, 23], size=rng.choice([4, 6, 8]))
    for beat, step in enumerate(range(0, score.steps, gap)):
        hz = score.hz(score.chord(step) + int(figure[beat % len(figure)]))
        frames = int(3 * decay_s * rate)
        fade = 1 - np.exp(-seconds(frames, rate) / (decay_s / 3))
        note = tone(np.full(frames, hz), rate, cycle(hz, rate, bright), cycle(hz, rate, dark), fade)
        place(track, score.at(step), note * struck(frames, rate, decay_s) * rng.uniform(0.7, 1), width * (-1) ** beat)
    return track


def organ(score: Score, rng: np.random.Generator) -> Signal:
    """Chords of drawbar sines, held or in stabs."""
    rate, track = score.rate, score.track()
    bars = {1: 1.0, 2: rng.uniform(0.3, 1), 3: rng.uniform(0, 0.8), 4: rng.uniform(0, 0.6), 8: rng.uniform(0, 0.4)}
    gap, short, pan = rng.choice([4, 8, 16]), rng.uniform(0.5, 1), rng.uniform(-0.4, 0.4)
    for step in range(0, score.steps, gap):
        frames = score.length(gap * short)
        time, envelope = seconds(frames, rate), held(frames, rate, 0.01, 0.03)
        for degree in (14, 16, 18):
            hz = score.hz(score.chord(step) + degree)
            chord_note = sum((level * np.sin(2 * np.pi * hz * k * time) for k, level in bars.items()), np.zeros(frames))
            place(track, score.at(step), chord_note * envelope, pan)
    return track


def other(score: Score, rng: np.random.Generator) -> Signal:
    """One accompaniment for the whole song."""
    return (pads, plucks, organ)[rng.integers(3)](score, rng)


def vocals(score: Score, rng: np.random.Generator) -> Signal:
    """A melody that walks along the scale in phrases, one vowel gliding into another on each note."""
    rate, track = score.rate, score.track()
    singer = rng.uniform(0.9, 1.25)  # the length of a throat moves all formants together
    low = 14 if rng.random() < 0.5 else 19  # degrees: a man's or a woman's range
    degree, step = low + int(rng.integers(7)), int(rng.integers(3))
    previous = score.hz(degree)
    pan, vibrato = rng.uniform(-0.15, 0.15), (rng.uniform(4.5, 6.5), rng.uniform(0.005, 0.02))
    while step < score.steps:
        steps = int(rng.choice([2, 2, 3, 4, 4, 6, 8]))
        degree = int(np.clip(degree + rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3]), low, low + 8))
        hz, frames = score.hz(degree), score.length(steps)
        note = sing(rng, frames, rate, (previous, hz), vibrato, singer)
        place(track, score.at(step), note * rng.uniform(0.7, 1), pan)
        previous = hz
        step += steps + int(rng.choice([0, 0, 0, 0, 2, 4]))
    return track


def sing(
    rng: np.random.Generator,
    frames: int,
    rate: int,
    glide: tuple[float, float],
    vibrato: tuple[float, float],
    singer: float,
) -> Signal:
    """One sung note [frames]: perhaps a consonant of noise, then a saw through three formants, with some breath.

    glide: the pitch in Hz that it comes from and the one that it goes to. vibrato: its rate in Hz and its depth as a
    part of the pitch. singer: factor on all formants.
    """
    time = seconds(frames, rate)
    start, hz = glide
    pitch = hz * (start / hz) ** np.exp(-time / 0.03)
    pitch *= 1 + vibrato[1] * np.clip(time / 0.3, 0, 1) * np.sin(2 * np.pi * vibrato[0] * time)
    waves = []
    for vowel in rng.choice(len(VOWELS), 2):
        formants = [(f * singer, 60 + 0.05 * f, gain) for f, gain in zip(VOWELS[vowel], (1, 0.6, 0.4), strict=True)]
        waves.append(cycle(hz, rate, resonances(formants, 0.01)))
    note = tone(pitch, rate, waves[0], waves[1], np.clip(time / time[-1], 0, 1))
    note += 0.03 * noise(rng, frames, rate, 1500, 6000)

    consonant = int(rng.uniform(0.03, 0.1) * rate) if rng.random() < 0.6 else 0
    note *= held(frames, rate, 0.02, 0.04)
    if 0 < consonant < frames // 2:
        note = np.concatenate([np.zeros(consonant // 2), note[: frames - consonant // 2]])
        hiss = noise(rng, consonant, rate, rng.uniform(2000, 6000), 11000)
        note[:consonant] += rng.uniform(0.2, 0.6) * hiss * held(consonant, rate, 0.01, 0.01)
    return note


PLAYERS: dict[str, Callable[[Score, np.random.Generator], Signal]] = {
    "drums": drums,
    "bass": bass,
    "other": other,
    "vocals": vocals,
}


def make_song(seed: int, seconds: float, rate: int = 44100) -> dict[str, NDArray[np.float32]]:
    """The stems of song number `seed`, each float32 [2, frames]; their sum is the mixture and stays within -1..1."""
    rng = np.random.default_rng(seed)
    score = compose(rng, seconds, rate)
    stems = {}
    for number, (name, play) in enumerate(PLAYERS.items()):
        stem = play(score, np.random.default_rng([seed, number]))
        level = 10 ** ((LEVEL_DB + rng.uniform(-SPREAD_DB, SPREAD_DB)) / 20)
        stems[name] = stem * (level / (np.sqrt(np.mean(stem**2)) + 1e-9))
    peak = float(np.abs(sum(stems.values(), score.track())).max(initial=0))
    return {name: (stem * min(1, PEAK / (peak + 1e-9))).astype(np.float32) for name, stem in stems.items()}
