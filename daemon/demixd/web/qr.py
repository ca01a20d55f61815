"""A link as a QR code of text, for a phone that looks at a terminal."""

from collections.abc import Iterator

import segno

QUIET = 2
"""Modules of light around the code; the standard asks for four, and readers make do with two."""

HALVES = {(0, 0): "\u2588", (0, 1): "\u2580", (1, 0): "\u2584", (1, 1): " "}
"""Two modules above each other as one character: terminals are mostly dark, and what is light is drawn."""


def lines(link: str) -> Iterator[str]:
    """The lines of the code, which are twice as high as they are wide."""
    rows = [list(row) for row in segno.make(link, error="l", micro=False).matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        yield "".join(HALVES[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))
