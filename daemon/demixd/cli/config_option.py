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

P = ParamSpec("P")
T = TypeVar("T")

_FILE, _MISTAKEN = f"{__name__}.file", f"{__name__}.mistaken"
"""Keys in `click.Context.meta`, which a command shares with the group that it belongs to."""


def _remember(context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> None:
    """Keep the file for `chosen_file`. Raises UsageError where another one was given before."""
    for file in files:
        first = context.meta.setdefault(_FILE, file)
        if os.path.realpath(first) != os.path.realpath(file):
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


def configured(command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    """Let a command take `--config`, and get the configuration as its first argument. The command raises ConfigError."""
    return _with(configuration.load, command)


def with_folders(command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    """The same for a command that works by files alone: it goes on where nothing but the folders can be read.

    A daemon goes on as well, by the configuration that it has read before somebody made the mistake.
    """
    return _with(_load_what_can_be, command)


def is_mistaken() -> bool:
    """Whether the command has got the folders alone, and the rest of the configuration is not known."""
    return bool(click.get_current_context().meta.get(_MISTAKEN))


def _load_what_can_be(file: Path | None) -> Config:
    try:
        return configuration.load(file)
    except ConfigError as error:
        try:
            folders = configuration.load(file, only="paths")
        except ConfigError:
            raise error from None
        click.get_current_context().meta[_MISTAKEN] = True
        complain(f"demixd: warning: {error}; until that is mended, only [paths] counts here")
        return folders


def _with(load: Callable[[Path | None], Config], command: Callable[Concatenate[Config, P], T]) -> Callable[P, T]:
    @config_option
    @wraps(command)
    def with_configuration(*args: P.args, **kwargs: P.kwargs) -> T:
        return command(load(chosen_file()), *args, **kwargs)

    return with_configuration
