"""`peaks.json`: the waveforms of a result's stems, for who draws them. Pure.

The document is that of BBC's audiowaveform, version 2 (its doc/DataFormat.md), which peaks.js, wavesurfer.js and others read;
each of its channels is one stem.
"""

import msgspec

BITS = 8


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """audiowaveform's document. `data`: of each of `length` points the lowest and highest of each channel, in turn."""

    version: int = 2
    channels: int
    sample_rate: int
    samples_per_pixel: int
    bits: int = BITS
    length: int
    data: list[int]


def reduced(peaks: Peaks, most: int, channels: int) -> Peaks:
    """The first `channels` of `peaks` in at most `most` points, each the lowest and highest of those that it stands for."""
    wide, step = 2 * peaks.channels, max(1, -(-peaks.length // most))
    data: list[int] = []
    for start in range(0, wide * peaks.length, wide * step):
        group = peaks.data[start : start + wide * step]
        for channel in range(channels):
            data += (min(group[2 * channel :: wide]), max(group[2 * channel + 1 :: wide]))
    return msgspec.structs.replace(
        peaks,
        channels=channels,
        samples_per_pixel=peaks.samples_per_pixel * step,
        length=-(-peaks.length // step),
        data=data,
    )
