"""An overview on a terminal, and the progress bars of `submit --wait`.

    ● demixd 0.1.0: ready · htdemucs on cuda:0 (NVIDIA H100), float16
    ─ Running ─────────────────────────────────────────────────────────────────────
      Song.flac                ━━━━━━━━━━━━━╸              42 %  38.2x  0:11 separate
    ─ Queue: 12 ───────────────────────────────────────────────────────────────────
      1 ...

Lists are cut to what fits, and the rest is counted. A screen is written at once, without erasing it first, so that
nothing flickers.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from demixd.cli.console import exit_on_sigterm
from demixd.client import text, words
from demixd.client.liveness import RUNNING, Health
from demixd.client.overview import Overview
from demixd.protocol.job import State
from demixd.protocol.result_names import folder_name
from demixd.protocol.status import Sidecar
from demixd.protocol.terminal import safe

TALL = 60
"""Lines of lists in an overview that is printed once."""

COLOURS = {State.DONE: "green", State.FAILED: "red", State.CANCELLED: "yellow"}
LIGHTS = {Health.ALIVE: "green", Health.LISTENING: "cyan", Health.GONE: "red", Health.SILENT: "red"}

MORE = "`demixd status NAME` tells all of a song."
"""Below lists with sentences, of which a terminal may show the beginning alone, or with warnings, which they only count."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A song with a bar."""

    name: str
    song: Sidecar | None
    text: str

    @property
    def shown(self) -> RenderableType:
        return Name(self.song, indent=1) if self.song is not None else Text(safe(f" {self.name}"))

    @property
    def eta_s(self) -> float | None:
        """Seconds left; nobody writes the sidecar anew while the song waits, so that they pass here."""
        if self.song is None or self.song.progress.eta_s is None:
            return None
        waited_s = time.time() - _unix(self.song.updated_at) if self.song.state is State.WAITING else 0.0
        return max(0.0, self.song.progress.eta_s - max(0.0, waited_s))


class Name(msgspec.Struct, frozen=True):
    """A song's name, length and tag in a cell: the length is left out where not all of them fit."""

    song: Sidecar
    indent: int = 0

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Text]:
        whole, short = (self._with(words.facts(self.song, has_length=each)) for each in (True, False))
        yield whole if whole.cell_len <= options.max_width else short

    def _with(self, facts: str) -> Text:
        return Text(" " * self.indent + safe(self.song.input.name)) + Text(safe(facts), style="dim")


def is_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def show(shown: Overview) -> None:
    """Print the overview once."""
    Console().print(render(shown))


@contextmanager
def screen() -> Iterator[Callable[[Overview], None]]:
    """The whole terminal, which is restored at the end. Gives the function that shows an overview on it."""
    exit_on_sigterm()
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda shown: live.update(render(shown, console.size.height), refresh=True)


class Bars:
    """Progress bars at the foot of the terminal; lines that are printed meanwhile stay above them."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, rows: Sequence[Row]) -> None:
        console = self._live.console
        self._live.update(render_bars(rows, console.size.height), refresh=True)

    def say(self, line: str) -> None:
        self._live.console.print(Text(safe(line)), soft_wrap=True)


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress bars, which are removed at the end."""
    exit_on_sigterm()
    console = Console()
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        yield Bars(live)


@contextmanager
def bar(title: str) -> Iterator[Callable[..., None]]:
    """One bar, which is removed at the end, and the function that changes it; nothing where this is no terminal.

    The title, or the `description` that is given to the function, is cut where it leaves no room for the bar.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    title_column = Column(ratio=2, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False, table_column=title_column),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        *(TaskProgressColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, expand=True, transient=True, disable=not is_terminal()) as shown:
        task = shown.add_task(safe(title), total=None)

        def change(description: str = title, **how: Any) -> None:
            shown.update(task, description=safe(description), **how)

        yield change


def render_bars(rows: Sequence[Row], height: int) -> RenderableType:
    """Running songs first, then the order of work, in at most `height` lines."""
    ordered = sorted(rows, key=_order)
    count = len(ordered) if len(ordered) < height else height - 2
    more = [Text(f"  and {len(ordered) - count} more", style="dim")] if count < len(ordered) else []
    return Group(_progress(ordered[:count]), *more)


def _order(row: Row) -> tuple[bool, float]:
    if row.song is None:
        return True, float("inf")
    return row.song.state is not State.RUNNING, row.song.progress.queue_position or float("inf")


# ---- status


def render(shown: Overview, height: int | None = None) -> RenderableType:
    """The overview in at most `height` lines, which the lists share; None: to be printed once, at its full length."""
    parts = _head(shown, is_cut=height is not None)
    if shown.running and shown.health in RUNNING:
        parts += [_title("Running"), _progress([_row(song, words.who(song, shown)) for song in shown.running])]
    elif shown.running:
        parts += [_title("Was running"), _table(shown.running, _left, len(shown.running))]
    lists = [(title, songs, cells) for title, songs, cells in _lists(shown) if songs]
    room = TALL if height is None else height - len(parts) - max(len(shown.running) - 1, 0) - len(lists)
    listed = (*shown.queue, *shown.waiting, *shown.results)
    has_more = room > 0 and any(words.message(song, shown) or song.warnings for song in listed)
    shares = share(room - has_more, [len(songs) for _, songs, _ in lists])
    for (title, songs, cells), lines in zip(lists, shares, strict=True):
        if lines:
            parts += [_title(title), _table(songs, cells, lines)]
    if has_more:
        parts.append(Text(f"  {MORE}", style="dim", no_wrap=True, overflow="ellipsis"))
    if not shown.counts and not shown.unseen and shown.daemon is not None:
        parts.append(Text("  No songs yet: drop one into the inbox.", style="dim"))
    return Group(*parts)


def share(room: int, wants: Sequence[int]) -> list[int]:
    """`room` lines dealt one by one to the lists that want more: how many each gets."""
    given = [0] * len(wants)
    while room > 0 and given != list(wants):
        for each, want in enumerate(wants):
            if room > 0 and given[each] < want:
                given[each] += 1
                room -= 1
    return given


Cells = Callable[[int, Any], tuple[RenderableType, ...]]
"""The cells of a song, which is a sidecar or a name, and of its place in the list."""


def _lists(shown: Overview) -> list[tuple[str, tuple[Any, ...], Cells]]:
    ended = ", ".join(f"{shown.counts[state]} {state}" for state in COLOURS if shown.counts.get(state))
    return [
        (f"Queue: {len(shown.queue)}", shown.queue, partial(_queued, shown)),
        (f"Not ready: {len(shown.waiting)}", shown.waiting, partial(_waiting, shown)),
        (f"In the inbox, not seen yet: {len(shown.unseen)}", shown.unseen, _unseen),
        (f"Last results ({ended})", shown.results, partial(_result, shown)),
    ]


def _table(songs: tuple[Any, ...], cells: Cells, lines: int) -> RenderableType:
    """The songs in at most `lines` lines, of which the last one counts the songs that did not fit."""
    count = len(songs) if len(songs) <= lines else lines - 1
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(min_width=8, justify="right")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for place, song in enumerate(songs[:count], start=1):
        table.add_row(*cells(place, song))
    if count < len(songs):
        table.add_row("", Text(f"and {len(songs) - count} more", style="dim"), "")
    return table


def _queued(shown: Overview, place: int, song: Sidecar) -> tuple[RenderableType, ...]:
    why = "" if song.reason == "queued" else song.reason or ""
    told = f"{why}  {words.message(song, shown)}".strip()
    if not told and (left := text.left(shown.etas.get(song.job_id))):
        return Text(str(place), style="dim"), Name(song), Text(left, style="dim")
    return Text(str(place), style="dim"), Name(song), Text(safe(told), style="yellow")


def _waiting(shown: Overview, _place: int, song: Sidecar) -> tuple[RenderableType, ...]:
    told = f"{song.reason}  {words.message(song, shown)}".strip()
    return Text(), Name(song), Text(safe(told), style="yellow")


def _left(_place: int, song: Sidecar) -> tuple[RenderableType, ...]:
    return Text(), Name(song), Text(words.AGAIN, style="dim")


def _unseen(_place: int, name: str) -> tuple[RenderableType, ...]:
    return Text(), Text(safe(name)), Text()


def _result(shown: Overview, _place: int, song: Sidecar) -> tuple[RenderableType, ...]:
    folder, _, leaf = song.input.name.rpartition("/")
    usual = f"{folder}/{folder_name(leaf)}".lstrip("/")
    where = "" if song.output is None or song.output.dir == usual else f"in {song.output.dir}"
    what = words.message(song, shown) if song.output is None else where
    told = Text(safe(f"{song.state}  {what}".strip() + words.marks(song)))
    told.stylize(COLOURS[song.state], 0, len(song.state))
    return Text(_time(song.state_since), style="dim"), Name(song), told


def _time(utc: str) -> str:
    """The local time of day, or the date if it was another day."""
    at = datetime.fromtimestamp(_unix(utc)).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now(at.tzinfo).date() else f"{at:%d %b}"


def _unix(utc: str) -> float:
    """A time of the protocol as UNIX time; the present where it is none."""
    try:
        return datetime.fromisoformat(utc).timestamp()
    except ValueError:
        return time.time()


def _title(title: str) -> RenderableType:
    return Rule(Text(title, style="bold"), align="left", style="dim")


def _row(song: Sidecar, who: str) -> Row:
    return Row(name=song.input.name, song=song, text=f"{song.doing}{who}")


def _progress(rows: Sequence[Row]) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=2)
    for width in (5, 6, 9):
        table.add_column(min_width=width, justify="right", no_wrap=True)
    table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    for row in rows:
        at = row.song.progress if row.song else None
        fraction = at.fraction if at else 0.0
        table.add_row(
            row.shown,
            ProgressBar(total=1.0, completed=fraction),
            text.percent(fraction),
            text.speed(at.speed_x if at else None),
            text.left(row.eta_s),
            Text(safe(row.text), style="dim"),
        )
    return table


def _head(shown: Overview, *, is_cut: bool) -> list[RenderableType]:
    doubtful = shown.health in RUNNING and not shown.is_well
    light = Text("● ", style="yellow" if doubtful else LIGHTS.get(shown.health, "yellow"))
    clock = Text(f"  {datetime.now().astimezone():%H:%M:%S}", style="dim")
    lines = [light + Text(safe(words.sentence(shown))) + clock]
    if shown.daemon is not None:
        lines += [Text(safe(f"  {each}"), style="dim") for each in words.workers(shown.daemon, is_able=True)]
        if shown.daemon.watch.mode == "poll":
            lines.append(
                Text(safe(f"  no file events, looks from time to time: {shown.daemon.watch.why}"), style="dim")
            )
    if shown.not_songs:
        lines.append(Text(safe(f"  {words.not_songs(shown)}"), style="dim"))
    lines += [Text(safe(f"  ! {warning}"), style="yellow") for warning in words.trouble(shown)[:3]]
    if is_cut:
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
    return list(lines)
