"""The supervisor's child that speaks to a cluster: `python -m demixd.worker.ray`, with a socket as its standard input.

It ends with its input. What Ray itself prints goes to nobody: of a cluster that is away it says so once a second.
"""

import faulthandler
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys

import msgspec

from demixd.engine import host
from demixd.worker.ray.orders import Begin


def environment(address: str) -> dict[str, str]:
    """What Ray has to find in its environment before it is loaded."""
    found = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_BACKEND_LOG_LEVEL": "error",  # it warns every second of a cluster that is away
        # Seconds. A cluster that does not answer is found out here, by `Cluster.keep`; these are for what still waits then.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
        "RAY_gcs_server_request_timeout_seconds": "5",
    }
    if address == "local":
        found[host.RAY_TOKEN] = secrets.token_hex(32)
    if address == "local" or _is_loopback(address):
        # Ray takes 127.0.0.1 for this machine's other address, and then listens on all of them, unless it is told that
        # there is no cluster of several machines.
        found["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return found


def _is_loopback(address: str) -> bool:
    name = address.rpartition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both; the supervisor decides
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(1, 2)  # which leads nowhere
    faulthandler.enable(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    control = socket.socket(fileno=os.dup(0))
    begin = msgspec.json.decode(control.recv(1 << 20), type=Begin)
    for name, value in environment(begin.address).items():
        os.environ.setdefault(name, value)
    # After that: Ray reads it when it is loaded.
    from demixd.worker.ray.driver import serve

    serve(begin, control)


if __name__ == "__main__":
    main()
