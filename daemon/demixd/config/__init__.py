"""The configuration: one TOML file, read once, whose keys are all checked before any model is loaded.

The file is that of `--config`, else of `$DEMIXD_CONFIG`, else /etc/demixd/demixd.toml; without one, the defaults below count.
`config/demixd.toml` has every key with its default.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import tomli

from demixd.config.apart import check_apart
from demixd.config.sections import Hooks, Inbox, Limits, Log, Model, Paths, Status, Web
from demixd.errors import ConfigError
from demixd.protocol import devices
from demixd.protocol.inbox_names import kind_of_folder
from demixd.protocol.options import Defaults, JobOptions, ModelName, Options, effective
from demixd.protocol.result_names import holdable
from demixd.protocol.schedule import Schedule
from demixd.protocol.typed import no_such_key, shown, shown_key, typed

DEFAULT_PATH, BUILT_IN = Path("/etc/demixd/demixd.toml"), "the built-in defaults"
BESIDE = Path(__file__).parents[3] / "models"
"""The models of an installed program, which only root writes: the installer makes this folder, beside `daemon`."""

_PROFILE = re.compile(r"[^\W_]([\w -]{0,58}[\w-])?")


class _Profile(Defaults, frozen=True):
    model: ModelName = ""


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
    hooks: Hooks = Hooks()
    web: Web = Web()
    log: Log = Log()

    @property
    def daemons(self) -> "Config":
        """What the daemon goes by: all but the sections of its companions."""
        return msgspec.structs.replace(self, hooks=Hooks(), web=Web())

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
        _check_path("[hooks] folder", config.hooks.folder)
        config.ray.check(config.model.device)
        for profile, keys in config.profiles.items():
            _check_profile(profile, keys, config)
        parts = {part: config.folder(part) for part in ("inbox", "outbox", "status", "done", "failed")}
        work = Path(config.paths.work or config.state / "work")
        check_apart(config.paths, parts, {"state": config.state, "models": config.models, "work": work})
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
