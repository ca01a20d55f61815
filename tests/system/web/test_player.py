"""The player, in a real browser: opened from a folder, and served."""

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from browser import Browser, Page, faults, launched, layouts, window
from demixd.audio.waveform import Waveform, measured
from demixd.protocol.job import StemFile
from demixd.protocol.pages import player
from pages import soon

browser = pytest.fixture(launched, scope="module")

RATE, SECONDS = 44100, 30
FRAMES = RATE * SECONDS
STEP = 1e-4
"""Chromium divides positive integers by one less than negative ones: three stems are less than so much off."""
NAMES = ("vocals", "drums", "bass & <b>more</b>")
CLICKS = {"vocals": (1000, 400_000), "drums": (1000, 400_000), "bass & <b>more</b>": (77_777,)}
SONG = "Sömmer </script> \U0001f3b8.flac"


def sound(name: str) -> NDArray[np.int16]:
    """Quiet noise, with clicks."""
    audio = np.random.default_rng(len(name)).integers(-500, 500, (FRAMES, 2), dtype=np.int16)
    for frame in CLICKS[name]:
        audio[frame] = 15_000
    return audio


def made(folder: Path, stems: dict[str, NDArray[np.int16]], song: str = SONG) -> tuple[list[StemFile], Any]:
    """The stems as files in `folder`, in WAV and FLAC, and their waveforms."""
    folder.mkdir(parents=True, exist_ok=True)
    files, waveforms = [], []
    for number, (name, audio) in enumerate(stems.items()):
        format = "flac" if number % 2 else "wav"
        path = folder / f"{number} 100% #{number}.{format}"
        soundfile.write(path, audio, RATE, subtype="PCM_16")
        waveforms.append(Waveform(*audio.shape))
        waveforms[-1].feed(audio)
        files.append(
            StemFile(
                stem=name,
                name=path.name,
                format=format,
                subtype="PCM_16",
                frames=len(audio),
                rate=RATE,
                channels=2,
                bytes=path.stat().st_size,
                sha256="0" * 64,
                peak=1.0,
                gain_db=0.0,
            )
        )
    return files, measured(waveforms, RATE)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outbox") / "a b"
    files, peaks = made(folder, {name: sound(name) for name in NAMES})
    (folder / "index.html").write_bytes(player.page(SONG, files, peaks))
    middling = [msgspec.structs.replace(file, frames=8_000_000) for file in files]
    (folder / "middling.html").write_bytes(player.page("middling.wav", middling, None))
    large = [msgspec.structs.replace(file, frames=40_000_000) for file in files]
    (folder / "large.html").write_bytes(player.page("large.wav", large, None))
    (folder / "alac.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(1000))
    strange = msgspec.structs.replace(files[0], stem="strange", name="alac.m4a", format="alac")
    (folder / "strange.html").write_bytes(player.page("strange.wav", [strange, *files[1:]], None))
    (folder / "nothing.html").write_bytes(player.page("nothing.wav", [strange], None))
    (folder / "plain.html").write_bytes(player.page("plain.wav", files, None))
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and the rest of a file from where a browser asks for it."""

    def send_head(self) -> Any:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            return super().send_head()
        size, first = path.stat().st_size, int(asked[1])
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        file = path.open("rb")
        file.seek(first)
        return file

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # a browser stops reading when it has enough
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(result: Path) -> Iterator[str]:
    """The folder, served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=result)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


RECORDER = """
window.starts = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
    window.starts.push([when, offset, this.loop, this.loopStart, this.loopEnd]);
    return start.call(this, when, offset);
};
"""
"""Notes what sources are told."""


class Player:
    """The player of a page, of which DevTools are asked: what Playwright evaluates is somebody's gesture to Chromium."""

    def __init__(self, page: Page) -> None:
        self.page, self.devtools = page, page.context.new_cdp_session(page)
        page.add_init_script(RECORDER)

    def open(self, url: str) -> None:
        self.page.goto(url)
        soon(lambda: self.one(".dp-play", "ariaBusy") == "false")
        assert not self.run("return navigator.userActivation.hasBeenActive")

    def run(self, script: str, *words: Any) -> Any:
        """What the body of a function of `words` returns."""
        called = {
            "expression": f"(async (...words) => {{{script}}})(...{json.dumps(words)})",
            "awaitPromise": True,
            "returnByValue": True,
        }
        answer = self.devtools.send("Runtime.evaluate", called)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def all(self, selector: str, property: str) -> list[Any]:
        """A property of each element."""
        script = "return [...document.querySelectorAll(words[0])].map((each) => each[words[1]])"
        return list(self.run(script, selector, property))

    def one(self, selector: str, property: str) -> Any:
        return self.all(selector, property)[0]

    def middle(self, selector: str, number: int = 0) -> tuple[float, float, float]:
        """The middle of an element that nothing covers there, and how wide it is."""
        script = """
            const each = document.querySelectorAll(words[0])[words[1]];
            each.scrollIntoView({block: "center"});
            const {left, top, width, height} = each.getBoundingClientRect();
            const [x, y] = [left + width / 2, top + height / 2];
            return [x, y, width, each.contains(document.elementFromPoint(x, y))];
        """
        x, y, width, is_met = self.run(script, selector, number)
        assert is_met, selector
        return x, y, width

    def click(self, selector: str, number: int = 0) -> None:
        x, y, _ = self.middle(selector, number)
        self.page.mouse.click(x, y)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def position(self) -> float:
        return float(self.one(".dp-line", "ariaValueNow"))

    @property
    def plays(self) -> bool:
        return bool(self.one(".dp-play", "ariaLabel") == "Pause")

    @property
    def loop(self) -> list[float]:
        """The seconds between which a loop is marked."""
        style = "document.querySelector('.demixd-player').style.getPropertyValue(name)"
        return [SECONDS * each for each in self.run(f"return ['--a', '--b'].map((name) => Number({style}))")]

    def pressed(self, kind: str) -> list[bool]:
        """Whether the button `mute` or `solo` of each stem is pressed."""
        return [each == "true" for each in self.all(f".dp-{kind}", "ariaPressed")]

    def in_step(self) -> bool:
        """Whether the media elements are within 40 ms, and at their own speed again."""
        return self.apart() < 0.04 and set(self.all("audio", "playbackRate")) == {1}

    def comes_in_step(self) -> bool:
        """Whether it is so soon, and stays so for some looks: a machine that has other work shows what was a moment ago."""
        found: list[bool] = []
        soon(lambda: bool(found.append(all(self.in_step() for _ in range(3)))) or found[-1])
        return found[-1]

    def apart(self) -> float:
        """Seconds between the first and the last media element."""
        times = self.all("audio", "currentTime")
        return float(max(times) - min(times))

    def rendered(self, offset: float, frames: int) -> NDArray[np.float32]:
        """What the graph gives, `[T, 2]`."""
        script = """
            await demixdPlayer.here.ready;
            const mix = await demixdPlayer.here.render(...words);
            return [0, 1].map((channel) => [...mix.getChannelData(channel)]);
        """
        return np.array(self.run(script, offset, frames), np.float32).T


@pytest.fixture
def page(browser: Browser) -> Iterator[Player]:
    with window(browser) as page:
        yield Player(page)


@contextlib.contextmanager
def opened(
    browser: Browser, url: str, width: int = 1280, *, dark: bool = False, calm: bool = False
) -> Iterator[Player]:
    """The player of a window of its own."""
    with window(browser, width, dark=dark, calm=calm) as page:
        (player := Player(page)).open(url)
        yield player


def test_stems_are_in_step_to_the_sample(page: Player, address: str) -> None:
    """Two clicks at the same frame of two files are one sample of the mix, which is the sum of the stems everywhere."""
    page.open(f"{address}/index.html")
    first, frames = 500, 100_000
    mix = page.rendered(first / RATE, frames)
    parts = [sound(name)[first : first + frames].astype(np.float32) / 32768 for name in NAMES]
    assert np.abs(mix - np.sum(parts, axis=0)).max() < STEP
    assert int(np.argmax(np.abs(mix[:, 0]))) == 1000 - first


def test_what_is_heard(page: Player, address: str) -> None:
    """Soloed stems are heard where there are any, else those that are not muted; a fader sets how loud."""
    page.open(f"{address}/index.html")
    vocals, drums, bass = (sound(name)[:5000].astype(np.float32) / 32768 for name in NAMES)

    def is_mix(expected: NDArray[np.float32]) -> bool:
        return bool(np.abs(page.rendered(0, 5000) - expected).max() < STEP)

    page.click(".dp-mute", 0)
    assert is_mix(drums + bass)
    page.click(".dp-solo", 0)
    assert is_mix(vocals)
    page.click(".dp-solo", 1)
    assert is_mix(vocals + drums)
    page.click(".dp-solo", 0)
    page.click(".dp-solo", 1)
    assert is_mix(drums + bass)
    page.click(".dp-mute", 0)
    page.run(
        "const fader = document.querySelector('.dp-fader'); fader.value = 50; fader.dispatchEvent(new Event('input'))"
    )
    assert is_mix(vocals / 4 + drums + bass)


def test_all_sources_start_as_one(page: Player, address: str) -> None:
    """At every start, seek and loop all stems are told the same time and place, on the grid of samples."""
    page.open(f"{address}/index.html")
    page.click(".dp-play")
    soon(lambda: page.position > 0.3)
    page.press("ArrowRight", "ArrowRight", "l")
    soon(lambda: page.position > 10.5)
    page.press("l")
    soon(lambda: len(page.run("return starts")) >= 4 * len(NAMES))
    starts = page.run("return starts")
    turns = [starts[at : at + len(NAMES)] for at in range(0, len(starts), len(NAMES))]
    assert len(turns) == 4
    for turn in turns:
        assert all(each == turn[0] for each in turn)
        when, offset, *_ = turn[0]
        assert when * RATE == pytest.approx(round(when * RATE), abs=1e-3)
        assert offset * RATE == pytest.approx(round(offset * RATE), abs=1e-3)
    *_, (_, _, is_loop, start, end) = starts
    assert is_loop and 10 < start < end and [start, end] == pytest.approx(page.loop, abs=1e-3)
    assert all(start - 0.1 <= page.position <= end + 0.1 for _ in range(50))


@pytest.mark.daily
def test_opened_from_a_folder(page: Player, result: Path) -> None:
    """Without a server the stems start together, and are brought together where they are apart; the page says how well."""
    page.open((result / "index.html").as_uri())
    assert "only approximately" in page.one(".demixd-player", "innerText")
    page.click(".dp-play")
    soon(lambda: page.position > 1)
    assert page.comes_in_step() and page.plays
    for jump in (0.1, -0.1, 2.0):
        apart = page.run(f"""
            const [one, other] = document.querySelectorAll('audio');
            other.currentTime += {jump};
            return Math.abs(other.currentTime - one.currentTime);
        """)
        assert apart > 0.04
        assert page.comes_in_step()
    assert not any(page.all("audio", "paused"))
    page.click(".dp-mute", 1)
    assert page.all("audio", "volume") == [1, 0, 1]
    page.click(".dp-play")
    assert page.apart() == 0 and not page.plays


@pytest.mark.daily
def test_a_loop_from_a_folder(page: Player, result: Path) -> None:
    """Media elements go back to the loop's start together."""
    page.open((result / "index.html").as_uri())
    page.click(".dp-play")
    soon(lambda: page.position > 0.4)
    page.press("l")
    soon(lambda: page.position > 1.4)
    page.press("l")
    start, end = page.loop
    assert start > 0.3 and end > 1.3
    places: list[float] = []
    soon(
        lambda: (
            places.append(page.position) or (max(places) > end - 0.2 and places[-1] < start + 0.6 and len(places) > 50)
        )
    )
    assert max(places) < end + 0.8 and min(places) > start - 0.1
    page.press("l")
    soon(lambda: page.position > max(places) + 0.3)
    assert page.position > max(places)


@pytest.mark.parametrize("where", ["folder", pytest.param("server", marks=pytest.mark.daily)])
def test_keyboard_alone(page: Player, address: str, result: Path, where: str) -> None:
    """Every control is reached by the tab key, and the keys do what they say."""
    page.open(f"{address}/index.html" if where == "server" else (result / "index.html").as_uri())
    reached = []
    for _ in range(20):
        page.press("Tab")
        reached.append(page.run("return document.activeElement.className || document.activeElement.tagName"))
        if reached.count("dp-play") > 1:
            break
    controls = [name for _ in NAMES for name in ("dp-fader", "dp-mute", "dp-solo")]
    assert [name for name in reached if name != "BODY"][: 3 + len(controls)] == [
        "dp-play",
        "dp-a",
        "dp-line",
        *controls,
    ]
    page.run("document.activeElement.blur()")
    page.press(" ")
    soon(lambda: page.position > 0.2)
    assert page.plays
    page.press(" ")
    assert not page.plays
    page.press("2")
    assert page.pressed("mute") == [False, True, False]
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: '!', code: 'Digit1', shiftKey: true}))")
    page.run(
        "document.body.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: '!', code: 'Digit1', shiftKey: true, bubbles: true}))"
    )
    assert page.pressed("solo") == [True, False, False]
    page.run("document.querySelector('.dp-line').focus()")
    at = page.position
    for key, place in (
        ("ArrowRight", at + 5),
        ("ArrowUp", at + 10),
        ("ArrowLeft", at + 5),
        ("PageUp", SECONDS),
        ("PageDown", 0),
        ("End", SECONDS),
        ("Home", 0),
    ):
        page.press(key)
        assert page.position == pytest.approx(place, abs=0.2)
    page.run("document.querySelector('.dp-fader').focus()")
    page.press("ArrowLeft")
    assert page.one(".dp-fader", "ariaValueText") == "99 %"
    assert page.position == 0


def test_seek_by_pointer(page: Player, address: str) -> None:
    """A click on the time line, or on any waveform, seeks; a drag seeks to where it ends."""
    page.open(f"{address}/index.html")
    for selector in (".dp-line", ".dp-wave"):
        page.click(selector)
        assert page.position == pytest.approx(SECONDS / 2, abs=0.1)
        x, y, wide = page.middle(selector)
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        page.page.mouse.move(x + wide / 4, y)
        page.page.mouse.up()
        assert page.position == pytest.approx(SECONDS * 3 / 4, abs=0.1)


@pytest.mark.daily
def test_state_is_kept(page: Player, address: str) -> None:
    """Faders, mute and solo are as they were left when the page is opened again; other songs have their own."""
    page.open(f"{address}/index.html")
    page.press("2")
    page.click(".dp-solo", 2)
    page.run(
        "const fader = document.querySelector('.dp-fader'); fader.value = 30; fader.dispatchEvent(new Event('input'))"
    )
    page.page.reload()
    assert (page.pressed("mute"), page.pressed("solo")) == ([False, True, False], [False, False, True])
    assert page.one(".dp-fader", "value") == "30"
    page.page.goto(f"{address}/plain.html")
    assert not any(page.pressed("mute") + page.pressed("solo"))


def test_a_stem_that_cannot_be_played(page: Player, address: str) -> None:
    """It is offered for download, and the others play."""
    page.open(f"{address}/strange.html")
    told = page.one(".dp-stem p", "innerText")
    assert told == "strange is not there, or this browser cannot play it. Download strange"
    assert page.one(".dp-stem p a", "href") == f"{address}/alac.m4a"
    page.click(".dp-play")
    soon(lambda: page.position > 0.3)
    assert page.plays
    assert len(page.run("return starts")) == len(NAMES) - 1


@pytest.mark.parametrize("where", ["folder", pytest.param("server", marks=pytest.mark.daily)])
def test_no_stem_that_can_be_played(page: Player, address: str, result: Path, where: str) -> None:
    """There is nothing to play then, also for who has pressed play before that was known."""
    page.open(f"{address}/nothing.html" if where == "server" else (result / "nothing.html").as_uri())
    page.page.reload()
    page.run("document.querySelector('.dp-play').click()")
    soon(lambda: page.one(".dp-play", "disabled"))
    assert page.one(".dp-play", "disabled") and not page.plays
    assert page.one(".dp-stem a", "innerText") == "Download strange"


@pytest.mark.daily
def test_a_song_that_is_too_large_streams(page: Player, address: str) -> None:
    """Above 400 MB of samples the stems are streamed, in step within 40 ms, by gain nodes; the page says so."""
    page.open(f"{address}/large.html")
    assert "too large to be held in memory" in page.one(".demixd-player", "innerText")
    page.click(".dp-play")
    soon(lambda: page.position > 1)
    assert page.comes_in_step() and page.plays
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    soon(lambda: page.position > 15)
    assert page.position > 15 and page.comes_in_step()
    page.click(".dp-solo", 1)
    assert page.all("audio", "volume") == [1, 1, 1]


@pytest.mark.parametrize(
    ("width", "streams"),
    [pytest.param(390, True, id="phone"), pytest.param(1280, False, id="computer", marks=pytest.mark.daily)],
)
def test_what_is_too_large(browser: Browser, address: str, width: int, streams: bool) -> None:
    """A phone streams from 150 MB on; here a song has 192 MB."""
    with opened(browser, f"{address}/middling.html", width) as page:
        assert bool(page.all("audio", "src")) is streams
        assert ("too large to be held in memory" in page.one(".demixd-player", "innerText")) is streams


@pytest.mark.daily
def test_the_end(page: Player, address: str) -> None:
    """At its end a song stops, and begins anew when it is played again."""
    page.open(f"{address}/index.html")
    page.run("document.querySelector('.dp-line').focus()")
    page.press("End", "ArrowLeft")
    page.click(".dp-play")
    page.press("End")
    soon(lambda: not page.plays)
    assert not page.plays and page.position == 0
    page.click(".dp-play")
    soon(lambda: page.position > 0.2)
    assert page.position > 0


@layouts
def test_accessible_at_every_size(browser: Browser, address: str, width: int, dark: bool) -> None:
    """axe finds no serious fault, nothing is wider than the screen, and what a finger meets is 44 pixels high."""
    with opened(browser, f"{address}/index.html", width, dark=dark) as page:
        page.click(".dp-mute", 0)
        page.click(".dp-solo", 1)
        page.press("l")
        assert faults(page.page) == []
        assert all(height >= 44 for height in page.all("button, .dp-fader, .dp-line", "offsetHeight"))
        drawn = page.run("""
            const canvas = document.querySelectorAll('.dp-played')[1];
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.width / canvas.clientWidth, data.some((each) => each)];
        """)
        assert drawn == [pytest.approx(2, abs=0.01), True]


@pytest.mark.daily
def test_without_movement(browser: Browser, address: str) -> None:
    """Where less movement is asked for, the playhead moves twice a second."""
    with opened(browser, f"{address}/index.html", calm=True) as page:
        page.click(".dp-play")
        soon(lambda: page.position > 0.5)
        page.run("""
            window.moves = 0;
            const root = document.querySelector('.demixd-player'), line = document.querySelector('.dp-line');
            const end = Number(line.ariaValueNow) + 2;
            new MutationObserver((_, observer) => {
                window.moves += 1;
                window.ended = Number(line.ariaValueNow) > end;
                if (ended) observer.disconnect();
            }).observe(root, {attributeFilter: ['style']});
        """)
        soon(lambda: page.run("return Boolean(window.ended)"))
        assert 2 <= page.run("return moves") <= 7


@pytest.mark.daily
def test_without_waveforms(page: Player, address: str) -> None:
    """Without peaks there is a plain line for each stem, and all else works."""
    page.open(f"{address}/plain.html")
    rows = page.run("""
        const canvas = document.querySelector('.dp-rest');
        const {data} = canvas.getContext('2d').getImageData(canvas.width / 2, 0, 1, canvas.height);
        return data.filter((each, at) => at % 4 === 3 && each).length;
    """)
    assert rows == 2


WRONG: list[Any] = [
    None,
    [],
    {},
    "peaks",
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": [0] * 59},
    {"bits": 8, "channels": 2, "length": 10, "samples_per_pixel": 1, "data": [0] * 40},
    {"bits": 16, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": [0] * 60},
    {"bits": 8, "channels": 3, "length": 1e9, "samples_per_pixel": 1, "data": []},
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": "AAAA"},
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": "no base64 \u00fc"},
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 0, "data": [0] * 60},
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": [None] * 60},
    {"bits": 8, "channels": 3, "length": 10, "samples_per_pixel": 1, "data": [1e9] * 60},
]


@pytest.mark.daily
def test_peaks_and_manifests_are_never_believed(page: Player, address: str) -> None:
    """Whatever they say, there is a player, with links to nothing but this server."""
    page.open(f"{address}/plain.html")
    script = """
        const [peaks, more, url] = words, place = document.createElement("div");
        document.body.append(place);
        const stems = [1, 2, 3].map((number) => ({name: `${number}`, label: `${number}`, url, type: "", bytes: 1}));
        const song = {title: "t", stems, peaks, rate: 44100, frames: 1000, channels: 2, served: true, ...more};
        const made = demixdPlayer(place, song);
        await made.ready;
        const found = [place.querySelectorAll(".dp-stem").length, [...place.querySelectorAll("a")].map((each) => each.href)];
        made.destroy();
        return [...found, place.childElementCount];
    """
    good = page.run(
        "return new URL(JSON.parse(document.getElementById('demixd-song').textContent).stems[0].url, location).href"
    )
    for peaks in WRONG:
        assert page.run(script, peaks, {}, good) == [3, [], 0]
    for more in ({"rate": -1, "frames": "x", "channels": 1e9}, {"title": None, "frames": 1e300}):
        assert page.run(script, None, more, good)[0] == 3
    for url in ("javascript:alert(1)", "http://127.0.0.1:1/x", "data:,", "file:///etc/passwd", "http://"):
        assert page.run(script, None, {}, url) == [3, [], 0]
