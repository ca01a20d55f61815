"""The integrated loudness of audio, as EBU R 128 and ITU-R BS.1770-4 define it.

    x --K-weighting--> y --> e: the energy of each 100 ms --> z: the mean square of each 400 ms, 100 ms apart
    loudness = -0.691 + 10 log10(mean of z),    of those z above -70 LUFS, and of these, of those above their mean - 10 LU

The channels' energies are added: the same on both sides of stereo is 3 LU louder than on one. A rest below 100 ms is left out.

K-weighting is a high shelf and a high pass. BS.1770 gives their coefficients at 48 kHz; they are these two analogue
sections after the bilinear transform, which gives them at any rate (`SHELF`, `PASS`; the pass keeps BS.1770's 1, -2, 1):

    (V s² + B s/Q + 1) / (s² + s/Q + 1)         s² / (s² + s/Q + 1),         s = (z - 1) / (z + 1) / tan(pi f / rate)

Both are computed as state variable filters (Zavalishin, "The Art of VA Filter Design", 2012, 4.4), whose two states each are
about as large as the sound. Those of a direct form would be 30,000 times as large, which float32 does not carry.

Frame by frame that is slow in any language. But over a block of L frames, `y` and the states after it are products of its
frames and the states `s` before it, with constant matrices. So the states come first, of all blocks at once, then all `y`:

    s[k + 1] = s[k] P + x[k] U                                   P [4, 4], U [L, 4]
    y[k] = [x[k], s[k]] Y                                        Y [L + 4, L]

The sum for s[k] over all blocks before is taken by doubling: add s[k - 1] P, then s[k - 2] P^2, s[k - 4] P^4, and so on.
After 0.1 s at most nothing of a state is left, and neither is anything of the power. Pure.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demixd.audio.pcm import Frames
from demixd.audio.truepeak import SERIAL

SHELF = (1681.974450955533, 0.7071752369554196)
"""Hz and Q."""
SHELF_GAIN = 10 ** (3.999843853973347 / 20)
SHELF_BAND = SHELF_GAIN**0.4996667741545416
"""V and B."""
PASS = (38.13547087602444, 0.5003270373238773)
"""Hz and Q."""

OFFSET = -0.691
"""dB, by which a sine of 997 Hz at 0 dBFS on one channel reads -3.01 LUFS."""
GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0

WINDOWS_S = 10
"""Windows a second, of which a gating block has `GATING`."""
GATING = 4

STATES = 4
BLOCK = 64
"""Frames of a block: longer ones take more multiplications a frame, shorter ones have more states."""
STACK = 32
"""Blocks of one product: so many stay below `SERIAL`."""
PIECE = 32 * STACK
"""Blocks that are measured at once: those of a block of PCM."""
VANISHED = 1e-9
"""What a power of P may still have; smaller numbers in it would be denormal soon, and slow."""

Matrix = NDArray[np.float32]
Row = NDArray[np.float64]

assert STACK * (BLOCK + STATES) * BLOCK <= SERIAL


class Loudness:
    """Measures blocks of finite audio at `rate` (8 to 192 kHz); `read` is called once, after the last."""

    def __init__(self, rate: int, channels: int) -> None:
        weighting = _k_weighting(rate)
        self._outputs = weighting[:, :BLOCK].astype(np.float32)
        self._states = weighting[:BLOCK, BLOCK:].astype(np.float32)
        self._powers = _powers(weighting[BLOCK:, BLOCK:])
        self._window = max(1, rate // WINDOWS_S)
        self._rest = np.zeros((0, channels), dtype=np.float32)
        self._before = np.zeros((channels, STATES), dtype=np.float32)
        # These are kept: new pages from the system would take as long as the products.
        self._rows = np.zeros((channels, PIECE, BLOCK + STATES), dtype=np.float32)
        """[x, s] of each block."""
        self._weighted = np.zeros((channels, self._window + PIECE * BLOCK), dtype=np.float32)
        """y: first what is not a whole window yet, `_left` frames."""
        self._left = self._frames = 0
        self._energies: list[NDArray[np.float64]] = []

    def feed(self, block: Frames) -> None:
        """Measure the next block, `[T, channels]`."""
        self._frames += len(block)
        audio = np.concatenate([self._rest, block], dtype=np.float32)
        whole = len(audio) // (BLOCK * STACK) * BLOCK * STACK
        for start in range(0, whole, PIECE * BLOCK):
            self._measure(audio[start : min(start + PIECE * BLOCK, whole)])
        self._rest = audio[whole:].copy()

    def read(self) -> float | None:
        """LUFS; None where the audio is shorter than 0.4 s, or never above the absolute gate."""
        windows = self._frames // self._window
        if windows < GATING:
            return None
        self.feed(
            np.zeros((BLOCK * STACK, len(self._before)), dtype=np.float32)
        )  # so that no whole window is in the rest
        energies = np.concatenate(self._energies)[:windows]
        squares = np.convolve(energies, np.full(GATING, 1 / (GATING * self._window)), "valid")
        gated = squares[squares > 10 ** ((GATE_LUFS - OFFSET) / 10)]
        if not gated.size:
            return None
        gated = gated[gated > gated.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
        return OFFSET + 10 * math.log10(gated.mean())

    def _measure(self, audio: Frames) -> None:
        """Measure whole stacks of blocks, `PIECE` blocks at most."""
        count, end = len(audio) // BLOCK, self._left + len(audio)
        for channel, rows in enumerate(self._rows[:, :count]):
            rows[:, :BLOCK] = audio[:, channel].reshape(count, BLOCK)
            rows[:, BLOCK:] = self._states_of(channel, rows[:, :BLOCK])
            weighted = self._weighted[channel, self._left : end].reshape(count, BLOCK)
            np.matmul(_stacked(rows), self._outputs, out=_stacked(weighted))
        whole = end // self._window * self._window
        windows = self._weighted[:, :whole].reshape(len(self._weighted), -1, self._window)
        self._energies.append(np.einsum("cwt,cwt->w", windows, windows).astype(np.float64))
        self._left = end - whole
        self._weighted[:, : self._left] = self._weighted[:, whole:end].copy()

    def _states_of(self, channel: int, blocks: Matrix) -> Matrix:
        """The states `[K, STATES]` before each of the blocks `[K, BLOCK]`; those after the last are kept."""
        states = np.empty((len(blocks) + 1, STATES), dtype=np.float32)
        states[0] = self._before[channel]
        np.matmul(_stacked(blocks), self._states, out=_stacked(states[1:]))
        for step, power in enumerate(self._powers):
            distance = 1 << step
            states[distance:] += states[:-distance] @ power
        self._before[channel] = states[-1]
        return states[:-1]


def loudness(audio: Frames, rate: int) -> float | None:
    """The integrated loudness of `[T, C]` in LUFS; None where it is too short or too quiet to have one."""
    meter = Loudness(rate, audio.shape[1])
    meter.feed(audio)
    return meter.read()


def _stacked(rows: Matrix) -> Matrix:
    """`[K, N]` as `[K / STACK, STACK, N]`, a view."""
    return rows.reshape(-1, STACK, rows.shape[1])


def _k_weighting(rate: int) -> NDArray[np.float64]:
    """`[BLOCK + STATES, BLOCK + STATES]`: a block's frames and the states before it, by which output and state after it.

    Each row is what the filter makes of a one at that place alone.
    """
    ones = np.eye(BLOCK + STATES)
    states, outputs = list(ones[BLOCK:]), []
    for frames in ones[:BLOCK]:
        shelved, shelf = _section(frames, states[:2], *SHELF, rate, (SHELF_GAIN, SHELF_BAND, 1.0))
        weighted, high = _section(shelved, states[2:], *PASS, rate, (_denominator(*PASS, rate), 0.0, 0.0))
        outputs.append(weighted)
        states = [*shelf, *high]
    return np.stack([*outputs, *states], axis=1)


def _section(
    frame: Row, states: Sequence[Row], frequency: float, quality: float, rate: int, mix: tuple[float, float, float]
) -> tuple[Row, tuple[Row, Row]]:
    """A section's output and its states after one frame; `mix` has the coefficients of s², s/Q and 1 in its numerator."""
    warped = math.tan(math.pi * frequency / rate)
    first, second = states
    high = (frame - (warped + 1 / quality) * first - second) / _denominator(frequency, quality, rate)
    band = warped * high + first
    low = warped * band + second
    output = mix[0] * high + mix[1] / quality * band + mix[2] * low
    return output, (band + warped * high, low + warped * band)


def _denominator(frequency: float, quality: float, rate: int) -> float:
    """By which BS.1770 does not divide the pass's 1, -2, 1."""
    warped = math.tan(math.pi * frequency / rate)
    return 1 + warped * (warped + 1 / quality)


def _powers(once: NDArray[np.float64]) -> list[Matrix]:
    """P, P^2, P^4 and so on, as long as anything is left of them."""
    powers = []
    while (power := np.where(np.abs(once) < VANISHED, 0, once)).any():
        powers.append(power.astype(np.float32))
        once = power @ power
    return powers
