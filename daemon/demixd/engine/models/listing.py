"""The list of models: those that are there, and those that Demucs publishes, each with its state. Nothing is hashed."""

from enum import StrEnum
from pathlib import Path

import msgspec

from demixd.engine.models import bag as bags
from demixd.engine.models import records, store
from demixd.engine.models.catalog import PUBLISHED
from demixd.errors import AudioProcessingError, Code


class State(StrEnum):
    """Whether a model is there, and whether the hashes of its files are on record."""

    RECORDED = "recorded"
    UNRECORDED = "unrecorded"
    EMBEDDED = "embedded"
    MISSING = "missing"
    BAD = "bad"
    HIDDEN = "not visible"
    """It is there, and this user may not see the records."""


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


def rows(*, repo: Path | None, models: Path, allow_pickle: bool, recorded: Path | None = None) -> list[Row]:
    """Every model that is there or that Demucs publishes, by name. Bags and sizes are read, nothing is hashed.

    Raises OSError where this user may not look into the folder.
    """
    folder = store.folder_of("", repo=repo, models=models)
    local = {path.stem for path in folder.glob(f"*{bags.SUFFIX}") if store.NAME.fullmatch(path.stem)}
    return [_row(name, repo, models, allow_pickle, recorded) for name in sorted({store.DEMO, *PUBLISHED, *local})]


def _row(name: str, repo: Path | None, models: Path, allow_pickle: bool, recorded: Path | None) -> Row:
    folder = store.folder_of(name, repo=repo, models=models)
    about = PUBLISHED[name].about if name in PUBLISHED else "small, for trying things out" if name == store.DEMO else ""
    if not (folder / f"{name}{bags.SUFFIX}").exists():
        return Row(name=name, state=State.MISSING, folder=folder, about=about)
    try:
        files = store.locate(name, repo=repo, models=models, allow_pickle=allow_pickle, recorded=recorded)
        state = State.RECORDED if store.is_recorded(files) else State.UNRECORDED
    except records.HiddenError as error:
        return Row(name=name, state=State.HIDDEN, folder=folder, about=error.message)
    except AudioProcessingError as error:
        state = State.MISSING if error.code is Code.MODEL_MISSING else State.BAD
        return Row(name=name, state=state, folder=folder, about=error.message)
    paths = {member.path for member in files.members}
    size = sum(path.stat().st_size for path in paths)
    pins = PUBLISHED[name].sha256 if name in PUBLISHED and folder == models else {}
    is_pinned = {path.name for path in paths} | {f"{name}{bags.SUFFIX}"} <= pins.keys()
    return Row(
        name=name,
        state=State.EMBEDDED if name == store.DEMO else state,
        folder=folder,
        members=len(files.members),
        bytes=size,
        about=about,
        is_pinned=is_pinned,
    )
