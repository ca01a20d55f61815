"""Which file, and which content of it, as far as the filesystem can tell without reading it."""

import os

import msgspec


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What stat(2) says of a file; times in nanoseconds."""

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
        """Whether `of` would give this."""
        return (
            self.ctime_ns == status.st_ctime_ns
            and self.mtime_ns == status.st_mtime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and self.device == status.st_dev
        )

    def is_same_drop(self, other: "Identity") -> bool:
        """Whether `other` is this content still. The change time is left out: our own renames move it."""
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)
