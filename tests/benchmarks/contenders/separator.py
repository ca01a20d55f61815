"""`demucs.api.Separator` in a process of its own, loaded once: `python -m benchmarks.contenders.separator SETUP`, in JSON lines.

    it says  {"device": "cpu", "gpu": null}                once the model is loaded
    it hears {"song": PATH, "folder": PATH}                      one line a song
    it says  {"separate_s": 9.8, "gpu_peak_bytes": null}         once the stems are in the folder

It does with each song what the `demucs` command does with `--two-stems vocals`, and the model stays loaded. Nothing of
demixd is set here: Demucs runs as it comes, but for shifts = 0, which is also what demixd does.
"""

import sys
import time
from pathlib import Path

import msgspec
import torch
from benchmarks.contenders.messages import Done, Loaded, Setup, Task
from demucs.api import Separator
from demucs.audio import save_audio

from demixd.engine import device as devices


def main() -> None:
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    device, _ = devices.choose(setup.device)
    separator = Separator(model=setup.name, repo=Path(setup.folder), device=str(device), shifts=0)
    is_gpu = device.type == "cuda"
    _say(Loaded(device=str(device), gpu=devices.name_of(device) if is_gpu else None))
    for line in sys.stdin.buffer:
        task = msgspec.json.decode(line, type=Task)
        separate_s = _separate(separator, task)
        _say(Done(separate_s=separate_s, gpu_peak_bytes=torch.cuda.max_memory_allocated(device) if is_gpu else None))


def _separate(separator: Separator, task: Task) -> float:
    """The steps of `separate_audio_file`, apart, so that the model's part is known; then the two stems."""
    song = separator._load_audio(Path(task.song))
    began = time.monotonic()
    _, stems = separator.separate_tensor(song, separator.samplerate)
    # The stems are on the CPU, so the device has done all of it.
    separate_s = time.monotonic() - began
    vocals = stems.pop("vocals")
    others = torch.zeros_like(vocals)
    for stem in stems.values():
        others += stem
    for name, stem in (("vocals", vocals), ("instrumental", others)):
        save_audio(stem, Path(task.folder) / f"{name}.wav", separator.samplerate)
    return separate_s


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
