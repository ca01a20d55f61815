"""Workers in a cluster: Ray runs in a child process, which has the other end of each worker's line. Imports no ray.

    supervisor --a line each (a socket)--> worker/ray (the child) --Ray--> actors, on whichever machines

The child is started with the first worker, again where it is gone, and ends with the supervisor.
"""

import itertools
import socket
import subprocess

import msgspec

from demixd.config import Config
from demixd.spool import child_process
from demixd.supervisor.workers.line import Died, Line, Post, StartWorker
from demixd.supervisor.workers.process import WorkerProcess
from demixd.worker.ray.orders import Begin, Open

PROGRAM = child_process.python("demixd.worker.ray")

_numbers = itertools.count(-1, -1)


def starter(config: Config) -> StartWorker:
    """What starts the workers of a configuration."""
    return Cluster(config).start if config.ray.address else WorkerProcess


def restarting(config: Config, fresh: Config) -> str:
    """The part of a changed configuration that only a restart can take over; empty where there is none."""
    if fresh.paths != config.paths:
        return "[paths]"
    if fresh.ray != config.ray:
        return "[ray]"
    return "[model] device" if config.ray.address and fresh.model.device != config.model.device else ""


class Cluster:
    """The child process that speaks to the cluster."""

    def __init__(self, config: Config) -> None:
        self._begin = Begin.of(config)
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def start(self, post: Post, threads: int | None = None) -> Line:
        """A worker, as soon as a machine has room for it. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._open(theirs, threads)
            except BrokenPipeError:  # it ends
                self._line = None
                self._open(theirs, threads)
            except OSError:
                ours.close()
                raise
        return _Far(post, ours)

    def _open(self, theirs: socket.socket, threads: int | None) -> None:
        """Give the child its end of a worker's line. Raises OSError."""
        if self._line is None or self._child is None or self._child.poll() is not None:
            self._line = self._started()
        socket.send_fds(self._line, [msgspec.json.encode(Open(threads=threads))], [theirs.fileno()])

    def _started(self) -> socket.socket:
        """The line to a new child. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(PROGRAM, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        ours.send(msgspec.json.encode(self._begin))
        return ours


class _Far(Line):
    """A worker somewhere in the cluster."""

    def __init__(self, post: Post, ours: socket.socket) -> None:
        self._socket = ours
        super().__init__(next(_numbers), post, ours.makefile("rb"), ours.makefile("wb"))

    def resident_bytes(self) -> int | None:
        return None

    def kill(self) -> None:
        """Close the line: the child ends the actor then, and with it the worker."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def close(self) -> None:
        super().close()
        self._socket.close()

    def _hear(self) -> Died | None:
        try:
            return super()._hear()
        except ConnectionResetError:  # the child has ended with lines that it had not read
            return self._ended()

    def _ended(self) -> Died:
        return Died(self.pid, "the line to the cluster has ended", is_ours=True)
