"""Numbers that cannot be true are refused where they are decoded: a worker's words, and documents on the share."""

import json
from typing import Any

import msgspec
import pytest

from demixd.protocol.job import Progress, StemFile, Tick
from demixd.protocol.status import Input, Manifest
from demixd.protocol.track import RATES, Track

TRACK = {"format": "wav", "subtype": "PCM_16", "rate": 44100, "channels": 2, "song_channels": 6, "frames": 9}
STEM = {"stem": "vocals", "name": "vocals.wav", "format": "wav", "subtype": "PCM_16", "frames": 9, "rate": 44100}
TICK = {"step": "separate", "fraction": 0.5, "step_fraction": 0.5, "message": ""}
INPUT = {"name": "a", "name_b64": "YQ==", "size": 1, "mtime_ns": 0, "inode": 1, "sha256": None, "duration_s": 0.5}
ENGINE = {"model": "m", "model_sha256": "0", "device": "cpu", "device_name": "x", "precision": "float32"}
MANIFEST = {"schema": 1, "job_id": "0", "song": "a", "song_sha256": None, "frames": 9, "rate": 44100, "channels": 2}

GOOD: dict[Any, dict[str, Any]] = {
    Track: TRACK | {"bitrate": 320},
    StemFile: STEM | {"channels": 2, "bytes": 9, "sha256": "0", "peak": 0.0, "gain_db": 0.0},
    Tick: TICK | {"eta_s": 1.5, "speed_x": 2.0, "segment_s": 0.5},
    Progress: {"fraction": 1.0, "step_fraction": 0.0, "eta_s": 0.0, "speed_x": 0.0},
    Input: INPUT | {"frames": 9, "rate": 44100, "channels": 6, "format": "wav"},
    Manifest: MANIFEST | {"gain_db": 0.0, "files": [], "options": {}, "engine": ENGINE, "warnings": [], "version": "0"},
}

OUTSIDE: dict[str, tuple[Any, ...]] = {
    "rate": (0, -1, RATES.start - 1, RATES.stop),
    "frames": (0, -1, (1 << 53) + 1, 10**400),
    "bytes": (0, (1 << 53) + 1),
    "channels": (0, 1025),
    "song_channels": (0, 1025),
    "bitrate": (-1, (1 << 53) + 1),
    "fraction": (-0.1, 1.1, 1e300),
    "step_fraction": (-0.1, 1.1),
    "eta_s": (-1.0,),
    "speed_x": (-1.0,),
    "segment_s": (-1.0, 86_401.0, 1e300),
    "duration_s": (-1.0,),
}
"""Field -> values that are refused, wherever it is."""

EDGES = {"rate": (RATES.start, RATES.stop - 1), "frames": (1, 1 << 53), "bytes": (1, 1 << 53), "fraction": (0.0, 1.0)}


def decoded(kind: Any, fields: dict[str, Any]) -> Any:
    """From the text of Python's own encoder, which writes whole numbers of any length."""
    return msgspec.json.decode(json.dumps(fields), type=kind)


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_a_number_outside_its_bounds_is_refused(kind: Any) -> None:
    """Each field that has bounds is refused outside them, and read at them."""
    good = GOOD[kind]
    decoded(kind, good)
    named = [field for field in good if field in OUTSIDE]
    assert named
    for field in named:
        for value in OUTSIDE[field]:
            with pytest.raises(msgspec.ValidationError, match=f"\\$.{field}"):
                decoded(kind, good | {field: value})
        for value in EDGES.get(field, ()):
            assert getattr(decoded(kind, good | {field: value}), field) == value


@pytest.mark.parametrize("kind", [Track, StemFile, Manifest], ids=lambda kind: kind.__name__)
def test_what_is_decoded_has_two_channels_at_most(kind: Any) -> None:
    """A song's file can have more channels, what is made of it cannot."""
    with pytest.raises(msgspec.ValidationError, match="channels"):
        decoded(kind, GOOD[kind] | {"channels": 3})
