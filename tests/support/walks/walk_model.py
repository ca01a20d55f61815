"""What the contract says must become of each drop of a random walk. Pure: it is told what was done and what is there.

A drop is one content under one name. The last drop of a name that the user has not taken back must be answered by a job
of its own, in one of the states that its kind and the cancels allow; its original lies where the policy sends it. Of a
drop that was replaced or deleted, only what holds for every job must hold.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

FINAL = frozenset({"done", "failed", "cancelled"})

ENDS = {
    "good": ("done", ""),
    "bad": ("failed", "bad-audio"),
    "cut": ("failed", "truncated"),
    "bad-options": ("failed", "bad-options"),
    "wrong-hash": ("failed", "truncated"),
}
"""By kind: the state that it ends in, and the code of the error. A good song may be cut by nobody, and so on."""

ATTEMPTS = 3

COSTLY = frozenset({"die", "stall", "babble", "lie", "io-error"})
"""What costs a song an attempt when the worker does it; `io-error` ends it where that was the last."""

HEALING = frozenset({"no-space", "outbox-missing", "truncated"})
"""Errors that a song waits out."""


class Drop(msgspec.Struct, kw_only=True, eq=False):
    name: str
    kind: str
    sha256: str
    inode: int
    size: int
    mtime_ns: int
    options: dict[str, Any] = {}
    may_be_cancelled: bool = False
    """Whether a cancel may have meant it."""
    grew: bool = False
    """Whether it was written in place: a cancel on the way ends the job with what had been written by then."""
    answers: str | None = None
    """The job that a cancel of its name was for, while it was seen not to be over: it has to say so."""
    kills: int = 0
    """How often the worker or the daemon was killed since."""
    risks: set[str] = msgspec.field(default_factory=set)
    """Codes of errors that the worker may have said of it because it was told to."""
    job_id: str | None = None
    """The job that was found to answer it, when all was quiet."""


class Model:
    """What the user has done. `policies` are those in force since all was quiet last."""

    def __init__(self, after: str) -> None:
        self.current: dict[str, Drop] = {}
        self.policies = {after}
        self.after = after
        self._for_strangers: set[str] = set()
        self._cancelled: set[str] = set()
        self._scripted: dict[str, list[str]] = {}
        """What the worker was told to do with the songs of a name (its last part), since all was quiet last."""

    @property
    def open(self) -> list[Drop]:
        """The drops that nobody has seen answered yet."""
        return [drop for drop in self.current.values() if drop.job_id is None]

    def drop(self, drop: Drop, *, bare: bool, in_place: bool) -> None:
        """`drop` is under its name. `bare`: a bare cancel lay there; `in_place`: the inode may be that of an older drop."""
        was_meant = drop.name in (self._cancelled if in_place else self._for_strangers)
        drop.may_be_cancelled = drop.may_be_cancelled or bare or was_meant
        drop.grew = in_place
        for what in self._scripted.get(drop.name.rpartition("/")[2], ()):
            _endanger(drop, what)
        self.current[drop.name] = drop

    def delete(self, name: str) -> None:
        self.current.pop(name, None)

    def cancel(self, name: str, sidecar: dict[str, Any]) -> None:
        """A cancel file for `name` was made, when its sidecar was this one ({}: none, so nobody may know the name)."""
        self._cancelled.add(name)
        if not sidecar:
            self._for_strangers.add(name)
        drop = self.current.get(name)
        if drop is not None and drop.job_id is None:
            drop.may_be_cancelled = True
            if sidecar and sidecar["state"] not in FINAL and is_of(sidecar, drop):
                drop.answers = sidecar["job_id"]

    def cancel_all(self) -> None:
        for drop in self.open:
            drop.may_be_cancelled = True

    def kill(self) -> None:
        for drop in self.open:
            drop.kills += 1

    def script(self, leaf: str, what: str) -> None:
        """The worker will die, stall, lie, or say an error's code, with the next song of that name."""
        self._scripted.setdefault(leaf, []).append(what)
        for drop in self.open:
            if drop.name.rpartition("/")[2] == leaf:
                _endanger(drop, what)

    def forget_script(self) -> None:
        self._scripted = {}

    def go_by(self, after: str) -> None:
        self.after = after
        self.policies.add(after)

    def rest(self) -> None:
        """All is quiet: what was done before now has no more consequences."""
        self.policies = {self.after}
        self._for_strangers, self._cancelled = set(), set()


def _endanger(drop: Drop, what: str) -> None:
    drop.risks.add(what)
    drop.kills += what in COSTLY


def is_of(sidecar: dict[str, Any], drop: Drop) -> bool:
    """Whether the sidecar's job is that of just this drop."""
    found = sidecar["input"]
    return (found["inode"], found["size"], found["mtime_ns"]) == (drop.inode, drop.size, drop.mtime_ns)


def answer_violations(drop: Drop, sidecar: dict[str, Any]) -> list[str]:
    """What is wrong with the answer to a drop, when all is quiet."""
    if not sidecar:
        return ["it has no sidecar"]
    state, code = sidecar["state"], (sidecar["error"] or {}).get("code", "")
    if drop.job_id is not None:
        return [] if sidecar["job_id"] == drop.job_id else [f"it was answered by {drop.job_id}, and is taken up again"]
    was_cut_short = drop.grew and drop.may_be_cancelled and state == "cancelled"
    if not is_of(sidecar, drop) and not (was_cut_short and sidecar["input"]["inode"] == drop.inode):
        return [f"the last job of the name is of another drop: {sidecar['job_id']}, {state}, {sidecar['input']}"]
    drop.job_id = sidecar["job_id"]
    allowed = {ENDS[drop.kind]}
    if drop.may_be_cancelled:
        allowed.add(("cancelled", ""))
    if drop.kills >= ATTEMPTS:
        allowed.add(("failed", "gave-up"))
        allowed |= {("failed", "io-error")} if "io-error" in drop.risks else set()
    allowed |= {("failed", risk) for risk in drop.risks - COSTLY - HEALING}
    wrong = (
        [] if (state, code) in allowed else [f"it is {state} {code} {sidecar['error']}, and may be {sorted(allowed)}"]
    )
    if drop.answers == sidecar["job_id"] and not sidecar["cancel"]:
        wrong.append(f"it is {state}, and does not say what became of the cancel")
    if state == "done":
        wrong += _of_options(drop, sidecar)
    return wrong


def _of_options(drop: Drop, sidecar: dict[str, Any]) -> list[str]:
    wrong = []
    if sidecar["input"]["sha256"] != drop.sha256:
        wrong.append("its content is another")
    if sidecar["tag"] != drop.options.get("tag"):
        wrong.append(f"its tag is {sidecar['tag']}")
    wanted = drop.options.get("format")
    if wanted and not all(file["name"].endswith(f".{wanted}") for file in sidecar["output"]["files"]):
        wrong.append(f"its stems are {sidecar['output']['files']}, and must be {wanted}")
    if drop.options.get("force") and sidecar["duplicate_of"]:
        wrong.append("it was to be computed anyway")
    return wrong


def places(state: str, policies: Iterable[str]) -> set[str]:
    """Where the original of a job may be: `inbox`, `done`, `failed`, or `gone`."""
    found = set()
    for after in policies:
        if after == "keep":
            found.add("inbox")
        elif state != "done":
            found.add("failed")
        else:
            found.add("done" if after == "move" else "gone")
    return found
