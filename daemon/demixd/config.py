"""The configuration: one TOML file, read once, whose keys are all checked before any model is loaded.

The file is that of `--config`, else of `$DEMIXD_CONFIG`, else /etc/demixd/demixd.toml; without one, the defaults below count.
`config/demixd.toml` has every key with its default.
"""

import os
import re
import stat
from collections.abc import Callable
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli
from msgspec import Meta

from demixd.errors import ConfigError
from demixd.protocol import devices
from demixd.protocol.inbox_names import kind_of_folder
from demixd.protocol.options import Defaults, JobOptions, ModelName, Options, effective
from demixd.protocol.result_names import holdable
from demixd.protocol.schedule import Schedule
from demixd.protocol.typed import Section, no_such_key, shown, shown_key, typed

DEFAULT_PATH, BUILT_IN = Path("/etc/demixd/demixd.toml"), "the built-in defaults"
BESIDE = Path(__file__).parents[2] / "models"
"""The models of an installed program, which only root writes: the installer makes this folder, beside `daemon`."""

YEAR_S = 31_536_000
"""Seconds: the longest duration. TOML has `inf`, for which no clock can wait."""

_PROFILE = re.compile(r"[^\W_]([\w -]{0,58}[\w-])?")

HEARTBEAT_MOST_S = 600.0
"""Seconds between two heartbeats at most: whoever waits for three of them has to know within half an hour."""

Seconds = Annotated[float, Meta(gt=0, le=YEAR_S)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=YEAR_S)]


class After(StrEnum):
    """What is done with an original whose job is done."""

    MOVE = "move"
    KEEP = "keep"
    DELETE = "delete"


class Watch(StrEnum):
    """How changes in the inbox are noticed."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


class Paths(Section, frozen=True):
    spool: str = "/srv/demixd"
    inbox: str = ""
    outbox: str = ""
    status: str = ""
    done: str = ""
    failed: str = ""
    work: str = ""
    state: str = "/var/lib/demixd"
    models: str = ""


class Inbox(Section, frozen=True):
    scan_interval: Seconds = 10.0
    settle: SecondsOrNone = 2.0
    settle_remote: SecondsOrNone = 10.0
    after: After = After.MOVE
    recursive: bool = True
    profile_folders: bool = True
    leftovers: Literal["keep", "move"] = "keep"
    reasons: bool = False
    watch: Watch = Watch.AUTO


class Status(Section, frozen=True):
    progress_s: Seconds = 0.5
    heartbeat_s: Annotated[float, Meta(gt=0, le=HEARTBEAT_MOST_S)] = 5.0
    keep_days: Annotated[float, Meta(gt=0, le=36500)] = 30


class Model(Section, frozen=True):
    name: ModelName = "htdemucs"
    repo: str = ""
    device: devices.Devices = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    batch: Annotated[int, Meta(ge=1, le=256)] | Literal["auto"] = "auto"
    keep_alive_s: Annotated[float, Meta(ge=-1, le=YEAR_S)] = -1
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        devices.check(self.device)


class _Profile(Defaults, frozen=True):
    model: ModelName = ""


class Limits(Section, frozen=True):
    max_duration_s: Seconds = 14400.0
    max_bytes: Annotated[int, Meta(gt=0)] = 4294967296
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    cancel_grace_s: Seconds = 5.0
    truncated_grace_s: SecondsOrNone = 600.0
    memory_bytes: Annotated[int, Meta(ge=0, le=10**15)] | Literal["auto"] = "auto"

    def too_large(self, size: int) -> str:
        """The sentence about a song of so many bytes that is not taken; empty for any other."""
        allowed = self.max_bytes
        return f"The song has {size} bytes; [limits] max_bytes allows {allowed}." if size > allowed else ""


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration; see `config/demixd.toml` for what each key does."""

    paths: Paths = Paths()
    inbox: Inbox = Inbox()
    status: Status = Status()
    model: Model = Model()
    ray: devices.Ray = devices.Ray()
    defaults: Defaults = Defaults()
    profiles: dict[str, dict[str, Any]] = {}
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    log: Log = Log()

    @property
    def options(self) -> Options:
        """The options of a song that brings none of its own."""
        return self.defaults.of(self.model.name, None)

    def options_of(self, name: str, job: JobOptions, is_known: Callable[[str], bool]) -> Options:
        """The options of the song `name` (its path below the inbox). Raises BAD_OPTIONS: see `options.effective`."""
        return effective(
            name, job, model=self.model.name, defaults=self.defaults, profiles=self.profiles, is_known=is_known
        )

    def folder(self, part: str) -> Path:
        """The path of one part of the spool (`inbox`, `outbox`, `status`, `done` or `failed`)."""
        return Path(getattr(self.paths, part) or Path(self.paths.spool) / part)

    @property
    def state(self) -> Path:
        return Path(self.paths.state)

    @property
    def models(self) -> Path:
        installed = BESIDE if os.path.isdir(BESIDE) else self.state / "models"  # noqa: PTH112 - raises nothing
        return Path(self.paths.models or installed)

    @property
    def recorded(self) -> Path:
        """The folder of the hashes that models had at their first use, where they are not on record beside them."""
        return self.state / "recorded"

    @property
    def compiled(self) -> Path:
        """The folder of models that the daemon has converted for a faster runtime."""
        return self.state / "compiled"

    @property
    def named_models(self) -> frozenset[str]:
        """The models that the configuration itself names."""
        return frozenset({self.model.name, *(str(each["model"]) for each in self.profiles.values() if "model" in each)})

    @property
    def repo(self) -> Path | None:
        return Path(self.model.repo) if self.model.repo else None


def load(path: Path | None = None, *, only: str = "") -> Config:
    """The configuration of the file at `path`, or of the places above. Raises `ConfigError`: key, file and reason.

    `only` names the one section that is wanted, whatever is wrong in the others.
    """
    if (path := chosen(path)[0]) is None:
        return check(Config(), BUILT_IN)
    return check(parse(_read(path), str(path), only=only), str(path))


def chosen(path: Path | None) -> tuple[Path | None, str]:
    """The file that counts where the command line gives `path`, None for the built-in defaults; and why, for people."""
    if path is not None:
        return path, f"{path}, from --config"
    if named := os.environ.get("DEMIXD_CONFIG"):
        return Path(named), f"{named}, from $DEMIXD_CONFIG"
    if DEFAULT_PATH.exists():
        return DEFAULT_PATH, str(DEFAULT_PATH)
    return None, f"{BUILT_IN}, since there is no --config, $DEMIXD_CONFIG or {DEFAULT_PATH}"


def _read(path: Path) -> str:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8-sig") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: the configuration must be a regular file")
            return file.read()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file: give the path of the configuration") from error
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the configuration must be UTF-8, and is not from byte {error.start} on") from error


def parse(text: str, where: str, *, only: str = "") -> Config:
    """The configuration in `text`, TOML, or `only` one section of it; `where` names its file in errors. Raises `ConfigError`."""
    try:
        table = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        told = "a number in it has thousands of digits; TOML's have 19" if type(error) is ValueError else error
        raise ConfigError(f"{where}: not TOML: {told}") from error
    kinds = {field.name: field.type for field in msgspec.structs.fields(Config)}
    table = {name: table[name] for name in (only,) if name in table} if only else table
    if (unknown := next((name for name in table if name not in kinds), None)) is not None:
        raise ConfigError(f"{where}: [{shown_key(unknown)}]: {no_such_key(unknown, kinds)}")
    sections: dict[str, Any] = {}
    for name, values in table.items():
        try:
            sections[name] = _profiles(values) if name == "profiles" else typed(values, kinds[name])
        except ValueError as error:
            raise ConfigError(f"{where}: [{name}] {error}") from error
    return Config(**sections)


def _profiles(values: Any) -> dict[str, dict[str, Any]]:
    """Check the shape of the profiles; their keys are checked later, together with `[defaults]`. Raises ValueError."""
    if not isinstance(values, dict) or not all(isinstance(keys, dict) for keys in values.values()):
        raise ValueError("holds tables only: begin each profile with a line [profiles.NAME]")
    return values


def check(config: Config, where: str) -> Config:
    """`config` itself. Raises `ConfigError` where values are allowed each by itself and not together; `where` is their file."""
    try:
        for key in msgspec.structs.fields(Paths):
            _check_path(f"[paths] {key.name}", getattr(config.paths, key.name))
        _check_path("[model] repo", config.model.repo)
        config.ray.check(config.model.device)
        for profile, keys in config.profiles.items():
            _check_profile(profile, keys, config)
        _check_apart(config)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return config


def _check_path(key: str, value: str) -> None:
    if value and (not value.startswith("/") or "\0" in value):
        raise ValueError(f"{key} = {shown(value)}: it must be an absolute path, beginning with /; ~ is not known here")


def _check_profile(profile: str, keys: dict[str, Any], config: Config) -> None:
    """Raise ValueError for a profile with other keys than `model` and those of [defaults], or a name that no folder has."""
    if not _PROFILE.fullmatch(profile) or holdable(profile) != profile or kind_of_folder(profile):
        raise ValueError(
            f"[profiles.{shown(profile)}]: a folder of the inbox has the profile's name, so it must be letters and digits, "
            "with spaces, - and _ between them, and no name that Windows reserves or that shares have for themselves"
        )
    try:
        typed({**msgspec.structs.asdict(config.defaults), **keys}, _Profile)
    except ValueError as error:
        raise ValueError(f"[profiles.{profile}] {error}") from error


def _check_apart(config: Config) -> None:
    """Raise ValueError where a folder lies in another: results would be taken for songs, or private files be on the share.

    done and failed may be one folder; models and work may lie in state, by default they do. These three must be no file either,
    nor may any lie below one; the daemon waits for a file to go that is in place of another.
    """
    parts = {part: config.folder(part) for part in ("inbox", "outbox", "status", "done", "failed")}
    own = {"state": config.state, "models": config.models, "work": Path(config.paths.work or config.state / "work")}
    above = {part if getattr(config.paths, part) else "spool": folder.parent for part, folder in parts.items()}
    for part, folder in (own | above).items():
        there = next(each for each in (folder, *folder.parents) if _key(each) is not None)
        if not there.is_dir():
            value = getattr(config.paths, part) or folder
            raise ValueError(f"[paths] {part} ({value}): {there} is no folder: set {part} to one")
    on_the_share = (("spool", Path(config.paths.spool)), ("state", config.state))
    for (one, first), (other, second) in (*combinations((parts | own).items(), 2), on_the_share):
        if {one, other} <= own.keys() or ({one, other} == {"done", "failed"} and first == second):
            continue
        try:
            met = _lies_in(first, second) or _lies_in(second, first)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"[paths] {one} ({first}) or {other} ({second}) cannot be followed: {error}") from error
        if met:
            met_how = f"{one} ({first}) and {other} ({second}) lie in each other or are one folder"
            raise ValueError(f"[paths] {met_how}: set {one} or {other} to a folder of its own")


def _lies_in(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or below it, by real path and, for bind mounts, by device and inode."""
    real_inner, real_outer = inner.resolve(), outer.resolve()
    if real_inner.is_relative_to(real_outer):
        return True
    return (key := _key(real_outer)) is not None and key in map(_key, (real_inner, *real_inner.parents))


def _key(folder: Path) -> tuple[int, int] | None:
    """Device and inode; None where it is missing, or where this user (of `demixd submit`, say) may not stat it."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
