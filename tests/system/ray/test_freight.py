"""An hour of song to a machine of the cluster and back: what it takes of Ray's object stores does not grow with it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from clusters import STORE_BYTES, cluster
from daemons import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray")

HOUR = 3600 * 44100 * 4
"""Bytes of an hour of stereo in 16 bits."""

CARRY = """
import asyncio, os, pathlib, shutil, sys, threading, time
import ray
from demixd.protocol.job import StemFile
from demixd.spool import private
from demixd.worker.ray.actor import Actor
from demixd.worker.ray.freight import Attempt
from demixd.worker.ray.far import Far

address, folder, size = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
private.make(folder, folder / ".demixd", ())
private.make(folder, folder / ".demixd" / "job", ("tmp", "out"))
job = folder / ".demixd" / "job"
with open(job / "tmp" / "song", "wb") as file:
    file.truncate(size)
    file.seek(size // 2)
    file.write(os.urandom(1 << 20))
least, over = [1 << 60], threading.Event()

def watch():
    while not over.wait(0.05):
        least[0] = min(least[0], ray.available_resources().get("object_store_memory", 0))

async def carry():
    far = Far(ray.remote(Actor).options(num_gpus=1, num_cpus=0).remote(None))
    far.facts = await far.call("hello")
    attempt = Attempt(far.call, job / "tmp", job / "out")
    told = []
    async def tell(fraction):
        told.append(fraction)
    await attempt.bring(job / "tmp" / "song", far.facts["folder"], lambda path: f"/nowhere{path}", tell)
    there = pathlib.Path(attempt.song_there)
    assert there.stat().st_size == size and max(told) > 0.99
    there.rename(pathlib.Path(attempt.out_there) / "vocals.wav")
    import hashlib
    with open(job / "tmp" / "song", "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    stem = StemFile(stem="vocals", name="vocals.wav", format="wav", subtype="PCM_16", rate=44100, channels=2, frames=1,
                    bytes=size, sha256=sha256, peak=1.0, gain_db=0.0)
    assert await attempt.fetch((stem,)) == "", "it came back as it was"
    await attempt.end()
    assert not there.parents[1].exists()

thread = threading.Thread(target=watch)
thread.start()
asyncio.run(carry())
over.set()
thread.join()
print(int(least[0]))
"""


@pytest.mark.daily
def test_an_hour_of_song_goes_through_a_small_store(tmp_path: Path) -> None:
    """It goes there and back, and comes out as it was, and nothing of it is put on a disk on the way."""
    with cluster(tmp_path, nodes=1) as there:
        environment = {**there.environment, "PYTHONPATH": str(ROOT / "daemon")}
        done = subprocess.run(
            [sys.executable, "-c", CARRY, there.address, str(tmp_path), str(HOUR)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert int(done.stdout) > 0, "of both stores a part was always free"
        assert HOUR > 2 * STORE_BYTES
        assert not list(Path(there.environment["TMPDIR"]).rglob("ray_spilled_objects*/*"))
