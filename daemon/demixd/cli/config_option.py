"""The option `--config FILE`, before or after any command: `demixd --config FILE status`, `demixd status --config FILE`."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import click

from demixd import config as configuration
from demixd.cli.console import complain
from demixd.config import Config
from demixd.errors import ConfigError
from demixd.protocol.status import ConfigurationFacts, DaemonStatus
from demixd.protocol.typed import ended
from demixd.spool.tree import DAEMON, Spool

P = ParamSpec("P")
T = TypeVar("T")

_FILE, _MISTAKE = f"{__name__}.file", f"{__name__}.mistake"
"""Keys in `click.Context.meta`, which a command shares with the group that it belongs to."""

UNITS = Path("/etc/systemd/system")

_WITHOUT_PATHS = (
    "Mend it: until then nobody knows the folders, and no command works. A daemon that runs goes on, and files alone still "
    "reach it: a song that is put into its inbox, and NAME.cancel there"
)


def _remember(context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> None:
    """Keep the file for `chosen_file`. Raises UsageError where another one was given before."""
    for file in files:
        first = context.meta.setdefault(_FILE, file)
        try:
            is_same = os.path.realpath(first) == os.path.realpath(file)
        except OSError as error:
            raise click.UsageError(f"--config {file}: the working directory is gone: give an absolute path.") from error
        if not is_same:
            raise click.UsageError(f"--config is given twice, with {first} and with {file}: give one file.")


config_option = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    expose_value=False,
    callback=_remember,
    help="Configuration file (TOML); also before the command.",
)


def chosen_file() -> Path | None:
    """The file that the command line gives; None where it gives none."""
    file: Path | None = click.get_current_context().meta.get(_FILE)
    return file


def start_command() -> str:
    """What starts the daemon of this configuration: its service where systemd/install has made one, which leaves this file."""
    file, _ = configuration.chosen(chosen_file())
    name = file.stem if file is not None and file.parent == configuration.DEFAULT_PATH.parent else ""
    is_installed = name and (UNITS / f"{name}.service.d" / "50-paths.conf").exists()
    return f"sudo systemctl start {name}" if is_installed else "demixd run"


def configured(command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    """Let a command take `--config`, and get the configuration as its first argument. The command raises ConfigError."""
    return _with(configuration.load, command)


def with_folders(command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    """The same for a command that works by files alone: it goes on where nothing but the folders can be read.

    A daemon goes on as well, by the configuration that it has read before somebody made the mistake.
    """
    return _with(_load_what_can_be, command)


def mistake() -> str:
    """What is wrong with the configuration where the command has got the folders alone; else empty."""
    told: str = click.get_current_context().meta.get(_MISTAKE, "")
    return told


def source() -> str:
    """The file of the configuration, as errors name it."""
    return str(configuration.chosen(chosen_file())[0] or configuration.BUILT_IN)


def is_here(config: Config) -> bool:
    """Whether this is the daemon's machine, as far as its folders tell."""
    return os.path.isdir(config.repo or config.state)  # noqa: PTH112 - false where nobody may look


def _load_what_can_be(file: Path | None) -> Config:
    try:
        config = configuration.load(file)
    except ConfigError as error:
        try:
            folders = configuration.load(file, only="paths")
        except ConfigError:
            raise ConfigError(f"{ended(str(error))} {_WITHOUT_PATHS}") from None
        click.get_current_context().meta[_MISTAKE] = str(error).rstrip(".")
        complain(f"demixd: warning: {ended(str(error))} Until that is mended, only [paths] counts here")
        return folders
    found, why = configuration.chosen(file)
    if found is None and not Path(config.paths.spool).is_dir():
        complain(f"demixd: warning: this goes by {why}: give the configuration that the daemon has")
    if not _warn_of_models(config) and found is not None and _is_unread(config, found):
        remedy = "`sudo systemctl reload demixd` if it is the service, `kill -HUP PID` if it has no terminal, else start it again"
        complain(f"demixd: warning: the daemon has not read what {found} says now, and goes by the old: {remedy}")
    return config


def _warn_of_models(config: Config) -> bool:
    """Warn where the configuration asks its models for something that they have not; whether it does.

    A daemon does not start so, and one that runs goes on by what it read before. On another machine the answer is its own.
    """
    from demixd.engine.models.configured import faults

    if wrong := next(faults(config), None) if is_here(config) else None:
        wrong = f"{source()}: {ended(wrong)}"
        click.get_current_context().meta[_MISTAKE] = wrong.rstrip(".")
        complain(f"demixd: warning: {wrong} No daemon starts with that, and one that runs goes on by the old")
    return bool(wrong)


def _is_unread(config: Config, file: Path) -> bool:
    """Whether a daemon runs here that goes by another content of this file. Of a file on another machine there is no telling."""
    from demixd.client.liveness import is_absent
    from demixd.spool import documents
    from demixd.spool.processes import this_process

    spool, here = Spool(config), this_process()
    daemon = documents.read(spool.status / DAEMON, DaemonStatus, largest=documents.LARGEST_LIST)
    if daemon is None or (daemon.process.boot, daemon.process.namespace) != (here.boot, here.namespace):
        return False
    now = ConfigurationFacts.of(os.path.realpath(file), config.daemons)
    return daemon.configuration.file == now.file and daemon.configuration != now and not is_absent(spool)


def _with(load: Callable[[Path | None], Config], command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    @config_option
    @wraps(command)
    def with_configuration(*args: P.args, **kwargs: P.kwargs) -> T:
        return command(load(chosen_file()), *args, **kwargs)

    return with_configuration
