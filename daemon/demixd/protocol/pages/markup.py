"""What pages are made of: text that is harmless in them, and scripts and styles that they have inline. Pure.

Names of songs are others' words. They are escaped, and what would change the direction of the text around them is shown as
U+FFFD; every element that has one isolates the direction of the letters in it.
"""

import base64
import hashlib
import html
import re
from functools import cache
from importlib import resources
from urllib.parse import quote

from demixd.protocol.terminal import safe

_WHOLE = r"""(?P<kept>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)"""
_COMMENT = re.compile(rf"{_WHOLE}|/\*.*?\*/|//[^\n]*", re.DOTALL)
_BLANKS = {
    "js": re.compile(rf"{_WHOLE}|[\s;]*(?P<end>\}})\s*|\s*(?P<sign>[{{()\[\];,=?:<>&|*/%+-])\s*|(?P<blank>\s+)"),
    "css": re.compile(rf"{_WHOLE}|[\s;]*(?P<end>\}})\s*|\s*(?P<sign>[{{;,])\s*|(?<=:)\s+|(?P<blank>\s+)"),
}
"""What may stand around what has a meaning: in a script around any sign, in a style around few."""


def escaped(text: str) -> str:
    """`text` as the content of an element, or in the quotes of an attribute."""
    return html.escape(safe(text))


def element(name: str, text: str) -> str:
    """An element that holds others' words, whatever their direction."""
    return f'<{name} dir="auto">{escaped(text)}</{name}>'


def url(path: str) -> str:
    """A relative path as a URL. The dot keeps a colon in its first part from being a scheme."""
    return f"./{quote(path, errors='surrogateescape')}"


@cache
def source(name: str) -> str:
    """The script or style `name` of this package, without comments, and without blanks where none are needed."""

    def needed(found: re.Match[str]) -> str:
        return found["kept"] or found["end"] or found["sign"] or (" " if found["blank"] else "")

    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    bare = _COMMENT.sub(lambda found: found["kept"] or " ", text)
    return _BLANKS[name.rpartition(".")[2]].sub(needed, bare).strip()


def digest(inline: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


def page(*, title: str, policy: str, style: str, body: str, head: str = "") -> bytes:
    """A whole page. `policy`: what it may do beyond showing itself in its `style`."""
    allowed = (
        f"default-src 'none'; style-src {digest(style)}; img-src data:; base-uri 'none'; form-action 'none'{policy}"
    )
    # Without an icon of its own a browser asks the server for one.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{head}<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
""".encode("utf-8", "replace")
