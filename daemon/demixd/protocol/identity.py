"""Identity: a file and its content, as far as stat(2) can tell them from others. Pure."""

import os

import msgspec


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of stat(2) by which a file is known again; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        return cls(
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )

    def matches(self, status: os.stat_result) -> bool:
        """Whether `Identity.of(status)` equals this, without making one."""
        return (
            self.ctime_ns == status.st_ctime_ns
            and self.mtime_ns == status.st_mtime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and self.device == status.st_dev
        )

    def is_same_file(self, other: "Identity") -> bool:
        """Whether `other` is this file, untouched. Its device is left out: a disk may have another number after a restart."""
        return (self.inode, self.size, self.mtime_ns, self.ctime_ns) == (
            other.inode,
            other.size,
            other.mtime_ns,
            other.ctime_ns,
        )

    def is_same_drop(self, other: "Identity") -> bool:
        """Whether `other` is the same file with the same content. The change time is left out: our own renames change it."""
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)
