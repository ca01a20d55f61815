"""Which filesystem a folder is on, and what can be believed there.

Linux only: /proc/self/fdinfo gives the mount of an open folder, /proc/self/mountinfo (proc(5)) what is mounted there. A
device number would not do: btrfs and overlayfs report others than their mounts have. Where there is no /proc everything
counts as one unknown local filesystem.
"""

import os
import re
from pathlib import Path

import msgspec

from demixd.spool import nofollow

_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\w*|smbfs|9p|virtiofs|vboxsf|prl_fs|vmhgfs|ceph|afs|coda|ncpfs|lustre|gpfs|glusterfs|davfs|fuse(\..*)?"
)
"""Filesystems that others may write to without our kernel's knowing: no events, no leases, late attributes."""

_LOCAL_FUSE = ("fuseblk",)
"""NTFS by ntfs-3g and the like: FUSE, but nobody else has the disk."""

Root = tuple[int, int, int]
"""Which folder it is: device, inode and the id of the mount that it is seen through."""


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
    """Whether a filesystem of this name is a network's or a program's, so that settling and polling must do."""
    return bool(_REMOTE.fullmatch(kind)) and kind not in _LOCAL_FUSE
