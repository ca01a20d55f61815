"""The page of a result: small, harmless whatever the song is called, and true to its waveforms."""

import base64
import hashlib
import html
import json
import random
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from demixd.protocol.job import StemFile
from demixd.protocol.pages import markup, player
from demixd.protocol.peaks import Peaks, reduced

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"><img src=x onerror='alert(1)'>",
    "&lt;b&gt; & &amp;",
    "\u202egpj.exe\u202c",
    "\u05e9\u05d9\u05e8 \u200f(2)\u200e",
    "\U0001f3b8 \U0001f469\u200d\U0001f3a4",
    "]]>--></title></h1>",
    "javascript:alert(1)",
    "a\u2028b\u2029c",
]


def stem(name: str, label: str = "vocals") -> StemFile:
    return StemFile(
        stem=label,
        name=name,
        format="wav",
        subtype="PCM_16",
        frames=44100,
        rate=44100,
        channels=2,
        bytes=1000,
        sha256="0" * 64,
        peak=1.0,
        gain_db=0.0,
    )


class Parsed(HTMLParser):
    """Elements, and the text of each kind of them."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        name = f"{tag} {dict(attrs).get('type', '')}".strip()
        self._open.append(name)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().split()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    @property
    def song(self) -> Any:
        return json.loads(self.texts["script application/json"])


def test_at_most_20_000_bytes_of_its_own() -> None:
    """What is the same on every page has at most 20,000 bytes."""
    page = player.page("S.wav", [stem("v.wav")], None)
    data = Parsed(page).texts["script application/json"]
    assert len(page) - len(data) <= 20_000


def test_1000_points_a_stem() -> None:
    """A page grows by the points of each stem, 1,000 at most, two bytes each in base64, and by little else."""
    peaks = Peaks(channels=4, sample_rate=44100, samples_per_pixel=2000, length=4000, data=[-5, 5] * 16000)
    files = [stem(f"{number}.wav", str(number)) for number in range(4)]
    with_peaks, without = player.page("S.wav", files, peaks), player.page("S.wav", files, None)
    assert 0 < len(with_peaks) - len(without) - 4 * 1000 * 2 * 4 / 3 < 150


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_harmless(name: str) -> None:
    """Whatever a song and its stems are called, a page has the same elements and attributes, and shows that name."""
    plain = Parsed(player.page("S.wav", [stem("v.wav")], None))
    page = Parsed(player.page(f"{name}.wav", [stem(f"{name}.wav", name)], None))
    assert page.tags == plain.tags
    assert [each[:2] for each in page.attributes] == [each[:2] for each in plain.attributes]
    assert page.song["title"] == page.song["stems"][0]["label"] == name
    shown = html.unescape(markup.escaped(name))
    assert page.texts["h1"] == page.texts["title"] == shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", shown)
    assert [value for tag, key, value in page.attributes if (tag, key) == ("h1", "dir")] == ["auto"]
    assert page.texts["script"] == plain.texts["script"]


@pytest.mark.parametrize("name", [*HOSTILE, "a b/c#d?e%41/f.wav", "//host/x", "../x", "C:x", "ä/ü"])
def test_urls_lead_to_the_stems(name: str) -> None:
    """A stem's URL is relative and percent-encoded: it stays in the page's folder and is that name again when it is read."""
    base = "http://nas:8377/results/Song/index.html"
    page = Parsed(player.page("S.wav", [stem(name)], None))
    links = [value for tag, key, value in page.attributes if (tag, key) == ("a", "href")]
    for url in (page.song["stems"][0]["url"], *links):
        assert re.fullmatch(r"\./[A-Za-z0-9._~/%-]+", url)
        found = urlsplit(urljoin(base, url))
        assert (found.scheme, found.netloc, found.query, found.fragment) == ("http", "nas:8377", "", "")
        assert unquote(url) == f"./{name}"


def test_the_policy_names_what_is_in_the_page() -> None:
    """The Content-Security-Policy allows the script and the style of the page by their hashes, and no other."""
    page = Parsed(player.page("S.wav", [stem("v.wav")], None))
    (policy,) = [value for tag, _, value in page.attributes if tag == "meta" and "default-src" in value]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == digest(page.texts["script"])
    assert rules["style-src"] == digest(page.texts["style"])
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "http" not in policy


@pytest.mark.parametrize("name", ["player.js", "player.css"])
def test_a_packed_source_can_stand_in_a_page(name: str) -> None:
    """No text in a script or style ends the element that holds it, or is a comment that a page would keep."""
    packed = markup.source(name)
    assert not re.search(r"</|<!--|//|/\*|\s\s|[\n\t]", packed)


@pytest.mark.parametrize("length", [1, 2, 999, 1000, 1001, 1999, 2000, 2001, 3999, 4000])
def test_fewer_points(length: int) -> None:
    """A point of fewer is the lowest and highest of those that it stands for, exactly, to the last one."""
    rng = random.Random(length)
    data = [value for _ in range(length * 3) for value in sorted((rng.randint(-128, 127), rng.randint(-128, 127)))]
    peaks = Peaks(channels=3, sample_rate=44100, samples_per_pixel=7, length=length, data=data)
    small = reduced(peaks, 1000, 2)
    step = small.samples_per_pixel // 7
    assert small.channels == 2 and small.length == -(-length // step) <= 1000
    assert step == 1 or -(-length // (step - 1)) > 1000
    for point in range(small.length):
        for channel in range(2):
            group = range(point * step, min((point + 1) * step, length))
            expected = [
                min(data[6 * at + 2 * channel] for at in group),
                max(data[6 * at + 2 * channel + 1] for at in group),
            ]
            assert small.data[4 * point + 2 * channel : 4 * point + 2 * channel + 2] == expected


def test_points_are_bytes_in_base64() -> None:
    """Each value is one signed byte."""
    peaks = Peaks(channels=1, sample_rate=44100, samples_per_pixel=44, length=2, data=[-128, 127, -1, 0])
    found = Parsed(player.page("S.wav", [stem("v.wav")], peaks)).song["peaks"]
    assert base64.b64decode(found["data"]) == b"\x80\x7f\xff\x00"
    assert (found["version"], found["bits"], found["length"], found["channels"]) == (2, 8, 2, 1)
