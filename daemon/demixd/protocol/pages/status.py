"""The page of the daemon, `status/index.html`: how it is, what it does, and what waits, for a phone that sees the share. Pure.

It is read without a script; with one it also says how old it is. Names and messages are others' words.
"""

import re

import msgspec

from demixd.protocol.pages import markup

_CODE = re.compile("`([^`]*)`")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A song. `tone`: `done`, `failed`, `cancelled` or `waits`, which colours what is `told` of it; empty for none."""

    name: str
    told: str = ""
    tone: str = ""
    fraction: float | None = None
    at: str = ""
    """When it ended, as local clocks show it."""
    page: str = ""
    """Where the page is that plays it, from this one's folder; empty where there is none."""


class Songs(msgspec.Struct, frozen=True, kw_only=True):
    """Some songs, of which the first are listed. `is_queue`: whether they have numbers."""

    title: str
    lines: tuple[Line, ...]
    total: int
    is_queue: bool = False


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page shows. `tone`: empty where all is well, else `doubt` or `bad`."""

    headline: str
    tone: str
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    songs: tuple[Songs, ...]
    written: str
    """When it was written, UTC, in the form of the protocol."""
    shown_at: str
    """The same as local clocks show it."""
    every_s: float
    """A daemon that runs writes it so often."""
    refresh_s: int


def page(board: Board) -> bytes:
    """The whole page."""
    script, style = markup.source("status.js"), markup.source("status.css")
    late_s = 3 * board.every_s + 30
    parts = [
        f'<main data-written="{markup.escaped(board.written)}" data-late="{late_s:g}" data-refresh="{board.refresh_s}">',
        f'<h1 class="{board.tone}">{_sentence(board.headline)}</h1>',
        f'<p class="soft">As of {markup.escaped(board.shown_at)} <span id="age"></span></p>',
        '<p id="old" class="warning" role="status" hidden>This page is old: demixd is most likely not running.</p>',
        *(f"<p>{_sentence(fact)}</p>" for fact in board.facts),
        *(f'<p class="warning">{_sentence(warning)}</p>' for warning in board.warnings),
        *(_songs(songs) for songs in board.songs if songs.total),
        "" if any(songs.total for songs in board.songs) else "<p>No songs yet: drop one into the inbox.</p>",
        f'<p class="soft">Written anew at least every {board.every_s:g} s while demixd runs. If it is much older, demixd is not'
        " running, or cannot write here.</p>",
        f"</main>\n<script>{script}</script>",
    ]
    return markup.page(
        title=f"demixd: {board.headline}",
        policy=f"; script-src {markup.digest(script)}",
        style=style,
        body="\n".join(part for part in parts if part),
        # Where a script runs, it reads the page again, and only while somebody sees it.
        head=f'<noscript><meta http-equiv="refresh" content="{board.refresh_s}"></noscript>\n',
    )


def _sentence(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", markup.escaped(text))


def _songs(songs: Songs) -> str:
    kind = "ol" if songs.is_queue else "ul"
    count = f" <small>{songs.total}</small>" if songs.is_queue or songs.total > len(songs.lines) else ""
    lines = "\n".join(map(_line, songs.lines))
    left = songs.total - len(songs.lines)
    more = f'\n<p class="soft">and {left} more</p>' if left > 0 else ""
    return f"<h2>{markup.escaped(songs.title)}{count}</h2>\n<{kind}>\n{lines}\n</{kind}>{more}"


def _line(line: Line) -> str:
    at = f"<time>{markup.escaped(line.at)}</time>" if line.at else ""
    label = f'aria-label="{markup.escaped(line.name)}"'
    bar = "" if line.fraction is None else f'<progress {label} max="1" value="{line.fraction:.4f}"></progress>'
    told = f'<span dir="auto" class="{line.tone}">{markup.escaped(line.told)}</span>' if line.told else ""
    name = markup.element("b", line.name)
    if line.page:
        name = f'<a href="{markup.url(line.page)}">{name}</a>'
    return f"<li>{at}{name}{bar}{told}</li>"
