"""Records: the sha256 that a file had when we first saw it, beside it or elsewhere, in sha256sum's format.

955717e8.safetensors.sha256 -> 'HEX  955717e8.safetensors'    (an absolute path, where it lies elsewhere)
"""

import hashlib
import os
import secrets
from pathlib import Path

from demixd.errors import AudioProcessingError, Code

SUFFIX = ".sha256"


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(record: Path) -> str | None:
    """The recorded sha256; null where there is none. A record that makes no sense matches nothing."""
    try:
        return record.read_text(encoding="utf-8", errors="replace")[:64]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AudioProcessingError(Code.IO_ERROR, f"{record} cannot be read ({error.strerror}).") from error


def write(record: Path, file: Path, sha256: str) -> None:
    """Atomic; daemons that share the folder write the same line."""
    name = file.name if file.parent == record.parent else file.absolute()
    part = record.with_name(f".{record.name}.{secrets.token_hex(4)}")
    record.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_bytes(f"{sha256}  ".encode() + os.fsencode(name) + b"\n")
        part.replace(record)
    except OSError:
        part.unlink(missing_ok=True)
        raise
