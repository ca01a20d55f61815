"""What a terminal would obey, a log would break at, and systemd would take for another line. Pure.

Names and messages come from others. Such signs in them are shown as U+FFFD and never sent.
"""

import re

OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: in UTF-8 too a terminal takes U+009B for the beginning of a command
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: `gpj.exe` must not look like `exe.jpg`
    "\u2028\u2029"  # line and paragraph
    "\ud800-\udfff]"  # stray bytes, as Python decodes them
)


def safe(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return OBEYED.sub("\ufffd", text)
