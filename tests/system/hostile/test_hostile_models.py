"""Model folders that somebody else has filled, in a real daemon; unit/engine/test_models.py has every kind of them."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

from daemons import make_song, running


class Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def weights(**metadata: str) -> bytes:
    """A safetensors file without tensors: the length of its head, and that."""
    head = json.dumps({"__metadata__": metadata}).encode()
    return len(head).to_bytes(8, "little") + head


def hostile_models(models: Path, marker: Path) -> list[str]:
    """One that names a function for its class, one with a class in its structure, a pickle, and a bag that is a program."""
    arguments = {"args": json.dumps([str(marker)]), "kwargs": "{}"}
    nested = json.dumps({"_class": "os.mkdir", "args": [str(marker)], "kwargs": {}})
    files = {
        "klass.yaml": b"models: [k]",
        "k.safetensors": weights(klass="os.mkdir", **arguments),
        "nested.yaml": b"models: [n]",
        "n.safetensors": weights(klass="demucs.htdemucs.HTDemucs", structure=nested, **arguments),
        "pickled.yaml": b"models: [p]",
        "p.th": pickle.dumps(Marker(marker)),
        "bag.yaml": f"!!python/object/apply:os.mkdir ['{marker}']".encode(),
    }
    models.mkdir(parents=True)
    for name, data in files.items():
        (models / name).write_bytes(data)
    return ["klass", "nested", "pickled", "bag"]


def test_songs_that_ask_for_hostile_models(tmp_path: Path) -> None:
    """Nothing in such a model runs; the song that asks for it waits and says why, and songs that do not are served."""
    marker = tmp_path / "marker"
    names = hostile_models(tmp_path / "state" / "models", marker)
    with running(tmp_path) as daemon:
        for name in names:
            (daemon.inbox / f"{name}.wav.job.json").write_text(json.dumps({"model": name}))
            make_song(tmp_path / f"{name}.wav", 0.3).rename(daemon.inbox / f"{name}.wav")
        for name in names:
            daemon.until(
                lambda name=name: daemon.song(f"{name}.wav").get("reason") == "model-missing", f"{name} is refused"
            )
        make_song(tmp_path / "good.wav", 0.3).rename(daemon.inbox / "good.wav")
        assert daemon.final("good.wav")["state"] == "done"
        assert not marker.exists()
