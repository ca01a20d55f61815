"""Text that is safe on a terminal, in a log and for systemd. Pure.

Names of files, and messages with such names, can hold characters that a terminal obeys as commands and that begin a new
line in a log or in what systemd is told. They are shown as U+FFFD.
"""

import re

OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: a terminal takes U+009B, in UTF-8 too, for the beginning of a command
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: `gpj.exe` must not look like `exe.jpg`
    "\u2028\u2029"  # line and paragraph
    "\ud800-\udfff]"  # stray bytes, as Python decodes them
)


def safe(text: str) -> str:
    """`text` on one line, without control characters."""
    return OBEYED.sub("\ufffd", text)
