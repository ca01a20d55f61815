"""How far the kernel's word goes for a folder: told by its filesystem, and proved on a scratch file.

Where others may write without our kernel's knowing (a network's filesystem, FUSE), or where a lease does not notice a
writer, a song has to look the same for longer, and there are no events to wait for.
"""

from pathlib import Path

from demixd.protocol.identity import Identity
from demixd.spool.leases import lease_fails
from demixd.spool.mounts import UNKNOWN, Mount, is_remote, mount_of


class Trust:
    """What is known of the inbox's filesystems, by device number; a sub-folder may be a mount of its own."""

    def __init__(self) -> None:
        self._remote: dict[int, bool] = {}
        self.mount: Mount = UNKNOWN
        self.warnings: tuple[str, ...] = ()

    def renew(self, inbox: Path) -> None:
        """Look anew: the daemon starts, or the inbox is another folder now."""
        self._remote = {}
        self.warnings = ()
        try:
            self.mount = mount_of(inbox)
            device = inbox.stat().st_dev
        except OSError:
            self.mount = UNKNOWN
            return
        self._remote[device] = is_remote(self.mount.kind)
        if not self._remote[device] and (why := lease_fails(inbox)):
            self.warnings = (f"The inbox's lease cannot be relied on ({why}): the settle time alone decides.",)

    def is_remote(self, folder: Path, device: int) -> bool:
        """Whether `folder`, on `device`, is on a network's filesystem or FUSE."""
        if device not in self._remote:
            try:
                self._remote[device] = is_remote(mount_of(folder).kind)
            except OSError:
                return True
        return self._remote[device]


class Settling:
    """Since when each file has looked as it does, on the monotonic clock in seconds."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Identity, float]] = {}

    def over_at(self, name: str, identity: Identity, settle_s: float, now: float) -> float:
        """When the settle time of the file is over, if it keeps looking like this; it is, if that is not after `now`."""
        known, since = self._since.get(name, (None, now))
        if known != identity:
            since = now
            self._since[name] = (identity, now)
        return since + settle_s

    def forget(self, names: set[str]) -> None:
        """Drop every name that is not among `names`."""
        self._since = {name: known for name, known in self._since.items() if name in names}
