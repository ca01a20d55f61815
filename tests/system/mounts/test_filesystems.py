"""Which filesystem a folder is on, and what the daemon does about it: real mounts, and the kernel's table of them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons import make_song, running
from demixd.protocol.identity import Identity
from demixd.spool import mounts
from demixd.spool.leases import lease_fails, survive_lease_breaks
from demixd.supervisor.runs import snapshot
from demixd.supervisor.runs.snapshot import Outcome

TABLE = b"""22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt/two\\040words rw,noatime master:1 - ext4 /dev/root rw,errors=continue
41 35 0:52 / /mnt/nas rw shared:7 propagate_from:2 - nfs4 nas:/music rw,vers=4.2
42 35 0:53 / /mnt/cloud rw - fuse.rclone cloud: rw
"""


@pytest.mark.parametrize(("number", "kind"), [(22, "proc"), (36, "ext4"), (41, "nfs4"), (42, "fuse.rclone")])
def test_the_kernels_table(number: int, kind: str) -> None:
    """A mount is found by its id, whatever optional fields its line has."""
    assert mounts.parse(TABLE, number).kind == kind


def test_a_mount_that_is_not_in_the_table() -> None:
    """What cannot be found counts as unknown, and as local."""
    assert mounts.parse(TABLE, 99) == mounts.UNKNOWN
    assert not mounts.is_remote(mounts.UNKNOWN.kind)


REMOTE = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse", "fuse.sshfs", "fuse.mergerfs", "virtiofs", "afs"]
LOCAL = ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "vfat", "exfat", "ntfs3", "fuseblk", "bcachefs"]


@pytest.mark.parametrize(("kind", "remote"), [*((kind, True) for kind in REMOTE), *((kind, False) for kind in LOCAL)])
def test_what_is_remote(kind: str, remote: bool) -> None:
    """Network filesystems and FUSE are polled and settle longer; local ones are not."""
    assert mounts.is_remote(kind) is remote


def test_the_folder_of_this_test(tmp_path: Path) -> None:
    """The mount of a real folder is that of its own device."""
    mount = mounts.mount_of(tmp_path)
    assert mount != mounts.UNKNOWN
    assert Path(mount.point).stat().st_dev == tmp_path.stat().st_dev


def test_a_lease_notices_writers_here(tmp_path: Path) -> None:
    """The lease is proved on a scratch file, of which nothing is left."""
    survive_lease_breaks()
    assert lease_fails(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@contextmanager
def mounted(command: list[str], at: Path) -> Iterator[Path]:
    """Something mounted at `at`. Skips where it cannot be."""
    at.mkdir(exist_ok=True)
    if shutil.which(command[0]) is None or os.geteuid() != 0:
        pytest.skip(f"needs root and {command[0]}: sudo tests/run")
    if subprocess.run([*command, str(at)], capture_output=True, check=False).returncode:
        pytest.skip(f"{command[0]} cannot mount here")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_snapshot_shares_blocks_where_it_can(tmp_path: Path) -> None:
    """On XFS the snapshot is a clone: the same bytes, the right hash, and no room taken for them."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("needs mkfs.xfs: apt-get install xfsprogs")
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    survive_lease_breaks()
    with mounted(["mount", "-o", "loop", str(image)], tmp_path / "xfs") as folder:
        song = folder / "song.wav"
        song.write_bytes(os.urandom(50 << 20))
        os.sync()
        before = shutil.disk_usage(folder).free
        taken = snapshot.take(song, folder / "copy", Identity.of(song.stat()), lambda: False)
        os.sync()
        assert before - shutil.disk_usage(folder).free < 5 << 20
        assert taken.outcome is Outcome.TAKEN
        assert (folder / "copy").read_bytes() == song.read_bytes()
        sums = subprocess.run(["sha256sum", str(song)], capture_output=True, text=True, check=True)
        assert sums.stdout.split()[0] == taken.sha256


def test_an_inbox_on_fuse(tmp_path: Path) -> None:
    """On FUSE the daemon polls, says why, and lets songs settle for `settle_remote`; what comes from behind is done."""
    behind, share = tmp_path / "behind", tmp_path / "share"
    behind.mkdir()
    with (
        mounted(["bindfs", str(behind)], share),
        running(tmp_path / "d", fake=True, paths={"inbox": str(share)}, inbox={"settle_remote": 1.0}) as daemon,
    ):
        watch = daemon.read("_daemon.json")["watch"]
        assert watch["mode"] == "poll"
        assert "fuse" in watch["why"]
        make_song(behind / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        daemon.until((daemon.spool / "done" / "song.wav").exists, "original in done/")
        assert list(behind.iterdir()) == []


def test_events_that_are_forced(tmp_path: Path) -> None:
    """`watch = "events"` is obeyed on FUSE too, and a scan still finds what no event tells of."""
    behind, share = tmp_path / "behind", tmp_path / "share"
    behind.mkdir()
    how = {"settle_remote": 0.5, "watch": "events"}
    with (
        mounted(["bindfs", str(behind)], share),
        running(tmp_path / "d", fake=True, paths={"inbox": str(share)}, inbox=how) as daemon,
    ):
        assert daemon.read("_daemon.json")["watch"]["mode"] == "events"
        make_song(behind / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
