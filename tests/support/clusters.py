"""Real Ray clusters on this machine: a head and nodes, each of which can be stopped, held, and killed."""

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemons import PATIENCE_S, ROOT

HOST = "127.0.0.2"
"""Ray takes 127.0.0.1 for the machine's other address, on which several nodes would be seen from elsewhere."""

STORE_BYTES = 80 << 20
"""Of each node's object store; Ray takes no less than 75 MiB."""

SOON = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1500",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
}
"""The head's environment, by which a node that does not answer counts as gone after some 10 s."""


def descendants(root: int) -> dict[int, str]:
    """A process and all that come of it: the command line of each, by its process id."""
    known: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known[int(path.name)] = (parent, words)
    found: dict[int, str] = {}
    for pid in sorted(known):
        above = pid
        while above in known and above != root:
            above = known[above][0]
        if above == root:
            found[pid] = known[pid][1]
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """The addresses on which these processes listen, in the kernel's digits (proc_net_tcp.txt)."""
    sockets = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(str(path.readlink()))
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {line[1].rpartition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


class Node:
    """`ray start --block`, and all processes that come of it."""

    def __init__(self, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def started(self) -> "Node":
        """Wait until it is a part of the cluster: of two that start at the same time Ray may lose one."""
        limit = time.monotonic() + PATIENCE_S
        while b"Ray runtime started" not in (said := self._log.read_bytes()):
            assert self.process.poll() is None and time.monotonic() < limit, said.decode()
            time.sleep(0.1)
        return self

    def processes(self) -> dict[int, str]:
        """The command line of each, by its process id."""
        return descendants(self.process.pid)

    def pids(self, of: str) -> list[int]:
        """Those whose command line holds the word."""
        return [pid for pid, line in self.processes().items() if of in line]

    @property
    def raylet(self) -> int:
        """The process that is the node to the cluster."""
        return next(pid for pid, line in self.processes().items() if line.split(" ")[0].endswith("/raylet"))

    def signal(self, number: signal.Signals, of: str = "") -> None:
        """Send a signal to all of them, or to those whose command line holds a word."""
        for pid in self.pids(of):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)


class Cluster:
    """A head without a place for a worker, and nodes with one pretended GPU each."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray"))  # paths of its sockets may not be long
        self._logs = (folder / f"ray{number}.log" for number in itertools.count())
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"{HOST}:{self.port}"
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "PYTHONPATH": str(ROOT / "daemon"),
            "TMPDIR": str(self._folder),
        }
        self.head: Node | None = None
        self.nodes: list[Node] = []

    def start(self) -> "Cluster":
        """Start the head; it answers before this comes back."""
        port = ["--head", f"--port={self.port}", "--num-gpus=0", "--num-cpus=0", "--include-dashboard=false"]
        self.head = self._node([*port, f"--temp-dir={self._folder}"], SOON).started()
        return self

    def add(self, **environment: str) -> Node:
        """Start another node; it is there before this comes back."""
        node = self._node([f"--address={self.address}", "--num-gpus=1", "--num-cpus=1"], environment).started()
        self.nodes.append(node)
        return node

    def _node(self, words: list[str], environment: dict[str, str]) -> Node:
        rest = [f"--node-ip-address={HOST}", f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats", "--block"]
        return Node(
            [str(Path(sys.executable).with_name("ray")), "start", *words, *rest],
            self.environment | environment,
            next(self._logs),
        )

    def remove(self, node: Node) -> None:
        node.end()
        self.nodes.remove(node)

    def stop(self) -> None:
        """Kill all of it; it can be started again."""
        for node in (*self.nodes, *([self.head] if self.head else [])):
            node.end()
        self.nodes.clear()
        self.head = None

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def cluster(folder: Path, nodes: int = 0) -> Iterator[Cluster]:
    """A cluster that ends afterwards."""
    one = Cluster(folder)
    try:
        one.start()
        for _ in range(nodes):
            one.add()
        yield one
    finally:
        one.end()
