"""The header of a file of weights in safetensors' format, read without the weights: 8 bytes of length, JSON, then tensors.

https://huggingface.co/docs/safetensors has the format. No torch here.
"""

import json
import os
from pathlib import Path
from typing import Any

from demixd.spool.files import open_model

MAX_BYTES = 1 << 24
"""Of a header; Demucs' largest has some 100 kB."""

BROKEN = "it is cut short, or no safetensors file"


def read(path: Path) -> dict[str, Any]:
    """The header. Raises OSError, and ValueError where the file is none of that format, or too short for its tensors."""
    with open_model(path) as file:
        rest = os.fstat(file.fileno()).st_size - 8
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(MAX_BYTES, rest):
            raise ValueError(BROKEN)
        data = file.read(size)
    try:
        header = json.loads(data)
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        if size + max(ends, default=0) > rest:
            raise ValueError(BROKEN)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(BROKEN) from error
    return dict(header)
