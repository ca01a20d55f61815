"""Models on disk: what a bag is made of, and whether its bytes are still the ones we know.

    MODELS/                         [paths] models; several daemons may share it
      htdemucs.yaml                 the bag: `models` (signatures) and, optionally, `weights` and `segment`
      955717e8.safetensors          a member, shared by all bags that name it
      955717e8.safetensors.sha256   its record, as sha256sum writes it (`sha256sum -c` reads it)
      recorded/FOLDER/              records of the members in a `[model] repo`: that folder is never written into
      .fetch/                       hub.py's own: partial files and a lock

A `[model] repo` has the same layout, and takes the place of MODELS. `demo` is always the one in the package.

Rules. Bytes are hashed before anything in them is interpreted, at every load. The first hash seen is recorded (the
hub's own where we fetched), any other is refused. A bag names members by signature, never by path.
No torch here: `stemd check` and the supervisor start fast.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stemd.errors import AudioProcessingError, Code

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / DEMO
RECORD_SUFFIX = ".sha256"
RECORDED = "recorded"

MAX_MEMBER_BYTES = 1 << 31
"""Demucs' largest member is 0.3 GB; a member is held in memory while it loads."""

_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    sig: str
    path: Path


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model all of whose files are there. `records` is the folder of its members' records; null: none are kept."""

    name: str
    folder: Path
    bag: Bag
    members: tuple[Member, ...]
    """In the bag's order; a member that the bag names twice is here twice."""
    records: Path | None


def folder_of(name: str, *, repo: Path | None, models: Path) -> Path:
    return DEMO_FOLDER if name == DEMO else repo or models


def locate(name: str, *, repo: Path | None, models: Path, allow_pickle: bool) -> ModelFiles:
    """The files of model `name`; none of them is opened but the bag.

    Raises `model-missing` where a file is not there or cannot be read, `bad-model` where the bag is not one.
    """
    if not _NAME.fullmatch(name):
        raise AudioProcessingError(Code.BAD_OPTIONS, f"{name!r} is no model's name; `stemd models list` shows them.")
    folder = folder_of(name, repo=repo, models=models)
    path = folder / f"{name}{BAG_SUFFIX}"
    try:
        bag = read_bag(path)
    except FileNotFoundError:
        raise missing(name, path, folder, models) from None
    except OSError as error:
        raise unreadable(path, error) from error
    members = tuple(_member(name, sig, folder, models, allow_pickle) for sig in bag.sigs)
    return ModelFiles(name=name, folder=folder, bag=bag, members=members, records=_records(name, folder, models))


def missing(name: str, path: Path, folder: Path, models: Path) -> AudioProcessingError:
    remedy = f"put it into {folder}"
    if folder == models:
        remedy = f"run `stemd models fetch {name}`, or {remedy}"
    return AudioProcessingError(Code.MODEL_MISSING, f"The model {name} lacks {path.name}: {remedy}.")


def unreadable(path: Path, error: OSError) -> AudioProcessingError:
    return AudioProcessingError(
        Code.MODEL_MISSING, f"{path} cannot be read ({error.strerror}): let the daemon's user read it.", repr(error)
    )


def _member(name: str, sig: str, folder: Path, models: Path, allow_pickle: bool) -> Member:
    path = folder / f"{sig}.safetensors"
    if path.is_file():
        return Member(sig=sig, path=path)
    pickles = sorted([*folder.glob(f"{sig}.th"), *folder.glob(f"{sig}-*.th")])
    if not pickles:
        raise missing(name, path, folder, models)
    if not allow_pickle:
        raise AudioProcessingError(
            Code.BAD_MODEL,
            f"{pickles[0]} is a pickle, which can run any program when it is loaded: put {path.name} beside it, or "
            "set `[model] allow_pickle = true` if you trust its maker.",
        )
    if len(pickles) > 1:
        raise AudioProcessingError(Code.BAD_MODEL, f"{folder} has several files for {sig}: delete all but one.")
    return Member(sig=sig, path=pickles[0])


# ---- sha256 and its records


def read_member(files: ModelFiles, member: Member) -> tuple[bytes, str]:
    """The bytes of a member and their sha256, once they are known to be the recorded ones."""
    try:
        with member.path.open("rb") as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except FileNotFoundError:  # since `locate`
        raise missing(files.name, member.path, files.folder, files.folder) from None
    except OSError as error:
        raise unreadable(member.path, error) from error
    if len(data) > MAX_MEMBER_BYTES:
        raise AudioProcessingError(Code.BAD_MODEL, f"{member.path} is larger than any model: remove it.")
    sha256 = hashlib.sha256(data).hexdigest()
    _check(files, member, sha256)
    return data, sha256


def verify(files: ModelFiles) -> str:
    """Hash every member against its record, record those that have none; the model's hash."""
    hashes = {}
    for member in files.members:
        try:
            hashes[member.sig] = hash_file(member.path)
        except OSError as error:
            raise unreadable(member.path, error) from error
        _check(files, member, hashes[member.sig])
    return model_hash(files, hashes)


def model_hash(files: ModelFiles, hashes: dict[str, str]) -> str:
    """One sha256 for a model: over the lines of its bag's and its members', in the bag's order, without names."""
    lines = [files.bag.sha256, *(hashes[member.sig] for member in files.members)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(files: ModelFiles, member: Member, sha256: str) -> None:
    _, dash, prefix = member.path.stem.rpartition("-")  # Demucs' SIG-CHECKSUM.th
    if dash and not sha256.startswith(prefix):
        raise _changed(files, member, f"{prefix}... (its name)", sha256, "get it again")
    if files.records is None:
        return
    record = files.records / f"{member.path.name}{RECORD_SUFFIX}"
    expected = read_record(record)
    if expected is None:
        write_record(record, member.path, sha256)
    elif expected != sha256:
        remedy = f"if you replaced it yourself delete {record}"
        if files.folder == files.records:
            remedy = f"`stemd models fetch {files.name}` gets it again; {remedy}"
        raise _changed(files, member, expected, sha256, remedy)


def _changed(files: ModelFiles, member: Member, expected: str, got: str, remedy: str) -> AudioProcessingError:
    sentence = f"{member.path} of the model {files.name} has changed: sha256 {got}, expected {expected}; {remedy}."
    return AudioProcessingError(Code.BAD_MODEL, sentence)


def _records(name: str, folder: Path, models: Path) -> Path | None:
    """The demo model's bytes are the package's business; a repo's records lie in MODELS, one folder for each repo."""
    if name == DEMO:
        return None
    if folder == models:
        return models
    return models / RECORDED / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def read_record(record: Path) -> str | None:
    """The recorded sha256; null where there is none. One that does not read matches nothing, so it is refused."""
    try:
        return record.read_text(encoding="utf-8", errors="replace")[:64]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(record, error) from error


def write_record(record: Path, member: Path, sha256: str) -> None:
    """Atomic; daemons that share the folder write the same line."""
    name = member.name if member.parent == record.parent else member.absolute()
    part = record.with_name(f".{record.name}.{secrets.token_hex(4)}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(f"{sha256}  {name}\n", encoding="utf-8", errors="surrogateescape")
        part.replace(record)
    except OSError:
        # Models on a read-only filesystem: nothing to record with, and nothing there that could change.
        part.unlink(missing_ok=True)


def bags(folder: Path) -> Iterator[str]:
    """Names of the bags in a folder; none where there is no folder."""
    if folder.is_dir():
        yield from sorted(path.stem for path in folder.glob(f"*{BAG_SUFFIX}") if _NAME.fullmatch(path.stem))
