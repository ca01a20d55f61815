"""Models on disk: where their files are, and whether their bytes are still those on record.

    MODELS/                         [paths] models; several daemons may share it
      htdemucs.yaml                 the bag, see bag.py
      955717e8.safetensors          a member, shared by all bags that name it
      955717e8.safetensors.sha256   its record, as sha256sum writes it (`sha256sum -c` reads it)
      htdemucs.yaml.commit          the hub's commit that it was fetched from
      recorded/FOLDER/              records of the members in a `[model] repo`: that folder is never written into
      .fetch/                       partial files and a lock, see fetch.py

A `[model] repo` has the same layout and takes the place of MODELS. `demo` is always the model in the package.

Rules. At every load, a file is hashed before anything in it is interpreted. The first hash seen is recorded (for a
fetched file: the hub's own), and any other is refused; where the catalogue pins a file of MODELS, that hash binds instead.
No torch here: `demixd check` and the supervisor start fast.
"""

import contextlib
import hashlib
import os
import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

import msgspec

from demixd.engine.models import bag as bags
from demixd.engine.models import records
from demixd.engine.models.catalog import AUTO, PUBLISHED
from demixd.errors import AudioProcessingError, Code

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / DEMO
RECORDED = "recorded"

MAX_MEMBER_BYTES = 1 << 31
"""Demucs' largest member is 0.3 GB; a member is held in memory while it loads."""

_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    sig: str
    path: Path


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a model, all of which exist."""

    name: str
    folder: Path
    bag: bags.Bag
    members: tuple[Member, ...]
    """In the bag's order, and twice where the bag names a member twice."""
    records: Path | None
    """The folder of the members' records; None for the demo model, which the package itself vouches for."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A model by its name, and the folders to find it in; plain text, to be sent to another process."""

    name: str
    repo: str | None
    models: str
    allow_pickle: bool

    def locate(self) -> ModelFiles:
        """The model's files; see the function of that name."""
        repo = Path(self.repo) if self.repo else None
        return locate(self.name, repo=repo, models=Path(self.models), allow_pickle=self.allow_pickle)


class State(StrEnum):
    """Whether a model is there, and whether the hashes of its files are on record."""

    RECORDED = "recorded"
    UNRECORDED = "unrecorded"
    EMBEDDED = "embedded"
    MISSING = "missing"
    BAD = "bad"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `demixd models list`; `about` describes the model, or its fault."""

    name: str
    state: State
    folder: Path
    members: int = 0
    bytes: int = 0
    about: str = ""
    is_pinned: bool = False
    """Whether the catalogue has the hashes of all of its files."""

    @property
    def trust(self) -> str:
        """Why the files are taken for the model: the catalogue `pinned` them, or they were there at its `first use`."""
        return "pinned" if self.is_pinned else "first use" if self.state is State.RECORDED else ""


def folder_of(name: str, *, repo: Path | None, models: Path) -> Path:
    """The folder that a model of this name is looked for in."""
    return DEMO_FOLDER if name == DEMO else repo or models


def is_known(name: str, *, repo: Path | None, models: Path) -> bool:
    """Whether `name` is a model: one that Demucs publishes, or one whose bag is there. To check options early."""
    path = folder_of(name, repo=repo, models=models) / f"{name}{bags.SUFFIX}"
    return name in (DEMO, AUTO) or name in PUBLISHED or (bool(_NAME.fullmatch(name)) and path.is_file())


def locate(name: str, *, repo: Path | None, models: Path, allow_pickle: bool) -> ModelFiles:
    """The files of the model `name`; only the bag is opened.

    Raises `AudioProcessingError`: MODEL_MISSING where a file is not there or cannot be read, BAD_MODEL where the bag is
    wrong or a member is a pickle that is not allowed, BAD_OPTIONS where `name` can be no model's name.
    """
    if not _NAME.fullmatch(name):
        raise AudioProcessingError(Code.BAD_OPTIONS, f"{name!r} is no model's name; `demixd models list` shows them.")
    folder = folder_of(name, repo=repo, models=models)
    path = folder / f"{name}{bags.SUFFIX}"
    try:
        bag = bags.read(path)
    except OSError as error:
        raise _unreadable(name, path, models, error) from error
    if bag.sha256 != _pinned(name, path, models, bag.sha256):
        sentence = f"{path} is not the one that demixd's catalogue pins: `demixd models fetch {name}` gets it again."
        raise AudioProcessingError(Code.BAD_MODEL, sentence)
    members = tuple(_member(name, sig, folder, models, allow_pickle) for sig in bag.sigs)
    return ModelFiles(name=name, folder=folder, bag=bag, members=members, records=_records(name, folder, models))


def _pinned(name: str, path: Path, models: Path | None, otherwise: str) -> str:
    """The sha256 that the catalogue pins for a file of the model; `otherwise` where it has none, or in a `[model] repo`."""
    is_bound = name in PUBLISHED and path.parent == models
    return PUBLISHED[name].sha256.get(path.name, otherwise) if is_bound else otherwise


def _member(name: str, sig: str, folder: Path, models: Path, allow_pickle: bool) -> Member:
    path = folder / f"{sig}.safetensors"
    if path.is_file():
        return Member(sig=sig, path=path)
    pickles = sorted([*folder.glob(f"{sig}.th"), *folder.glob(f"{sig}-*.th")])
    if not pickles:
        raise _unreadable(name, path, models, FileNotFoundError())
    if not allow_pickle:
        raise AudioProcessingError(
            Code.BAD_MODEL,
            f"{pickles[0]} is a pickle, which can run any program when it is loaded: put {path.name} beside it, or "
            "set `[model] allow_pickle = true` if you trust its maker.",
        )
    if len(pickles) > 1:
        raise AudioProcessingError(Code.BAD_MODEL, f"{folder} has several files for {sig}: delete all but one.")
    return Member(sig=sig, path=pickles[0])


def _records(name: str, folder: Path, models: Path) -> Path | None:
    if name == DEMO:
        return None
    if folder == models:
        return models
    return models / RECORDED / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _unreadable(name: str, path: Path, models: Path | None, error: OSError) -> AudioProcessingError:
    if not isinstance(error, FileNotFoundError):
        message = f"{path} of the model {name} cannot be read ({error.strerror}): let the daemon's user read it."
        return AudioProcessingError(Code.MODEL_MISSING, message, repr(error))
    if path.suffix == bags.SUFFIX and name not in PUBLISHED and (close := get_close_matches(name, PUBLISHED, 1)):
        meant = f"There is no model {name} in {path.parent}: did you mean {close[0]}? `demixd models list` shows all."
        return AudioProcessingError(Code.MODEL_MISSING, meant)
    remedy = f"put it into {path.parent}"
    if path.parent == models and name in PUBLISHED:
        remedy = f"run `demixd models fetch {name}`, or {remedy}"
    return AudioProcessingError(Code.MODEL_MISSING, f"The model {name} lacks its file {path.name}: {remedy}.")


def listing(*, repo: Path | None, models: Path, allow_pickle: bool) -> list[Row]:
    """Every model that is there or that Demucs publishes, by name. Bags and sizes are read, nothing is hashed."""
    folder = folder_of("", repo=repo, models=models)
    local = {path.stem for path in folder.glob(f"*{bags.SUFFIX}") if _NAME.fullmatch(path.stem)}
    return [_row(name, repo, models, allow_pickle) for name in sorted({DEMO, *PUBLISHED, *local})]


def _row(name: str, repo: Path | None, models: Path, allow_pickle: bool) -> Row:
    folder = folder_of(name, repo=repo, models=models)
    about = PUBLISHED[name].about if name in PUBLISHED else "small, for trying things out" if name == DEMO else ""
    if not (folder / f"{name}{bags.SUFFIX}").exists():
        return Row(name=name, state=State.MISSING, folder=folder, about=about)
    try:
        files = locate(name, repo=repo, models=models, allow_pickle=allow_pickle)
    except AudioProcessingError as error:
        state = State.MISSING if error.code is Code.MODEL_MISSING else State.BAD
        return Row(name=name, state=state, folder=folder, about=error.message)
    paths = {member.path for member in files.members}
    state = State.EMBEDDED
    if files.records is not None:
        known = [(files.records / f"{path.name}{records.SUFFIX}").is_file() for path in paths]
        state = State.RECORDED if all(known) else State.UNRECORDED
    size = sum(path.stat().st_size for path in paths)
    pins = PUBLISHED[name].sha256 if name in PUBLISHED and folder == models else {}
    is_pinned = {path.name for path in paths} | {f"{name}{bags.SUFFIX}"} <= pins.keys()
    return Row(
        name=name,
        state=state,
        folder=folder,
        members=len(files.members),
        bytes=size,
        about=about,
        is_pinned=is_pinned,
    )


# ---- the hashes


def read_member(files: ModelFiles, member: Member) -> tuple[bytes, str]:
    """The bytes of a member and their sha256, which is the one on record. Raises BAD_MODEL where it is not."""
    try:
        with member.path.open("rb") as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except OSError as error:
        raise _unreadable(files.name, member.path, files.records, error) from error
    if len(data) > MAX_MEMBER_BYTES:
        raise AudioProcessingError(Code.BAD_MODEL, f"{member.path} is larger than any model: remove it.")
    sha256 = hashlib.sha256(data).hexdigest()
    _check(files, member, sha256)
    return data, sha256


def verify(files: ModelFiles) -> str:
    """The model's hash, after each member was hashed and compared with its record; hashes without a record are recorded."""
    return model_hash(files, _hashes(files))


def _hashes(files: ModelFiles) -> dict[str, str]:
    """The hash of each member by its signature, each the one on record."""
    hashes = {}
    for member in set(files.members):
        try:
            hashes[member.sig] = records.hash_file(member.path)
        except OSError as error:
            raise _unreadable(files.name, member.path, files.records, error) from error
        _check(files, member, hashes[member.sig])
    return hashes


def pins(files: ModelFiles) -> tuple[str, dict[str, str]]:
    """What would pin the model in the catalogue: the commit that it was fetched from (empty: not known), and its files' hashes.

    Raises as `verify` does.
    """
    bag, hashes = files.folder / f"{files.name}{bags.SUFFIX}", _hashes(files)
    found = {member.path.name: hashes[member.sig] for member in sorted(set(files.members), key=lambda each: each.sig)}
    return records.commit(bag), {bag.name: files.bag.sha256, **found}


def model_hash(files: ModelFiles, hashes: dict[str, str]) -> str:
    """The sha256 of a model: of the hashes of its bag and of its members in the bag's order, a line each.

    `hashes` are the members' by signature.
    """
    lines = [files.bag.sha256, *(hashes[member.sig] for member in files.members)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _check(files: ModelFiles, member: Member, sha256: str) -> None:
    _, dash, prefix = member.path.stem.rpartition("-")  # Demucs' own SIG-CHECKSUM.th
    if dash and not sha256.startswith(prefix):
        raise _changed(files, member, prefix, sha256, "get it again")
    if files.records is None:
        return
    if (pinned := _pinned(files.name, member.path, files.records, sha256)) != sha256:
        raise _changed(files, member, pinned, sha256, f"`demixd models fetch {files.name}` gets the pinned one")
    record = files.records / f"{member.path.name}{records.SUFFIX}"
    expected = records.read(record)
    if expected is None:
        # In a folder that cannot be written there is no record; the next load tries again.
        with contextlib.suppress(OSError):
            records.write(record, member.path, sha256)
    elif expected != sha256:
        remedy = f"delete {record} if you replaced it yourself"
        if files.folder == files.records and files.name in PUBLISHED:
            remedy = f"`demixd models fetch {files.name}` gets it again; {remedy}"
        raise _changed(files, member, expected, sha256, remedy)


def _changed(files: ModelFiles, member: Member, expected: str, got: str, remedy: str) -> AudioProcessingError:
    sentence = f"{member.path} of the model {files.name} has changed: its sha256 is {got}, not {expected}; {remedy}."
    return AudioProcessingError(Code.BAD_MODEL, sentence)
