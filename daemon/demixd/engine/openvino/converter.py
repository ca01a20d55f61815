"""Has a model converted by `convert`, a process of its own, and waits for it. No torch here: commands convert too."""

import os
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.engine import cache, host
from demixd.engine.cache import Conversion
from demixd.engine.models import store
from demixd.engine.models.store import ModelFiles, Where
from demixd.spool import child_process

PROGRAM = child_process.python("demixd.engine.openvino.convert")

ROOM_BYTES = 2 << 30
ROOM_FACTOR = 6
"""Free memory that a conversion needs: so many bytes, and so many times the model's files. htdemucs (168 MB) takes 1.7 GB."""

GRAPHICS = "openvino:GPU"
"""`[model] device` for Intel's graphics."""

LIMIT_S = 600.0
"""A conversion that takes longer is ended. It takes 20 s for htdemucs on two cores."""


class ConversionError(Exception):
    """The model was not converted; the text says why."""


def is_installed() -> bool:
    """Whether OpenVINO is installed. Imports nothing of it."""
    try:
        version("openvino")
    except PackageNotFoundError:
        return False
    return True


def serves(config: Config) -> bool:
    """Whether a daemon of this configuration would run the models that were fetched by OpenVINO, as far as is known here."""
    device = config.model.device
    return is_installed() and not config.repo and (device == GRAPHICS or (device == "auto" and not host.has_nvidia()))


def in_advance(config: Config, files: ModelFiles) -> str:
    """Convert a model right after it was fetched, so that no song has to wait for it; the outcome in words."""
    order = Conversion(model=Where.of(config, files.name), sha256=store.verify(files), folder=str(config.compiled))
    if config.state.exists() and config.state.stat().st_uid != os.geteuid():
        # Who could not write into what we made there, and may have put links into it.
        return f"{config.state} is another user's, whose daemon converts it for OpenVINO when it first uses it"
    reason = reason_not(order, files)
    began = time.monotonic()
    try:
        if reason is None:
            convert(order)
    except ConversionError as error:
        reason = str(error)
    if reason is not None:
        return f"not converted for OpenVINO: {reason}"
    return f"converted for OpenVINO in {time.monotonic() - began:.0f} s"


def reason_not(order: Conversion, files: ModelFiles) -> str | None:
    """Why the conversion should not be begun; None where it may, or is there already."""
    if cache.find(Path(order.folder), cache.key(order.sha256)) is not None:
        return None
    size = sum(path.stat().st_size for path in {member.path for member in files.members})
    needed, room = ROOM_BYTES + ROOM_FACTOR * size, host.room()
    if room >= needed:
        return None
    return f"converting {files.name} takes {needed / 1e9:.1f} GB of free memory, and there are {room / 1e9:.1f}"


def convert(order: Conversion) -> Path:
    """The folder of the conversion. Where it is not there yet it is made, which takes half a minute.

    Raises `ConversionError`. The process that converts ends with the *thread* that calls this (PR_SET_PDEATHSIG), and with
    any exception in it.
    """
    root, key = Path(order.folder), cache.key(order.sha256)
    if (folder := cache.find(root, key)) is not None:
        return folder
    pipe = subprocess.PIPE
    with subprocess.Popen(PROGRAM, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        try:
            said, _ = child_process.communicate(process, msgspec.json.encode(order) + b"\n", LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ConversionError(f"the conversion took longer than {LIMIT_S:.0f} s") from error
        finally:
            process.kill()
            process.wait()  # `subprocess.run` does not after Ctrl-C, and only an ended process gives its lock back
            cache.tidy(root, time.time())
    folder = cache.find(root, key)
    if process.returncode or folder is None:
        raise ConversionError(_last_line(said) or f"the conversion ended with status {process.returncode}")
    return folder


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
