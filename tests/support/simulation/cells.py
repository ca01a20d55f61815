"""The matrix of races (tests/support/faults/matrix.py), wider: simulated daemons go through it by the dozen a second. Pure.

thing     those of the matrix, and what can befall the worker, the disk, the folders and the daemon besides
extra     "" | beside: another song is right behind it, and in flight with it
             | options: the song has an option file
"""

import itertools

import matrix
from demixd.errors import Code
from matrix import DROPS, FIRST_S, RENAME, THINGS, Cell, Fate
from points import POINTS

SEPARATE, PUBLISHING = POINTS.index("4-separate"), POINTS.index("5-publishing")

CODES = (
    *(Code.BAD_AUDIO, Code.INTERNAL_ERROR, Code.MODEL_MISSING),
    *(Code.NO_SPACE, Code.OUTBOX_MISSING, Code.TRUNCATED, Code.IO_ERROR),
)
HEALS = frozenset({Code.NO_SPACE, Code.OUTBOX_MISSING, Code.TRUNCATED, Code.IO_ERROR})
"""After the others there is no other attempt."""

SCRIPTED = ("die", "stall", "babble", "lie", *CODES)
"""What the worker says or does when it is given the song the next time."""

AWAY = ("inbox", "outbox", "status", "done")

MORE = (
    *(f"script-{what}" for what in SCRIPTED),
    *(f"away-{folder}" for folder in AWAY),
    *("nothing", "worker-dies", "full-disk", "stop", "reload", "late-options", "name-taken", "result-taken"),
)
EXTRAS = ("", "beside", "options")


class SimulatedCell(Cell, frozen=True, kw_only=True):
    extra: str

    def __str__(self) -> str:
        return f"{super().__str__()}{f', with {self.extra}' if self.extra else ''}"

    @property
    def is_separated_later(self) -> bool:
        """Whether the worker is given the song after the point."""
        return self.order <= SEPARATE or (self.crash and self.order <= PUBLISHING)


def _is_possible(cell: SimulatedCell) -> bool:
    if cell.thing in ("result-taken", "name-taken"):
        return (cell.order > RENAME) == (cell.thing == "result-taken")
    return not (cell.thing == "late-options" and cell.extra == "options")


CELLS = [
    cell
    for after, point, thing, crash, extra in itertools.product(
        ("move", "keep", "delete"), POINTS, (*THINGS, *MORE), (False, True), EXTRAS
    )
    if _is_possible(cell := SimulatedCell(point=point, thing=thing, after=after, crash=crash, extra=extra))
]


def fate(cell: SimulatedCell) -> Fate:
    """What must become of the song, and of a new drop of its name."""
    if cell.thing in THINGS:
        return matrix.fate(cell)
    first = "failed" if _fails(cell) else "done"
    where = "inbox" if cell.after == "keep" else "failed" if first == "failed" else "done"
    originals: dict[str, list[float]] = {"inbox": [], "done": [], "failed": []}
    if not (first == "done" and cell.after == "delete"):
        originals[where].append(FIRST_S)
    results = [FIRST_S] if first == "done" and cell.thing != "result-taken" else []
    return Fate(first=first, new=None, cancel=None, results=results, is_duplicate=False, originals=originals)


def _fails(cell: SimulatedCell) -> bool:
    code = cell.thing.removeprefix("script-")
    return cell.is_separated_later and code in CODES and code not in HEALS


def other_fate(cell: SimulatedCell) -> str:
    """What must become of the song beside it."""
    return "cancelled" if cell.thing == "cancel-all" else "done"


def attempts(cell: SimulatedCell) -> set[int]:
    """How many attempts the sidecar of the song may count in the end; without a crash one can be sure."""
    costs = {"script-die", "script-stall", "script-babble", "script-lie", f"script-{Code.IO_ERROR}"}
    if cell.crash or cell.thing == "worker-dies":
        return {0, 1, 2, 3}
    if cell.thing in costs and cell.is_separated_later:
        # Where another song was in the worker with it, nobody knows whose fault its death was.
        return {1, 2} if cell.extra == "beside" and cell.thing != f"script-{Code.IO_ERROR}" else {2}
    return {1}


def options_go_along(cell: SimulatedCell) -> bool:
    """Whether the song's option file goes where the song goes."""
    return cell.extra == "options" and cell.thing not in DROPS and cell.thing != "delete"
