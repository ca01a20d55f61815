"""The page of a result, `index.html`: its stems in the player, by double click as from a server. Pure.

It is one file that knows its stems by relative URLs: the script, the style and the waveforms are in it. At most 20 kB of it
are its own, and 1,000 points of each stem's waveform come along in base64.
"""

import base64
from collections.abc import Sequence

import msgspec

from demixd.protocol.job import StemFile
from demixd.protocol.pages import markup
from demixd.protocol.peaks import Peaks, reduced

POINTS = 1000
"""Of each stem, at most."""

TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg; codecs=opus",
    "m4a": "audio/mp4",
    "alac": "audio/mp4; codecs=alac",
}
"""Media types of the formats that stems have."""


def page(song: str, files: Sequence[StemFile], peaks: Peaks | None) -> bytes:
    """The page of the song called `song`, whose stems lie in `files`, by their names below the page's own folder."""
    title = song.rpartition(".")[0] or song
    script, style = markup.source("player.js"), markup.source("player.css")
    links = "\n".join(f'<li><a href="{markup.url(file.name)}">{markup.escaped(file.name)}</a></li>' for file in files)
    body = f"""<main class="demixd-page">
{markup.element("h1", title)}
<div id="demixd-player">
<ul>
{links}
</ul>
</div>
</main>
<script type="application/json" id="demixd-song">{_json(title, files, peaks)}</script>
<script>{script}</script>"""
    # `file:` stands for itself: a page in a folder has no origin that 'self' could be.
    policy = f"; script-src {markup.digest(script)}; media-src 'self' file:; connect-src 'self'"
    return markup.page(title=title, policy=policy, style=style, body=body)


def _json(title: str, files: Sequence[StemFile], peaks: Peaks | None) -> str:
    """The song as the player is given it; nothing in it can end the element that holds it."""
    first = files[0]
    stems = [
        {
            "name": file.name,
            "label": file.stem,
            "url": markup.url(file.name),
            "type": TYPES.get(file.format, ""),
            "bytes": file.bytes,
        }
        for file in files
    ]
    song = {
        "title": title,
        "stems": stems,
        "peaks": _waveforms(peaks, len(files)) if peaks else None,
        "rate": first.rate,
        "frames": first.frames,
        "channels": first.channels,
    }
    return msgspec.json.encode(song).decode().replace("<", "\\u003c")


def _waveforms(peaks: Peaks, stems: int) -> dict[str, object]:
    """As many waveforms as there are stems, in the form of peaks.json but for the numbers, which are bytes in base64.

    A file of several streams has the song in its first one, which is what players play.
    """
    small = reduced(peaks, POINTS, stems)
    data = base64.b64encode(bytes(value & 0xFF for value in small.data)).decode()
    return {**msgspec.structs.asdict(small), "data": data}
