"""`unblend.Separator` in a process of its own, loaded once: `PYTHON unblend_separator.py SETUP`, in JSON lines as `separator`.

PYTHON is that of an environment that has unblend, and neither demixd nor what the other contenders need. unblend runs as it
comes, but for shifts = 0: its own choice of precision, batch and kernels.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    setup = json.loads(sys.argv[1])
    os.environ["UNBLEND_EXTRA_MODELS"] = str(Path(setup["folder"], "unblend.json"))
    # Only now: unblend may look for its models when it is loaded. The decoder finds out here whether FFmpeg is there.
    import torch
    import unblend
    from torchcodec.decoders import AudioDecoder

    separator = unblend.Separator(setup["name"], device=setup["device"])
    precision = str(separator.dtype or torch.float32).removeprefix("torch.")
    about = f"unblend {unblend.__version__} on {separator.device} in {precision}, with torch {torch.__version__}"
    _say(device=separator.device, gpu=None, about=about)
    for line in sys.stdin:
        task = json.loads(line)
        heard = AudioDecoder(task["song"]).get_all_samples()
        began = time.monotonic()
        stems = separator.separate((heard.data, heard.sample_rate), shifts=0)
        separate_s = time.monotonic() - began
        two = stems.isolate_stem("vocals")
        for name, file in (("vocals", "vocals.wav"), ("no_vocals", "instrumental.wav")):
            two.export_stem(name, Path(task["folder"], file))
        peak = torch.cuda.max_memory_allocated(setup["device"]) if separator.device == "cuda" else None
        _say(separate_s=separate_s, gpu_peak_bytes=peak)


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
