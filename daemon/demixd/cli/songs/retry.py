"""`demixd retry`: which songs come back, and what is said of it."""

from collections.abc import Sequence

from demixd.cli.console import complain, say
from demixd.cli.status.notice import complain_if_absent
from demixd.client import names, text
from demixd.client.reader import read_songs
from demixd.client.retry import AGAIN, bring_back
from demixd.errors import RefusedError
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool


def retry(spool: Spool, given: Sequence[str]) -> bool:
    """Bring songs back (`names` says which); whether all are. Raises BadWordError, and OSError where status/ cannot be read.

    A name that no failed or cancelled song has is complained of, and so is a song that cannot come back; the others do.
    """
    words = [names.below_inbox(spool, word) for word in given]
    songs = {names.name_of(song): song for song in read_songs(spool) if song.state in AGAIN}
    wanted: dict[str, None] = {}
    is_good = True
    for word in words:
        try:
            wanted |= dict.fromkeys(names.meant(word, songs, "failed or cancelled"))
        except RefusedError as error:
            is_good = False
            complain(f"demixd: {error}")
    back = [name for name in wanted if _is_back(spool, name, songs[name])]
    if back:
        complain_if_absent(spool)
    return is_good and len(back) == len(wanted)


def _is_back(spool: Spool, name: str, song: Sidecar) -> bool:
    """Bring one song back, and say so; False where that cannot be."""
    try:
        say(f"{name}: {bring_back(spool, name, song)}")
    except RefusedError as error:
        complain(f"demixd: {name}: {error}")
    except OSError as error:
        complain(f"demixd: {name}: it cannot come back: {text.refusal(error)}")
    else:
        return True
    return False
