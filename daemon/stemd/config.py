"""The configuration: one TOML file, read once, every key typed and checked before any model is loaded.

`--config`, else `$STEMD_CONFIG`, else /etc/stemd/stemd.toml, else the defaults below. `config/stemd.toml` shows them all.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli
from msgspec import Meta

from stemd import naming
from stemd.errors import ConfigError
from stemd.job import Options

DEFAULT_PATH = Path("/etc/stemd/stemd.toml")

Seconds = Annotated[float, Meta(gt=0)]


class After(StrEnum):
    """What becomes of an original whose job is done."""

    MOVE = "move"
    KEEP = "keep"
    DELETE = "delete"


class Watch(StrEnum):
    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Paths(_Section, frozen=True):
    spool: str = "/srv/stemd"
    inbox: str = ""
    outbox: str = ""
    status: str = ""
    done: str = ""
    failed: str = ""
    work: str = ""
    state: str = "/var/lib/stemd"
    models: str = ""


class Inbox(_Section, frozen=True):
    scan_interval: Seconds = 10.0
    settle: Annotated[float, Meta(ge=0)] = 2.0
    after: After = After.MOVE
    recursive: bool = True
    watch: Watch = Watch.AUTO


class Status(_Section, frozen=True):
    progress_s: Seconds = 0.5
    heartbeat_s: Seconds = 5.0


class Model(_Section, frozen=True):
    name: str = "htdemucs"
    repo: str = ""
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    allow_pickle: bool = False


class Defaults(_Section, frozen=True):
    stems: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...], Meta(min_length=1, max_length=64)
    ] = (
        "vocals",
        "instrumental",
    )
    format: Literal["source", "wav", "flac", "mp3", "ogg"] = "source"
    bitrate: Annotated[int, Meta(ge=8, le=512)] = 320
    bit_depth: Literal["source", "float", 16, 24, 32] = "source"
    rate: Annotated[int, Meta(ge=8000, le=192000)] | Literal["source"] = "source"
    clip: Literal["joint", "clamp", "none"] = "joint"
    instrumental: Literal["auto", "add", "minus"] = "auto"
    shifts: Annotated[int, Meta(ge=0, le=20)] = 0
    overlap: Annotated[float, Meta(ge=0, le=0.9)] = 0.25
    naming: str = "{stem}.{ext}"

    def __post_init__(self) -> None:
        naming.check(self.naming)


class Limits(_Section, frozen=True):
    max_duration_s: Seconds = 14400.0
    max_bytes: Annotated[int, Meta(gt=0)] = 4294967296
    max_attempts: Annotated[int, Meta(ge=1)] = 3
    cancel_grace_s: Seconds = 5.0
    truncated_grace_s: Annotated[float, Meta(ge=0)] = 600.0


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration; see `config/stemd.toml` for what each key does."""

    paths: Paths = Paths()
    inbox: Inbox = Inbox()
    status: Status = Status()
    model: Model = Model()
    defaults: Defaults = Defaults()
    profiles: dict[str, dict[str, Any]] = {}
    limits: Limits = Limits()
    log: Log = Log()

    @property
    def options(self) -> Options:
        """The options of a song that brings none of its own."""
        return Options(model=self.model.name, profile=None, **msgspec.structs.asdict(self.defaults))

    def folder(self, part: str) -> Path:
        """The path of one part of the spool (`inbox`, `outbox`, `status`, `done` or `failed`)."""
        return Path(getattr(self.paths, part) or Path(self.paths.spool) / part)

    @property
    def state(self) -> Path:
        return Path(self.paths.state)

    @property
    def models(self) -> Path:
        return Path(self.paths.models or self.state / "models")

    @property
    def repo(self) -> Path | None:
        return Path(self.model.repo) if self.model.repo else None


def load(path: Path | None = None) -> Config:
    """The configuration in force. Raises `ConfigError` naming the key, the file and the reason."""
    if path is None and (named := os.environ.get("STEMD_CONFIG")):
        path = Path(named)
    if path is None:
        if not DEFAULT_PATH.exists():
            return check(Config(), "the built-in defaults")
        path = DEFAULT_PATH
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return check(parse(text, str(path)), str(path))


def parse(text: str, where: str) -> Config:
    """The configuration that `text` spells; `where` names it in errors."""
    try:
        table = tomli.loads(text)
        return msgspec.convert(table, Config)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_plain(str(error))}") from error


def _plain(message: str) -> str:
    """msgspec's sentence with the key as it is written in the file: `$.inbox.settle` becomes `[inbox] settle`."""
    reason, _, place = message.partition(" - at `")
    keys = place.removeprefix("$").rstrip("`").strip(".").split(".")
    if unknown := reason.partition("unknown field `")[2].rstrip("`"):
        keys, reason = [*keys, unknown], "there is no such key"
    keys = [key for key in keys if key]
    if len(keys) > 1:
        return f"[{keys[0]}] {'.'.join(keys[1:])}: {reason}"
    return f"[{keys[0]}]: {reason}" if keys else reason


def check(config: Config, where: str) -> Config:
    """`config` itself, or a `ConfigError` where keys that are right alone are wrong together."""
    for key in ("spool", "inbox", "outbox", "status", "done", "failed", "work", "state", "models"):
        value = getattr(config.paths, key)
        if value and not value.startswith("/"):
            raise ConfigError(f"{where}: [paths] {key} = {value!r} must be an absolute path")
    if config.model.repo and not config.model.repo.startswith("/"):
        raise ConfigError(f"{where}: [model] repo = {config.model.repo!r} must be an absolute path")
    for profile, keys in config.profiles.items():
        _check_profile(profile, keys, config, where)
    _check_apart(config, where)
    return config


def _check_profile(profile: str, keys: dict[str, Any], config: Config, where: str) -> None:
    """A profile has keys of [defaults], and `model`; and a folder can have its name."""
    if not profile or "/" in profile or profile.startswith("."):
        raise ConfigError(f"{where}: [profiles.{profile!r}]: a profile must have a name that a folder can have")
    values = {**msgspec.structs.asdict(config.defaults), **keys}
    model = values.pop("model", config.model.name)
    try:
        msgspec.convert(values, Defaults)
        msgspec.convert(model, str)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_plain(str(error).replace('$', f'$.profiles.{profile}', 1))}") from error


def _check_apart(config: Config, where: str) -> None:
    """No folder of ours may lie in the inbox, nor the inbox in one of ours: we would eat our own output."""
    inbox = config.folder("inbox")
    ours = {part: config.folder(part) for part in ("outbox", "status", "done", "failed")}
    ours |= {"state": config.state, "models": config.models}
    if config.paths.work:
        ours["work"] = Path(config.paths.work)
    for part, folder in ours.items():
        if _lies_in(folder, inbox) or (_lies_in(inbox, folder)):
            raise ConfigError(f"{where}: [paths] {part} ({folder}) and inbox ({inbox}) must not lie in each other")
    for part in ("status", "done", "failed"):
        if _lies_in(ours[part], ours["outbox"]) or _lies_in(ours["outbox"], ours[part]):
            raise ConfigError(
                f"{where}: [paths] {part} ({ours[part]}) and outbox ({ours['outbox']}) must not lie in each other"
            )


def _lies_in(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or below it, by real path and, for bind mounts, by device and inode."""
    real_inner, real_outer = inner.resolve(), outer.resolve()
    if real_inner.is_relative_to(real_outer):
        return True
    if not real_outer.exists():
        return False
    return any(folder.exists() and folder.samefile(real_outer) for folder in (real_inner, *real_inner.parents))
