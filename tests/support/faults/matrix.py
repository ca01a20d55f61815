"""The matrix of races: what happens to a song at a numbered point of its job, and what must become of it. Pure.

    point     the ten of the protocol; each thing happens just before what the point is named after
    thing     what somebody does there, if anything, or what two of them do one after the other
    after     the policy for originals
    crash     whether the daemon is killed right after it, and started again

`Fate` is what the contract says: the state of the first job, that of the new drop where there is one, and where the
originals are. Up to point 3 the song is still the user's; from there on its snapshot is ours. Up to point 6, the
rename, a cancel wins. After a crash before point 6 the work is worth nothing, and the song has to be there again.
"""

import itertools

import msgspec

from points import POINTS

OURS, RENAME, PUT_AWAY = (POINTS.index(name) for name in ("3-started", "6-rename", "10-finished"))

FIRST_S, OTHER_S = 0.3, 0.5
"""How long the song is, and another one that comes in its place."""

THINGS: dict[str, str] = {
    "nothing": "",
    "cancel": "cancel:{name}",
    "cancel-all": "cancel-all",
    "delete": "delete:{name}",
    "replace": "drop:{name}",
    "overwrite": "write:{name}",
    "again": "drop:{name}",
    "cancel-replace": "cancel:{name} tick drop:{name}",
    "replace-cancel": "drop:{name} tick cancel:{name}",
    "delete-replace": "delete:{name} tick drop:{name}",
    "second-state": "second:second-state.toml",
    "second-spool": "second:second-spool.toml",
    "second-outbox": "second:second-outbox.toml",
}
"""In words of tests/support/launch.py. `again` is the very same song once more; the others that come are another one."""

CANCELS = frozenset({"cancel", "cancel-all", "cancel-replace", "replace-cancel"})
DROPS = frozenset({"replace", "overwrite", "again", "cancel-replace", "replace-cancel", "delete-replace"})


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    point: str
    thing: str
    after: str
    crash: bool

    def __str__(self) -> str:
        return f"{self.thing} at {self.point}, after = {self.after}{', and a crash' if self.crash else ''}"

    @property
    def order(self) -> int:
        return POINTS.index(self.point)

    def plan(self, name: str) -> str:
        """The line for tests/support/launch.py."""
        return f"{self.point} {THINGS[self.thing].format(name=name)}{' kill' if self.crash else ''}"


MATRIX = [
    Cell(point=point, thing=thing, after=after, crash=crash)
    for after, point, thing, crash in itertools.product(("move", "keep", "delete"), POINTS, THINGS, (False, True))
]


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """`new` is the state of the new drop. Lengths in seconds tell the songs apart."""

    first: str
    new: str | None
    cancel: str | None
    """What the sidecar that is there at the end says about a cancel; None: nothing that is sure."""
    results: list[float]
    is_duplicate: bool
    originals: dict[str, list[float]]


def fate(cell: Cell) -> Fate:
    """What must become of it."""
    first = _first(cell)
    new = None if cell.thing not in DROPS else "cancelled" if cell.thing == "replace-cancel" else "done"
    other_s = FIRST_S if cell.thing == "again" else OTHER_S
    is_duplicate = cell.thing == "again" and first == "done"
    results = [FIRST_S] * (first == "done") + [other_s] * (new == "done" and not is_duplicate)
    originals: dict[str, list[float]] = {"inbox": [], "done": [], "failed": []}
    is_put_away = cell.order >= PUT_AWAY and cell.after != "keep"
    if is_put_away or not (cell.thing in DROPS or cell.thing == "delete"):
        _put(originals, first, cell.after, FIRST_S)
    if new is not None:
        _put(originals, new, cell.after, other_s)
    cancel = {"cancel": "cancelled" if first == "cancelled" else "too-late", "replace-cancel": "cancelled"}
    return Fate(
        first=first,
        new=new,
        cancel=cancel.get(cell.thing),
        results=sorted(results),
        is_duplicate=is_duplicate,
        # Of `again` both originals have the same content, and the second one replaces the first.
        originals={
            where: sorted(set(lengths) if cell.thing == "again" else lengths) for where, lengths in originals.items()
        },
    )


def _first(cell: Cell) -> str:
    if cell.thing in CANCELS:
        return "cancelled" if cell.order <= RENAME else "done"
    if cell.thing == "nothing" or cell.thing.startswith("second"):
        return "done"
    return "done" if cell.order >= (RENAME if cell.crash else OURS) else "cancelled"


def _put(originals: dict[str, list[float]], state: str, after: str, seconds: float) -> None:
    if after == "keep":
        originals["inbox"].append(seconds)
    elif state == "cancelled":
        originals["failed"].append(seconds)
    elif after == "move":
        originals["done"].append(seconds)
