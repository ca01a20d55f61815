"""Records: the sha256 that a file had when it was first seen, in a file in sha256sum's format.

955717e8.safetensors.sha256 -> 'HEX  955717e8.safetensors'    (an absolute path, where it lies elsewhere)
htdemucs.yaml.commit        -> the hub's commit that the model was fetched from
"""

import hashlib
import os
import secrets
from pathlib import Path

from demixd.errors import AudioProcessingError, Code
from demixd.spool.files import open_file

SUFFIX = ".sha256"
COMMIT = ".commit"


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(record: Path) -> str | None:
    """The recorded sha256; None where there is no record. A damaged record gives a text that equals no hash."""
    try:
        with open(open_file(record), "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read(64).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        if not os.access(record.parent, os.X_OK):
            return None  # the state folder of another user
        raise AudioProcessingError(Code.IO_ERROR, f"{record} cannot be read ({error.strerror}).") from error


def write(record: Path, file: Path, sha256: str) -> None:
    """Record the hash of `file`, by a rename. Daemons that share the folder write the same line. Raises OSError."""
    name = file.name if file.parent == record.parent else file.absolute()
    _write(record, f"{sha256}  ".encode() + os.fsencode(name) + b"\n")


def is_own(folder: Path) -> bool:
    """Whether a folder, or that in which it is to be made, is this user's: in another's, root could be led away by a link."""
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110 - true where nobody may look
    return Path(there).stat().st_uid == os.geteuid()


def commit(bag: Path) -> str:
    """The hub's commit from which the model with this bag was fetched; empty where that is not known."""
    try:
        return bag.with_name(f"{bag.name}{COMMIT}").read_text(encoding="ascii", errors="replace").strip()[:64]
    except OSError:
        return ""


def write_commit(bag: Path, commit: str) -> None:
    """Record the commit that the model with this bag is fetched from. Raises OSError."""
    _write(bag.with_name(f"{bag.name}{COMMIT}"), f"{commit}\n".encode())


def _write(record: Path, line: bytes) -> None:
    part = record.with_name(f".{record.name}.{secrets.token_hex(4)}")
    record.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_bytes(line)
        part.replace(record)
    except OSError:
        part.unlink(missing_ok=True)
        raise
