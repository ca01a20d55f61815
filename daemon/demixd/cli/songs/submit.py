"""`demixd submit`: drops songs. All of them are checked before the first one is dropped, so that a mistake costs nothing."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from demixd.cli.config_option import is_here
from demixd.cli.console import complain
from demixd.cli.songs.follow import Follower
from demixd.client import actions
from demixd.config import Config
from demixd.engine.models import configured
from demixd.errors import AudioProcessingError, BadWordError, RefusedError
from demixd.protocol import options
from demixd.protocol.inbox_names import Kind, kind_of_file, kind_of_folder
from demixd.protocol.typed import shown
from demixd.spool.files import sha256_of
from demixd.spool.tree import DEEPEST, LONGEST_PATH, Spool, is_too_deep

TEXTS = frozenset({"model", "profile", "naming", "tag"})
"""Options whose value stays text even if it looks like a number."""


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """The file `song`, to be dropped as `name`, a path below the inbox, with the content of its option file."""

    song: Path
    name: str
    options: bytes | None


def song_options(given: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The options of a song from its command line: `given` by name, where None is not given, and `settings` KEY=VALUE.

    Raises BadWordError.
    """
    found = {key: _value(key, value) for key, value in given.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadWordError(f"--set {setting}: write KEY=VALUE, such as --set overlap=0.5")
        if key in found:
            raise BadWordError(f"{key} is given twice")
        found[key] = _value(key, value)
    return found


def _value(key: str, value: Any) -> Any:
    """A text that is JSON as the value that it spells; any other as it is."""
    if not isinstance(value, str) or key in TEXTS:
        return value
    if key == "stems" and not value.startswith("["):
        return [stem.strip() for stem in value.split(",")]
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


def plan(
    config: Config | None, spool: Spool, songs: Sequence[Path], *, folder: str = "", chosen: Mapping[str, Any]
) -> list[Drop]:
    """One drop for each song, into `folder` below the inbox and with the options `chosen`; without a `config`, they are parsed.

    It warns of a model for which they would wait. Raises RefusedError if a song cannot be dropped, and BadWordError where no
    song could be with these options.
    """
    if not spool.inbox.is_dir():
        raise RefusedError(f"{spool.inbox} is not there: mount the spool, or start `demixd run` once, which makes it")
    below = _folder(config, folder)
    data = _encoded(chosen) if chosen else None
    seen: dict[str, Path] = {}
    for song in songs:
        _check_song(song, has_stems="stems" in chosen)
        if config is not None and (told := config.limits.too_large(song.stat().st_size)):
            raise RefusedError(f"{song}: {told.rstrip('.')}: raise it, or cut the song")
        name = f"{below}{song.name}"
        if name in seen:
            raise RefusedError(
                f"{seen[name]} and {song} would have the same name in the inbox: rename one, or submit it with --to FOLDER"
            )
        seen[name] = song
        _check_free(spool, name, has_options=data is not None)
        if data is not None:
            _check_options(config, name, song, data)
    asked = chosen.get("model") if config is not None and is_here(config) else None
    if config is not None and asked and (told := configured.why_missing(asked, config)):
        complain(f"demixd: warning: {told.rstrip('.')}: until then what is submitted waits")
    return [Drop(song=song, name=name, options=data) for name, song in seen.items()]


def _check_options(config: Config | None, name: str, song: Path, data: bytes) -> None:
    """Raise BadWordError where the song would fail, or wait for ever, for its options."""
    try:
        chosen = options.parse(data)
        if config is not None:
            found = config.options_of(name, chosen, lambda model: not _is_lacking(config, model))
            if wrong := next(configured.misfits(found.model, found.naming, found.stems, config), None):
                raise options.bad(wrong)
        if (wanted := chosen.own.wait_for_sha256) is not None:
            with song.open("rb") as file:
                if (sha256 := sha256_of(file)) != wanted:
                    raise options.bad(f"wait_for_sha256 = {shown(wanted)}: {song} has the sha256 {sha256}")
    except AudioProcessingError as error:
        raise BadWordError(error.message) from error


def _folder(config: Config | None, folder: str) -> str:
    """The prefix of the names of songs in `folder`. Raises BadWordError where the daemon would not look into it."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if folder.startswith("/") or ".." in parts:
        raise BadWordError(f"--to {folder}: it must be a folder below the inbox, such as karaoke")
    if parts and config is not None and not config.inbox.recursive:
        raise BadWordError(f"--to {folder}: the daemon looks into no folder of the inbox: set [inbox] recursive = true")
    for part in parts:
        if reason := kind_of_folder(part):
            raise BadWordError(
                f"--to {folder}: the daemon does not look into folders called {part} ({reason}): choose another name"
            )
    if parts and is_too_deep("/".join(parts)):
        raise BadWordError(
            f"--to {folder}: the daemon looks into no more than {DEEPEST} folders within each other, and no path of "
            f"more than {LONGEST_PATH} bytes: choose a shorter one"
        )
    return "".join(f"{part}/" for part in parts)


def _encoded(chosen: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(chosen) + b"\n"
    except UnicodeEncodeError:
        raise BadWordError("An option holds bytes that are not UTF-8: JSON cannot carry them") from None


def _check_song(song: Path, *, has_stems: bool) -> None:
    if song.is_dir():
        raise RefusedError(f"{song} is a folder: name the songs in it, or copy it into the inbox (`cp -r`) as it is")
    if not os.path.lexists(song):
        several = "; several stems have commas between them: --stems vocals,drums" if has_stems else ""
        raise RefusedError(f"{song}: there is no such file{several}")
    kind = kind_of_file(song.name)
    if kind is not Kind.SONG:
        raise RefusedError(f"{song}: the daemon would leave it in the inbox ({kind}): convert or rename it")
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        with open(os.open(song, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"):  # noqa: PTH123 - a descriptor
            pass
    except OSError as error:
        raise RefusedError(f"{song}: {error.strerror}") from error
    if not song.is_file():
        raise RefusedError(f"{song}: this is not a file")
    if not song.stat().st_size:
        raise RefusedError(f"{song} is empty: the daemon would wait for its sound for ever; copy it again")


def _check_free(spool: Spool, name: str, *, has_options: bool) -> None:
    if os.path.lexists(spool.song(name)):
        raise RefusedError(_taken(name))
    if has_options and os.path.lexists(spool.options(name)):
        raise RefusedError(f"{spool.options(name)} holds options already: delete it first")


def _taken(name: str) -> str:
    return (
        f"The inbox has {name} already: wait until it is done, stop it (`demixd cancel`) and delete it, rename yours, "
        "or submit it with --to FOLDER"
    )


def _is_lacking(config: Config, model: str) -> bool:
    """Whether there is no such model. On another machine than the daemon's, the answer is left to the daemon."""
    return configured.lacks(model, config) and is_here(config)


def drop(spool: Spool, drops: Iterable[Drop]) -> Iterator[Follower]:
    """Drop the songs in turn; a follower for each. Raises RefusedError, which names the songs that were dropped before."""
    dropped: list[str] = []
    for each in drops:
        follower = Follower(spool, each.name)
        try:
            _drop(spool, each)
        except RefusedError as error:
            before = f"; dropped before it: {', '.join(dropped)}" if dropped else ""
            raise RefusedError(f"{error}{before}") from error
        dropped.append(each.name)
        yield follower


def _drop(spool: Spool, each: Drop) -> None:
    try:
        actions.drop(spool, each.song, each.name, each.options)
    except FileExistsError as error:
        _check_free(spool, each.name, has_options=each.options is not None)
        raise RefusedError(_taken(each.name)) from error
    except OSError as error:
        raise RefusedError(f"{each.song}: {error.strerror}: {error.filename2 or error.filename}") from error
