"""Records: the sha256 that a file had when it was first seen, in a file in sha256sum's format.

955717e8.safetensors.sha256 -> 'HEX  955717e8.safetensors'    (an absolute path, where it lies elsewhere)
htdemucs.yaml.commit        -> the hub's commit that the model was fetched from
"""

import errno
import os
import secrets
import sys
from pathlib import Path
from typing import BinaryIO

from demixd.errors import AudioProcessingError, Code
from demixd.spool.files import open_model, open_own, sha256_of

SUFFIX = ".sha256"
COMMIT = ".commit"

MAX_BYTES = 1 << 31
"""Of a file of weights: Demucs' largest has 0.3 GB, and a member is held in memory while it loads."""


class HiddenError(AudioProcessingError):
    """This user may not see whether there is a record."""


def open_weights(path: Path) -> BinaryIO:
    """A file of weights to read. Raises OSError, EFBIG where it is larger than any."""
    file = open_model(path)
    if os.fstat(file.fileno()).st_size > MAX_BYTES:
        file.close()
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return file


def hash_file(path: Path) -> str:
    """The sha256 of a file of weights, in hexadecimal digits. Raises OSError."""
    with open_weights(path) as file:
        return sha256_of(file)


def read(record: Path) -> str | None:
    """The recorded sha256; None where there is no record. A damaged record gives a text that equals no hash.

    Raises HiddenError, and IO_ERROR where it cannot be read.
    """
    try:
        with open_own(record, "rb", names=sys.maxsize) as file:
            return file.read(64).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EACCES:
            sentence = (
                f"{record.parent} is not visible to you, and with it whether {record.stem} is unchanged: run this as the "
                "daemon's user, or by sudo."
            )
            raise HiddenError(Code.IO_ERROR, sentence) from error
        sentence = f"{record} cannot be read ({error.strerror}): delete it, or let this user read it."
        raise AudioProcessingError(Code.IO_ERROR, sentence) from error


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
        with open_own(bag.with_name(f"{bag.name}{COMMIT}"), "rb", names=sys.maxsize) as file:
            return file.read(64).decode("ascii", "replace").strip()
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
