"""Carries the lines of every worker between the supervisor and its actor, and songs and stems with them.

supervisor --a line each--> Connection --order--> actor --> worker
                                       <--hear--
"""

import asyncio
import logging
import os
import signal
import socket
from typing import Any, NoReturn

import msgspec

from demixd.worker.ray.cluster import Cluster
from demixd.worker.ray.connection import Connection
from demixd.worker.ray.orders import Begin, Open

log = logging.getLogger("demixd.ray")

STOP_S = 8.0
"""How long leaving the cluster may take, seconds whole."""

STILL_S = 60
"""How long nothing may go on here, seconds whole, before the kernel ends the process: whatever of Ray holds it, Python's lock
included, the supervisor starts another."""


def serve(begin: Begin, control: socket.socket) -> None:
    """Open a connection for each order on `control`, until its end."""
    asyncio.run(_serve(begin, control))


async def _serve(begin: Begin, control: socket.socket) -> None:
    cluster = Cluster(begin)
    keeping: set[asyncio.Task[Any]] = {asyncio.create_task(each) for each in (_put_off_the_end(), cluster.keep())}
    tasks = set(keeping)
    ended = asyncio.Event()

    def take() -> None:
        data, handles, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not data:
            asyncio.get_running_loop().remove_reader(control)
            ended.set()
            return
        order = msgspec.json.decode(data, type=Open)
        one = Connection(begin, cluster, order.threads, socket.socket(fileno=handles[0]))
        task = asyncio.create_task(one.serve())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    asyncio.get_running_loop().add_reader(control, take)
    await ended.wait()
    signal.alarm(int(STOP_S))  # whatever Ray does: its default action ends the process
    if serving := tasks - keeping:  # their lines have ended, too: they leave the machines that they are on
        await asyncio.wait(serving, timeout=STOP_S / 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(cluster.stop)
    os._exit(0)  # Ray has threads that do not end


async def _put_off_the_end() -> NoReturn:
    while True:
        signal.alarm(STILL_S)
        await asyncio.sleep(STILL_S / 6)
