"""The checks of a cluster (`[ray]`), without loading Ray: whether it can be reached, and the service may."""

import contextlib
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from demixd.cli.check.finding import Finding, Level
from demixd.config import DEFAULT_PATH, Config, chosen
from demixd.engine import host
from demixd.engine.models.configured import lacks_ray

PATIENCE_S = 2.0
"""How long the head of a cluster may take to answer."""


def checks(config: Config, file: Path | None) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Those of a configuration with a cluster; `file` is the one that the command line gives."""
    yield "ray", partial(_installed, config)
    if ":" in config.ray.address:
        yield "ray", partial(_head, config.ray.address)
    if config.ray.is_elsewhere:
        yield "ray", _token
        its = "each machine of the cluster has its own: `demixd check` there tells of its models and its device"
        yield "models", partial(Finding, Level.OK, "models", its)
    if closed := _closed_unit(chosen(file)[0]):
        how = f"{closed} may not reach the network, and Ray needs it: run `sudo systemd/install --ray`"
        yield "ray", partial(Finding, Level.FAIL, "ray", how)


def _installed(config: Config) -> Finding:
    """Which Ray there is, and what is asked of it."""
    if missing := lacks_ray(config):
        return Finding(Level.FAIL, "ray", missing)
    ray = config.ray
    which = {"local": "a cluster of this machine alone", "auto": "the cluster that this machine is in"}
    many = "a worker for each GPU of" if ray.workers == "gpus" else f"workers ({ray.workers}) in"
    if ray.address == "local" and config.model.device in ("auto", "cuda") and not host.has_nvidia():
        remedy = 'set [model] device = "cpu", and [ray] workers to a number'
        return Finding(Level.FAIL, "ray", f"{many} {which['local']}, and it has no NVIDIA GPU: {remedy}")
    versions = f"Ray {host.version_of('ray')} and Python {platform.python_version()}"
    alike = f"; each of its machines needs {versions}" if ray.is_elsewhere else f", with {versions}"
    return Finding(Level.OK, "ray", f"{many} {which.get(ray.address, f'the cluster at {ray.address}')}{alike}")


def _head(address: str) -> Finding:
    """Whether the cluster's head answers now; songs wait until it does."""
    name, _, port = address.rpartition(":")
    try:
        socket.create_connection((name.strip("[]"), int(port)), PATIENCE_S).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        return Finding(Level.NOTE, "ray", f"{address} does not answer now ({why}): songs wait until it does")
    return Finding(Level.OK, "ray", f"{address} answers")


def _token() -> Finding:
    """Whether this user has a token; only the cluster knows whether it is the right one."""
    if os.environ.get(host.RAY_TOKEN):
        return Finding(Level.OK, "ray", f"the token is that of ${host.RAY_TOKEN}")
    if (file := host.ray_token_file()).is_file():
        return Finding(Level.OK, "ray", f"the token is in {file}")
    how = "put that of the cluster there, or make the first one with `ray get-auth-token --generate`"
    return Finding(Level.NOTE, "ray", f"{file} is not there, and no cluster is entered without a token: {how}")


def _closed_unit(file: Path | None) -> str:
    """The service that goes by a configuration file, and may not reach the network; empty where none is known."""
    if file is None or file.parent != DEFAULT_PATH.parent:
        return ""
    unit = f"{file.stem}.service"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ("systemctl", "show", "--property=PrivateNetwork", "--value", "--", unit)
        if subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip() == "yes":
            return unit
    return ""
