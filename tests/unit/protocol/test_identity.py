"""Which file it is, across restarts of the machine."""

import msgspec

from demixd.protocol.identity import Identity

FILE = Identity(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5)


def test_a_disk_with_another_number() -> None:
    """The device is no part of which file it is; everything else is."""
    assert FILE.is_same_file(msgspec.structs.replace(FILE, device=9))
    for field in ("inode", "size", "mtime_ns", "ctime_ns"):
        assert not FILE.is_same_file(msgspec.structs.replace(FILE, **{field: 9}))
