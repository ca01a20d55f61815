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
from demixd.cli.check.folders import is_hidden
from demixd.config import DEFAULT_PATH, Config, chosen
from demixd.engine import host
from demixd.engine.models.configured import lacks_ray
from demixd.spool.processes import runs

PATIENCE_S = 2.0
"""How long the head of a cluster may take to answer."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The beginning of each side of HTTP/2 is a frame SETTINGS, the client's after a line of its own (RFC 9113, 3.4)."""


def checks(config: Config, file: Path | None) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Those of a configuration with a cluster; `file` is the one that the command line gives."""
    yield "ray", partial(_installed, config)
    if ":" in config.ray.address:
        yield "ray", partial(_head, config.ray.address)
    if config.ray.is_elsewhere:
        yield "ray", partial(_node, config.ray.address)
        yield "ray", _token
        yield from (("ray", partial(_mapped, config, here)) for here, _ in config.ray.path_map)
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
        with socket.create_connection((name.strip("[]"), int(port)), PATIENCE_S) as line:
            is_head = _speaks_http2(line)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        return Finding(Level.NOTE, "ray", f"{address} does not answer now ({why}): songs wait until it does")
    if is_head:
        return Finding(Level.OK, "ray", f"{address} answers, as the head of a cluster does")
    how = "give the address of `ray start --head`; songs wait until one is there"
    return Finding(
        Level.NOTE, "ray", f"something is at {address}, and it does not answer as the head of a cluster: {how}"
    )


def _speaks_http2(line: socket.socket) -> bool:
    """Whether the other side speaks HTTP/2, as all servers of Ray's (gRPC) do; others hang up, say nothing or something else."""
    with contextlib.suppress(OSError):
        line.sendall(PREFACE)
        return line.recv(9)[3:] == PREFACE[-6:]  # any length, SETTINGS, no flag, stream 0
    return False


def _node(address: str) -> Finding:
    """Whether a node runs here: a daemon gets into a cluster by that of its own machine."""
    if runs("raylet"):
        return Finding(
            Level.OK, "ray", "a node of a cluster runs on this machine; whether it is this one's, the daemon says"
        )
    where = address if ":" in address else "HOST:PORT"
    how = f"start the cluster's head here, or `ray start --address={where} --num-cpus=0 --num-gpus=0 --block`"
    return Finding(Level.NOTE, "ray", f"no node of a cluster runs on this machine: songs wait until one does; {how}")


def _token() -> Finding:
    """Whether this user has a token."""
    unknown = "whether it is the right one, only the cluster knows"
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        asked = "$RAY_AUTH_MODE is disabled: whoever reaches such a cluster runs any program on its machines"
        return Finding(Level.NOTE, "ray", asked)
    if os.environ.get(host.RAY_TOKEN):
        return Finding(Level.OK, "ray", f"the token is that of ${host.RAY_TOKEN}; {unknown}")
    if (file := host.ray_token_file()).is_file() and file.read_bytes().strip():
        return Finding(Level.OK, "ray", f"the token is in {file}; {unknown}")
    how = "put that of the cluster there, or make the first one with `ray get-auth-token --generate`"
    return Finding(Level.FAIL, "ray", f"{file} has no token, and no cluster is entered without one: {how}")


def _mapped(config: Config, here: str) -> Finding:
    """Whether the first path of a pair of `path_map` is one of this machine by which any of the daemon's is translated."""
    ours = [str(each) for each in (*map(config.folder, ("inbox", "outbox")), config.repo or config.models)]
    inside, folder = [each for each in ours if Path(each).is_relative_to(here)], Path(here)
    lacks = "" if inside else "none of the daemon's folders is in it, as they are configured"
    if not is_hidden(folder) and not folder.is_dir():
        lacks = "there is no such folder here"
    if not lacks:
        return Finding(Level.OK, "ray", f"[ray] path_map has {here}, with {', '.join(inside)}")
    how = f"the first path of a pair has to be one of {', '.join(ours)}, or a folder above"
    return Finding(Level.NOTE, "ray", f"[ray] path_map has {here}, and {lacks}: {how}")


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
