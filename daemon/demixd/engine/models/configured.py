"""What a configuration asks of its models, as far as that is known before any is loaded: their names, and their stems.

And whether Ray is there, where it asks for a cluster.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from demixd.config import Config
from demixd.engine import host
from demixd.engine.models import header as weights_header
from demixd.engine.models import store
from demixd.engine.models.bag import SUFFIX
from demixd.engine.models.catalog import AUTO, DEFAULT, NEEDS_MIB, PUBLISHED, QUANTIZED, offered
from demixd.errors import AudioProcessingError, Code, ConfigError
from demixd.protocol.result_names import ONE_FILE, ONE_FILE_STEMS
from demixd.protocol.typed import did_you_mean, shown

log = logging.getLogger(__name__)


def checked(config: Config, where: str) -> Config:
    """`config` itself, of the file `where`. Raises ConfigError where every song of [defaults] or of a profile would fail.

    Or would wait for a cluster that nobody can look for. It warns where some songs would.
    """
    if wrong := lacks_ray(config) or next(faults(config), None):
        raise ConfigError(f"{where}: {wrong}")
    for doubt in doubts(config):
        log.warning("%s: %s", where, doubt)
    return config


def lacks_ray(config: Config) -> str:
    """The sentence about Ray that is not installed here and that the configuration needs; else empty."""
    if not config.ray.address or host.version_of("ray"):
        return ""
    how = "install it with `.venv/bin/python -m pip install --require-hashes --no-deps -r config/requirements-ray.lock`"
    return f"[ray] address = {shown(config.ray.address)}: Ray is not installed: {how}, for the service with systemd/install --ray"


def doubts(config: Config) -> Iterator[str]:
    """Sentences about options with which some songs fail, which only their own formats decide."""
    usual = msgspec.structs.asdict(config.defaults)
    for where, keys in (("[defaults]", {}), *((f"[profiles.{name}]", keys) for name, keys in config.profiles.items())):
        options = usual | keys
        if options["clip"] == "none" and (options["format"], options["bit_depth"]) != ("wav", "float"):
            yield (
                f'{where} clip = "none" needs float samples, and with format = {shown(options["format"])} and bit_depth = '
                f"{shown(options['bit_depth'])} not every song has such stems: one that has not fails as {Code.BAD_OPTIONS}; "
                'set format = "wav" and bit_depth = "float", or clip = "joint"'
            )


def faults(config: Config) -> Iterator[str]:
    """Sentences about models that there are not, and stems that a model does not have."""
    usual = msgspec.structs.asdict(config.defaults)
    yield from _faults("[model] name", "[defaults]", config.model.name, usual, config)
    for name, keys in config.profiles.items():
        where = f"[profiles.{name}]"
        yield from _faults(f"{where} model", where, keys.get("model", config.model.name), usual | keys, config)


def _faults(key: str, where: str, model: str, options: dict[str, Any], config: Config) -> Iterator[str]:
    if lacks(model, config):
        yield f"{key} = {shown(model)}: {_no_such(model, config)}"
    else:
        yield from (f"{where} {each}" for each in misfits(model, options["naming"], options["stems"], config))


def known(model: str, config: Config) -> str:
    """`model` itself. Raises BAD_OPTIONS where there certainly is none of that name, and for `auto`, which stands for several."""
    if model == AUTO:
        best = ", ".join(NEEDS_MIB)
        raise AudioProcessingError(Code.BAD_OPTIONS, f"{AUTO} is the best of {best} that fits: name one of them.")
    if lacks(model, config):
        raise AudioProcessingError(Code.BAD_OPTIONS, f"{model}: {_no_such(model, config)}")
    return model


def _no_such(model: str, config: Config) -> str:
    """The sentence about a model that there is not, after the word that names it."""
    if model in QUANTIZED:
        return f"it is packed by diffq, which is not supported; use {model.removesuffix('_q')}"
    bag, folder = f"{model}{SUFFIX}", config.repo or config.models
    if os.path.lexists(store.folder_of(model, repo=config.repo, models=config.models) / bag):
        return (
            f"there is no such model in {folder}; {bag} there is not a regular file: put the model's own in its place"
        )
    meant = did_you_mean(model, PUBLISHED) or ";"
    return f"there is no such model: Demucs publishes none, and {folder} has none{meant} `demixd models list` shows all"


def lacks(model: str, config: Config) -> bool:
    """Whether there is certainly no such model: Demucs publishes none of that name, and its folder has none.

    A folder of its own may be a share that is not mounted: if it is not there, or without any model, that says nothing. And
    the machines of a cluster have folders of their own.
    """
    if config.ray.is_elsewhere or store.is_known(model, repo=config.repo, models=config.models):
        return False
    try:
        there = [path.name for path in (config.repo or config.models).iterdir()]
    except FileNotFoundError:
        there = []
    except OSError:
        return False  # another user's folder, say
    return not (config.model.repo or config.paths.models) or any(each.endswith(SUFFIX) for each in there)


def why_missing(model: str, config: Config) -> str:
    """The sentence about a model that is certainly not there and that no daemon fetches at need; empty for any other.

    A daemon fetches those that its configuration names, and no more: anybody's option file names others.
    """
    if config.ray.is_elsewhere or model == AUTO or (model in config.named_models and config.repo is None):
        return ""
    try:
        (store.folder_of(model, repo=config.repo, models=config.models) / f"{model}{SUFFIX}").stat()
    except FileNotFoundError:
        try:
            store.Where.of(config, model).locate()
        except AudioProcessingError as error:
            return error.message
    except OSError:
        pass  # another user's folder, say
    return ""


def misfits(model: str, naming: str, stems: Iterable[str], config: Config) -> Iterator[str]:
    """A sentence, which begins with the key, for each stem, or the file of several, that the model certainly does not have."""
    parts = _stems_of(model, config)
    if naming == ONE_FILE:
        if parts is not None and model != AUTO and sorted(parts) != sorted(ONE_FILE_STEMS):
            holds = f"such a file holds {', '.join(ONE_FILE_STEMS)}"
            yield f"naming = {shown(naming)}: {holds}, and {model} has {', '.join(parts)}; take {DEFAULT}"
        return
    there = offered(parts or ())
    for stem in stems if parts is not None else ():
        if stem not in there:
            meant = did_you_mean(stem, there) or "."
            yield f"stems has {shown(stem)}: {model} has no such stem{meant} There are {', '.join(there)}"


def _stems_of(model: str, config: Config) -> Sequence[str] | None:
    """The parts of a model: the catalogue's, or those that its first file tells; None where it is not there, or tells none."""
    if model == AUTO:
        return PUBLISHED["htdemucs_6s"].stems
    if model in PUBLISHED and config.repo is None:
        return PUBLISHED[model].stems
    try:
        return _told(store.Where.of(config, model).locate().members[0].path)
    except (AudioProcessingError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # whoever loads it says what is wrong with it


def _told(path: Path) -> Sequence[str] | None:
    """The sources in the header of a safetensors file (see `families/demucs.py`)."""
    header = weights_header.read(path)
    sources = json.loads(header["__metadata__"]["kwargs"])["sources"]
    return sources if isinstance(sources, list) and all(isinstance(each, str) for each in sources) else None
