"""Models on disk: where their files are, and whether their bytes are still those on record.

    MODELS/                         [paths] models; several daemons may share it
      htdemucs.yaml                 the bag, see bag.py
      955717e8.safetensors          a member, shared by all bags that name it
      955717e8.safetensors.sha256   its record, as sha256sum writes it (`sha256sum -c` reads it), written when it was fetched
      htdemucs.yaml.commit          the hub's commit that it was fetched from
      .fetch/                       partial files and a lock, see fetch.py
    STATE/recorded/FOLDER/          records that cannot be beside a file: MODELS is root's where demixd is installed, and a
                                    `[model] repo` is never written into

A `[model] repo` has the same layout and takes the place of MODELS. `demo` is always the model in the package.

Rules. At every load, a file is hashed before anything in it is interpreted. The hash at the first use is recorded (for a
fetched file: the hub's own), and any other is refused later; where the catalogue pins a file of MODELS, that hash binds instead.
No torch here: `demixd check` and the supervisor start fast.
"""

import contextlib
import errno
import hashlib
import os
import re
from difflib import get_close_matches
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.engine.models import bag as bags
from demixd.engine.models import header, records
from demixd.engine.models.catalog import AUTO, PUBLISHED
from demixd.errors import AudioProcessingError, Code

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / DEMO

NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}")


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
    models: Path
    """The models folder, whether or not it is the one in which they are."""
    records: tuple[Path, ...]
    """The folders of the members' records, in order; none for the demo model, which the package itself vouches for."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A model by its name, and the folders to find it in; plain text, to be sent to another process."""

    name: str
    repo: str | None
    models: str
    allow_pickle: bool
    recorded: str | None = None

    @classmethod
    def of(cls, config: Config, name: str) -> "Where":
        """A model in the folders of a configuration."""
        return cls(
            name=name,
            repo=config.model.repo or None,
            models=str(config.models),
            allow_pickle=config.model.allow_pickle,
            recorded=str(config.recorded),
        )

    def locate(self) -> ModelFiles:
        """The model's files; see the function of that name."""
        return locate(
            self.name,
            repo=Path(self.repo) if self.repo else None,
            models=Path(self.models),
            allow_pickle=self.allow_pickle,
            recorded=Path(self.recorded) if self.recorded else None,
        )


def folder_of(name: str, *, repo: Path | None, models: Path) -> Path:
    """The folder that a model of this name is looked for in."""
    return DEMO_FOLDER if name == DEMO else repo or models


def is_known(name: str, *, repo: Path | None, models: Path) -> bool:
    """Whether `name` is a model: one that Demucs publishes, or one whose bag is there. To check options early."""
    path = folder_of(name, repo=repo, models=models) / f"{name}{bags.SUFFIX}"
    return name in (DEMO, AUTO) or name in PUBLISHED or (bool(NAME.fullmatch(name)) and os.path.isfile(path))  # noqa: PTH113 - false where nobody may look


def locate(
    name: str, *, repo: Path | None, models: Path, allow_pickle: bool, recorded: Path | None = None
) -> ModelFiles:
    """The files of the model `name`; only the bag is opened. `recorded` is STATE/recorded; None: no record is there.

    Raises `AudioProcessingError`: MODEL_MISSING where a file is not there or cannot be read, BAD_MODEL where the bag is
    wrong or a member is a pickle that is not allowed, BAD_OPTIONS where `name` can be no model's name.
    """
    if not NAME.fullmatch(name):
        raise AudioProcessingError(Code.BAD_OPTIONS, f"{name!r} is no model's name; `demixd models list` shows them.")
    folder = folder_of(name, repo=repo, models=models)
    path = folder / f"{name}{bags.SUFFIX}"
    try:
        bag = bags.read(path)
    except OSError as error:
        raise _unreadable(name, path, models, error) from error
    if bag.sha256 != _pinned(name, path, models, bag.sha256):
        sentence = (
            f"{path} is not the one that demixd's catalogue pins: `{command('fetch', name, models)}` gets it again."
        )
        raise AudioProcessingError(Code.BAD_MODEL, sentence)
    members = tuple(_member(name, sig, folder, models, allow_pickle) for sig in bag.sigs)
    kept = _records(name, folder, models, recorded)
    return ModelFiles(name=name, folder=folder, bag=bag, members=members, models=models, records=kept)


def command(verb: str, name: str, models: Path) -> str:
    """`demixd models VERB NAME` as whoever reads it has to type it: by sudo, where this user may not write to the folder."""
    there = next(folder for folder in (models, *models.parents) if os.path.exists(folder))  # noqa: PTH110 - true where nobody may look
    return f"{'' if os.access(there, os.W_OK) else 'sudo '}demixd models {verb} {name}"


def _pinned(name: str, path: Path, models: Path, otherwise: str) -> str:
    """The sha256 that the catalogue pins for a file of the model; `otherwise` where it has none, or in a `[model] repo`."""
    is_bound = name in PUBLISHED and path.parent == models
    return PUBLISHED[name].sha256.get(path.name, otherwise) if is_bound else otherwise


def _member(name: str, sig: str, folder: Path, models: Path, allow_pickle: bool) -> Member:
    path = folder / f"{sig}.safetensors"
    try:
        if path.is_file():
            return Member(sig=sig, path=path)
    except OSError as error:  # it is a link to where this user may not look
        raise _unreadable(name, path, models, error) from error
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


def _records(name: str, folder: Path, models: Path, recorded: Path | None) -> tuple[Path, ...]:
    if name == DEMO:
        return ()
    beside = (folder,) if folder == models else ()
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return (*beside, recorded / key) if recorded is not None else beside


def _unreadable(name: str, path: Path, models: Path, error: OSError) -> AudioProcessingError:
    if error.errno == errno.EFBIG:
        return AudioProcessingError(Code.BAD_MODEL, f"{path} is larger than any model: remove it.", repr(error))
    if not isinstance(error, FileNotFoundError):
        remedy = "let the daemon's user read it" if error.errno == errno.EACCES else "put the model's own in its place"
        message = f"{path} of the model {name} cannot be read ({error.strerror}): {remedy}."
        return AudioProcessingError(Code.MODEL_MISSING, message, repr(error))
    if path.suffix == bags.SUFFIX and name not in PUBLISHED and (close := get_close_matches(name, PUBLISHED, 1)):
        meant = f"There is no model {name} in {path.parent}: did you mean {close[0]}? `demixd models list` shows all."
        return AudioProcessingError(Code.MODEL_MISSING, meant)
    remedy = f"put it into {path.parent}"
    if path.parent == models and name in PUBLISHED:
        remedy = f"run `{command('fetch', name, models)}`, or {remedy}"
    return AudioProcessingError(Code.MODEL_MISSING, f"The model {name} lacks its file {path.name}: {remedy}.")


def unusable(files: ModelFiles, member: Member, error: ValueError) -> AudioProcessingError:
    """The error of a member whose content is no model's, with the remedy."""
    is_fetched = files.folder == files.models and files.name in PUBLISHED
    again = (
        f"`{command('fetch', files.name, files.models)}` gets it again" if is_fetched else "put the model's own there"
    )
    sentence = f"{member.path} of the model {files.name} cannot be used: {error}; {again}."
    return AudioProcessingError(Code.BAD_MODEL, sentence, repr(error.__cause__ or error))


def check_headers(files: ModelFiles) -> None:
    """Raise BAD_MODEL where a member in safetensors' format is cut short, or is none; only the headers are read."""
    for member in files.members:
        try:
            if member.path.suffix == ".safetensors":
                header.read(member.path)
        except ValueError as error:
            raise unusable(files, member, error) from error
        except OSError as error:
            raise _unreadable(files.name, member.path, files.models, error) from error


# ---- the hashes


def read_member(files: ModelFiles, member: Member) -> tuple[bytes, str]:
    """The bytes of a member and their sha256, which is the one on record, if any. Raises BAD_MODEL where it is not."""
    try:
        with records.open_weights(member.path) as file:
            data = file.read(records.MAX_BYTES)
    except OSError as error:
        raise _unreadable(files.name, member.path, files.models, error) from error
    sha256 = hashlib.sha256(data).hexdigest()
    _check(files, member, sha256)
    return data, sha256


def verify(files: ModelFiles) -> str:
    """The model's hash, after each member was hashed and compared with its record, if there is one."""
    return model_hash(files, _hashes(files))


def _hashes(files: ModelFiles) -> dict[str, str]:
    """The hash of each member by its signature, each the one on record, if any."""
    hashes = {}
    for member in set(files.members):
        try:
            hashes[member.sig] = records.hash_file(member.path)
        except OSError as error:
            raise _unreadable(files.name, member.path, files.models, error) from error
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
    if not files.records:
        return
    again = command("fetch", files.name, files.models)
    if (pinned := _pinned(files.name, member.path, files.models, sha256)) != sha256:
        raise _changed(files, member, pinned, sha256, f"`{again}` gets the pinned one")
    on_record = _on_record(files, member)
    if on_record is not None and on_record[1] != sha256:
        remedy = f"delete {on_record[0]} if you replaced it yourself"
        if files.folder == files.models and files.name in PUBLISHED:
            remedy = f"`{again}` gets it again; {remedy}"
        raise _changed(files, member, on_record[1], sha256, remedy)


def _on_record(files: ModelFiles, member: Member) -> tuple[Path, str] | None:
    """The record of a member, and the sha256 in it."""
    for folder in files.records:
        record = folder / f"{member.path.name}{records.SUFFIX}"
        if (sha256 := records.read(record)) is not None:
            return record, sha256
    return None


def is_recorded(files: ModelFiles) -> bool:
    """Whether the hash of each member is on record, or the package vouches for it. Raises as `records.read` does."""
    return all(_on_record(files, member) is not None for member in files.members) or not files.records


def record(files: ModelFiles, hashes: dict[str, str]) -> None:
    """Put the hashes of members on record that have no record yet. Where none can be kept, the next use tries again.

    That waits until the model has proved usable, since a file that is still being copied has another hash than it will have.
    """
    for member in set(files.members):
        if _on_record(files, member) is None:
            for folder in filter(records.is_own, files.records):
                with contextlib.suppress(OSError):
                    records.write(folder / f"{member.path.name}{records.SUFFIX}", member.path, hashes[member.sig])
                    break


def _changed(files: ModelFiles, member: Member, expected: str, got: str, remedy: str) -> AudioProcessingError:
    sentence = f"{member.path} of the model {files.name} has changed: its sha256 is {got}, not {expected}; {remedy}."
    return AudioProcessingError(Code.BAD_MODEL, sentence)
