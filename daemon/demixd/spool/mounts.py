"""Mounts: the filesystem of a folder, and whether other machines can write to it.

Linux only: /proc/self/fdinfo has the mount id of an open folder, /proc/self/mountinfo (proc(5)) the filesystem of each
mount. A device number would not do: stat(2) on btrfs and overlayfs has another one than the mount. Without /proc every
folder counts as on one unknown local filesystem.
"""

import os
import re
from pathlib import Path

import msgspec

from demixd.spool import nofollow

_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\w*|smbfs|9p|virtiofs|vboxsf|prl_fs|vmhgfs|ceph|afs|coda|ncpfs|lustre|gpfs|glusterfs|davfs|fuse(\..*)?"
)
"""Filesystems that others can write to past our kernel: no events, no leases, attributes from a cache."""

_LOCAL_FUSE = ("fuseblk",)
"""FUSE on a disk of this machine: NTFS by ntfs-3g and others."""

Root = tuple[int, int, int]
"""What tells one folder from another: device, inode, and the id of the mount by which it is reached."""


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the kernel's number of the mount, `kind` the filesystem's name, `point` where it is mounted."""

    id: int
    device: str
    kind: str
    point: str


UNKNOWN = Mount(id=-1, device="", kind="unknown", point="/")


def mount_of(folder: Path) -> Mount:
    """The mount that `folder` is on. Raises OSError where the folder cannot be opened."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii")
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return UNKNOWN
    finally:
        nofollow.close(handle)
    found = re.search(r"^mnt_id:\s*(\d+)", facts, re.MULTILINE)
    return parse(table, int(found[1])) if found else UNKNOWN


def parse(mountinfo: bytes, number: int) -> Mount:
    """The mount with that id, in lines such as `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw`."""
    for line in mountinfo.splitlines():
        mount, _, tail = line.partition(b" - ")
        fields = mount.split()
        if fields and int(fields[0]) == number:
            kind, device = (os.fsdecode(word) for word in tail.split()[:2])
            return Mount(id=number, device=device, kind=kind, point=os.fsdecode(fields[4]))
    return UNKNOWN


def is_remote(kind: str) -> bool:
    """Whether a filesystem of this name is a network's or FUSE: then settle times and polling replace leases and events."""
    return bool(_REMOTE.fullmatch(kind)) and kind not in _LOCAL_FUSE
