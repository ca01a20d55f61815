"""Lyrics with times as LRC, the text that players show line by line; ID3's SYLT is a list of texts and milliseconds. Pure.

[00:12.340]One <00:12.900>two        a line, and a word in it with a time of its own
"""

import re
from collections.abc import Iterable

Timed = list[tuple[str, int]]
"""Texts, each with its time in milliseconds. Where any begins with a line feed, that begins a line, else each is a line."""

_STAMP = re.compile(r"[\[<](\d{1,4}):(\d{2})(?:[.:](\d{1,3}))?[\]>]")


def of(timed: Iterable[tuple[str, int]]) -> str:
    """The LRC of timed texts."""
    timed = list(timed)
    by_line = all(not text.startswith("\n") for text, _ in timed)
    lines: list[str] = []
    for text, at in timed:
        stamp = f"{at // 60000:02d}:{at // 1000 % 60:02d}.{at % 1000:03d}"
        words = text.replace("\r", "").strip("\n").replace("\n", " ")
        if by_line or not lines or text.startswith("\n"):
            lines.append(f"[{stamp}]{words}")
        else:
            lines[-1] += f"<{stamp}>{words}"
    return "\n".join(lines)


def timed(text: str) -> Timed:
    """The timed texts of an LRC; empty where a line has no time, or is a heading such as `[ar:...]`."""
    found: Timed = []
    for line in text.splitlines():
        parts = _STAMP.split(line)
        if len(parts) < 2 or parts[0].strip():
            return []
        for at in range(1, len(parts), 4):
            minutes, seconds, fraction, words = parts[at : at + 4]
            time = (int(minutes) * 60 + int(seconds)) * 1000 + int((fraction or "0").ljust(3, "0"))
            found.append((f"\n{words}" if at == 1 and found else words, time))
    return found
