"""What `demixd submit` drops: looked at whole before the first song is, so that a mistake costs nothing."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from demixd.cli import client
from demixd.cli.client import RefusedError
from demixd.config import Config
from demixd.engine.models import store
from demixd.protocol import options
from demixd.protocol.inbox_names import Kind, kind_of_file, kind_of_folder
from demixd.spool.tree import Spool

TEXTS = frozenset({"model", "profile", "naming", "tag"})
"""Options whose value is a text, also where it looks like a number."""


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """`song` becomes `name`, its path below the inbox."""

    song: Path
    name: str
    options: bytes | None


def wanted(given: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The options of a command line: those given by name, then KEY=VALUE, with VALUE as JSON or, if it is none, a text."""
    found = {key: _value(key, value) for key, value in given.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RefusedError(f"--set {setting}: write KEY=VALUE, such as --set overlap=0.5")
        if key in found:
            raise RefusedError(f"{key} is given twice")
        found[key] = _value(key, value)
    return found


def _value(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key in TEXTS:
        return value
    if key == "stems" and not value.startswith("["):
        return [stem.strip() for stem in value.split(",")]
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


def plan(
    config: Config, spool: Spool, songs: Sequence[Path], *, folder: str = "", wishes: Mapping[str, Any]
) -> list[Drop]:
    """What is to be dropped, once all of it can be. Raises RefusedError, or BAD_OPTIONS."""
    if not spool.inbox.is_dir():
        raise RefusedError(f"{spool.inbox} is not there: is the spool mounted, and has `demixd run` been started?")
    below = _folder(config, folder)
    data = _encoded(wishes) if wishes else None
    seen: dict[str, Path] = {}
    for song in songs:
        _check_song(song)
        name = f"{below}{song.name}"
        if name in seen:
            raise RefusedError(
                f"{seen[name]} and {song} would have one name in the inbox: rename one, or submit it with --to FOLDER"
            )
        seen[name] = song
        _check_free(spool, name, has_options=data is not None)
        if data is not None:
            config.options_of(name, options.parse(data), lambda model: _is_known(config, model))
    return [Drop(song=song, name=name, options=data) for name, song in seen.items()]


def _folder(config: Config, folder: str) -> str:
    """The part of the name that goes before the song's: a folder of the inbox that is walked."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if folder.startswith("/") or ".." in parts:
        raise RefusedError(f"--to {folder}: it must be a folder below the inbox, such as karaoke")
    if parts and not config.inbox.recursive:
        raise RefusedError(f"--to {folder}: [inbox] recursive is false, so that no folder of the inbox is looked into")
    for part in parts:
        if reason := kind_of_folder(part):
            raise RefusedError(
                f"--to {folder}: folders called {part} are not looked into ({reason}): choose another name"
            )
    return "".join(f"{part}/" for part in parts)


def _encoded(wishes: Mapping[str, Any]) -> bytes:
    try:
        data = msgspec.json.encode(wishes)
    except UnicodeEncodeError:
        raise RefusedError("An option holds bytes that are not UTF-8, which JSON cannot carry.") from None
    options.parse(data)
    return data + b"\n"


def _check_song(song: Path) -> None:
    kind = kind_of_file(song.name)
    if kind is not Kind.SONG:
        raise RefusedError(f"{song}: {kind}: the daemon would leave it in the inbox; convert or rename it")
    try:
        # Opening a pipe would wait for its writer.
        with open(os.open(song, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"):  # noqa: PTH123 - a descriptor
            pass
    except OSError as error:
        raise RefusedError(f"{song}: {error.strerror}") from error
    if not song.is_file():
        raise RefusedError(f"{song}: it is no file")


def _check_free(spool: Spool, name: str, *, has_options: bool) -> None:
    if os.path.lexists(spool.song(name)):
        raise RefusedError(_taken(name))
    if has_options and os.path.lexists(spool.options(name)):
        raise RefusedError(f"{spool.options(name)} is there already, with other options: delete it first")


def _taken(name: str) -> str:
    """The sentence about a name that the inbox has already."""
    return (
        f"The inbox has {name} already: wait until it is done, stop it (`demixd cancel`) and delete it, rename yours, "
        "or submit it with --to FOLDER"
    )


def _is_known(config: Config, model: str) -> bool:
    """Whether the model is one; where the daemon's models are not ours to see, it will tell."""
    try:
        return not (config.repo or config.state).is_dir() or store.is_known(
            model, repo=config.repo, models=config.models
        )
    except OSError:
        return True


def drop(spool: Spool, each: Drop) -> None:
    """Put it into the inbox. Raises RefusedError."""
    try:
        client.drop(spool, each.song, each.name, each.options)
    except FileExistsError as error:
        _check_free(spool, each.name, has_options=each.options is not None)
        raise RefusedError(_taken(each.name)) from error
    except OSError as error:
        raise RefusedError(f"{each.song}: {error.strerror}: {error.filename2 or error.filename}") from error
