"""A real Samba server of a test's own, which shares one folder, and its clients as writers in the sense of writers.py."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from programs import fed, fed_and_killed
from writers import Parts, Writer, length

PASSWORD = secrets.token_hex(8)
PUT = Path(__file__).with_name("smb_put.py")

WHAT_IS_MISSING = next(
    (
        why
        for there, why in (
            (os.geteuid() == 0, "needs root: sudo tests/run"),
            (shutil.which("smbd"), "needs smbd: apt-get install samba"),
            (shutil.which("smbclient"), "needs smbclient: apt-get install smbclient"),
            (importlib.util.find_spec("smbprotocol"), "needs smbprotocol: tests/run installs it"),
        )
        if not there
    ),
    None,
)
"""Why there can be no server here; None where there can."""

CONFIGURATION = """[global]
    server role = standalone server
    interfaces = 127.0.0.1
    bind interfaces only = yes
    smb ports = {port}
    disable netbios = yes
    load printers = no
    disable spoolss = yes
    logging = file
    log file = {folder}/log
    passdb backend = tdbsam:{folder}/private/passdb.tdb
    private dir = {folder}/private
    lock directory = {folder}/lock
    state directory = {folder}/state
    cache directory = {folder}/cache
    pid directory = {folder}/pid
    ncalrpc dir = {folder}/ncalrpc
[inbox]
    path = {share}
    read only = no
"""


class Server:
    """It shares `share` as `inbox` on a port of 127.0.0.1."""

    def __init__(self, folder: Path, share: Path, port: int) -> None:
        self.share, self.port = share, port
        self.configuration = folder / "smb.conf"
        for each in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
            (folder / each).mkdir(parents=True)
        self.configuration.write_text(CONFIGURATION.format(port=port, folder=folder, share=share))

    def client(self, command: str) -> list[str]:
        """smbclient(1), told to do one thing."""
        user, port = f"root%{PASSWORD}", str(self.port)
        return ["smbclient", "//127.0.0.1/inbox", "-s", str(self.configuration), "-p", port, "-U", user, "-c", command]

    def below(self, path: Path) -> str:
        """A path as the server's clients spell it."""
        return str(path.relative_to(self.share)).replace("/", "\\")

    def put(self, path: Path, *size: int) -> list[str]:
        unc = rf"\\127.0.0.1\inbox\{self.below(path)}"
        return ["env", f"SMB_PASSWORD={PASSWORD}", sys.executable, str(PUT), str(self.port), unc, *map(str, size)]


@contextlib.contextmanager
def serving(folder: Path, share: Path) -> Iterator[Server]:
    """A server that listens. Of its processes nothing is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, share, free.getsockname()[1])
    words = ["pdbedit", "-s", str(server.configuration), "--create", "--password-from-stdin", "--user=root"]
    subprocess.run(words, input=f"{PASSWORD}\n{PASSWORD}\n".encode(), check=True, capture_output=True)
    words = ["smbd", "--foreground", "--no-process-group", f"--configfile={server.configuration}"]
    # Ending, it ends its whole group of processes, which must not be ours.
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    ) as smbd:
        try:
            limit = time.monotonic() + 60
            while not _listens(server.port):
                assert smbd.poll() is None, "smbd has ended"
                assert time.monotonic() < limit, "smbd does not listen"
                time.sleep(0.05)
            yield server
        finally:
            smbd.terminate()
            smbd.wait(timeout=60)


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def clients(server: Server) -> dict[str, Writer]:
    """Ways to bring a whole song."""

    def presized(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        yield from fed(lambda path: server.put(path, length(parts)))(path, parts)

    def renamed(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        part = path.with_name(f"{path.name}.part")
        old, new = server.below(part), server.below(path)
        yield from fed(lambda _: server.client(f'put - "{old}"'))(path, parts)
        subprocess.run(server.client(f'rename "{old}" "{new}"'), check=True, capture_output=True)

    return {
        "smbclient": fed(lambda path: server.client(f'put - "{server.below(path)}"')),
        "smbclient, renamed": renamed,
        "SMB, bit by bit": fed(server.put),
        "SMB, pre-sized": presized,
    }


def clients_that_go_away(server: Server) -> dict[str, Writer]:
    """The connection breaks before the last part is there."""

    def presized(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        # A block that was written is beside the hole: of the size alone it cannot be told how far it got.
        yield from fed_and_killed(lambda path: server.put(path, length(parts)))(path, parts)

    return {"SMB, broken off": fed_and_killed(server.put), "SMB, pre-sized and broken off": presized}
