"""What somebody does to a spool, in a word each, so that it can be done at a trace point by whatever stands there:

cancel:NAME       NAME.cancel is there                    cancel-all    the bare .cancel is there
delete:NAME       the song is deleted
drop:NAME         the song `again` from beside the spool is moved to NAME, which it replaces
write:NAME        NAME is overwritten in place by it
tick              the clock of the filesystem moves on
folder:NAME       a folder of that name is in the outbox
take:NAME         the result of that name is moved out of the outbox, to `taken`
"""

import shutil
import time
from pathlib import Path


def act(action: str, folder: Path) -> bool:
    """Do it, where `folder` holds the spool; whether it is one of these words."""
    verb, _, name = action.partition(":")
    inbox, outbox = folder / "spool" / "inbox", folder / "spool" / "outbox"
    match verb:
        case "cancel" | "cancel-all":
            (inbox / f"{name}.cancel").touch()
        case "delete":
            (inbox / name).unlink(missing_ok=True)
        case "drop":
            shutil.copyfile(folder / "again", inbox / ".again.part")
            (inbox / ".again.part").rename(inbox / name)
        case "write":
            (inbox / name).write_bytes((folder / "again").read_bytes())
        case "tick":
            tick(folder)
        case "folder":
            (outbox / name).mkdir()
        case "take":
            (outbox / name).rename(folder / "taken")
        case _:
            return False
    return True


def tick(folder: Path) -> None:
    """Wait until the filesystem's clock has moved on, which it does every few milliseconds."""
    scratch = folder / "tick"
    scratch.touch()
    before = now = scratch.stat().st_ctime_ns
    while now == before:
        time.sleep(0.001)
        scratch.touch()
        now = scratch.stat().st_ctime_ns
