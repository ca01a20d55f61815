"""Trace points: the ten numbered points of a job's way, at each of which the daemon may die.

    1 accepted     the ledger has the song's identity          6 rename    the work becomes the result, or never does
    2 snapshot     it is copied, and its identity looked at    7 final     the ledger has the job's last state
    3 started      the ledger counts the attempt               8 sidecar   others see that state
    4 separate     the worker has the song                     9 original  the original and the cancel file go
    5 publishing   manifest written, everything durable        10 finished the ledger is done with it, the work goes

Nothing happens there. Tests put a function of theirs into `hook` and so stand at exactly that place, to count, to drop
a cancel file, or to pull the plug.
"""

from collections.abc import Callable

hook: Callable[[str], None] = lambda _: None  # noqa: E731 - a variable that tests replace, not a function


def point(name: str) -> None:
    """`name` is about to happen: `1-accepted`, `2-snapshot`, `3-started`, ... `10-finished`."""
    hook(name)
