"""Trace points: the places of a job's way that have a number in the protocol.

Nothing happens there. Tests put a function of theirs into `hook` and so stand at exactly that place, to count, to drop
a cancel file, or to pull the plug.
"""

from collections.abc import Callable

hook: Callable[[str], None] = lambda _: None  # noqa: E731 - a variable that tests replace, not a function


def point(name: str) -> None:
    """`name` is about to happen: `1-accepted`, `2-snapshot`, `3-started`, ... `10-finished`."""
    hook(name)
