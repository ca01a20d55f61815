"""The page in a real Chromium: what people do with it, on a phone and on a desk, by day and by night, and by keyboard alone."""

import base64
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="config/requirements-web.lock is not installed: tests/run installs it")

from browser import Browser, Page, expect, faults, launched, layouts, window
from daemons import CLIENT_BEAT_S, Daemon, make_song
from site_of import Site, serving

browser = pytest.fixture(launched, scope="module")

DROP = """
async ([names, data]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), each => each.charCodeAt(0));
    for (const name of names) transfer.items.add(new File([bytes], name));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
}
"""
"""Files that are dropped onto the page."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("browser")
    calm = {"heartbeat_s": CLIENT_BEAT_S, "progress_s": 0.05}
    daemon = Daemon(folder, fake=True, status=calm, profiles={"karaoke": {}}).start()
    try:
        yield daemon.ready()
    finally:
        daemon.end()


@pytest.fixture(scope="module")
def site(daemon: Daemon) -> Iterator[Site]:
    with serving(daemon.config) as site:
        yield site


class Visitor:
    """Whoever has the link, in front of a window."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page, self.site = page, site
        page.goto(site.link)
        page.wait_for_url(f"{site.origin}/")

    def drop(self, path: Path, *names: str) -> None:
        self.page.evaluate(DROP, [list(names), base64.b64encode(path.read_bytes()).decode()])

    def go(self, page: str) -> None:
        self.page.goto(f"{self.site.origin}/#{page}")

    def open(self, name: str) -> None:
        """The page of a song, by way of the search."""
        self.go("songs")
        self.page.get_by_label("Search by name").fill(name)
        self.page.locator("#found").get_by_role("link", name=name).first.click()
        expect(self.page.locator("#song-title")).to_contain_text(name)


@pytest.fixture(autouse=True)
def no_hold(daemon: Daemon) -> Iterator[None]:
    """Whatever becomes of a test, the next one's songs are not held."""
    yield
    daemon.hold.unlink(missing_ok=True)


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visitor]:
    with window(browser, 390) as page:
        yield Visitor(page, site)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A song that no other test has: it is not one of which the result is there."""
    return make_song(tmp_path / f"{tmp_path.name}.wav", 1.0)


@pytest.fixture(scope="module")
def done(daemon: Daemon) -> str:
    """The name of a song that is done."""
    shutil.copy(make_song(daemon.folder / "Ready made.wav", 4.0), daemon.inbox / "Ready made.wav")
    assert daemon.final("Ready made.wav")["state"] == "done"
    return "Ready made.wav"


# ---- what people do


def test_a_song_is_dropped_and_done(daemon: Daemon, visitor: Visitor, sound: Path) -> None:
    """It goes through the page's eyes: it comes in, runs, makes progress, and is done."""
    page = visitor.page
    daemon.hold.touch()
    visitor.drop(sound, "Dropped.wav", "cover.jpg")
    expect(page.locator("#running")).to_contain_text("Dropped.wav")
    expect(page.locator("#running .sub")).to_contain_text(re.compile(r"Separating · [1-9]"))
    expect(page.locator("#said")).to_contain_text("no music")
    assert faults(page) == []
    daemon.hold.unlink()
    expect(page.locator("#last")).to_contain_text("Dropped.wav")
    expect(page.locator("#running-empty")).to_be_visible()
    assert (daemon.outbox / "Dropped" / "stems.json").exists()


def test_files_and_folders_are_chosen(daemon: Daemon, visitor: Visitor, sound: Path, tmp_path: Path) -> None:
    """The buttons do the same, with the stems that are wished for; a folder keeps its shape."""
    page = visitor.page
    page.get_by_text("Which stems").click()
    page.get_by_label("Stems").select_option(label="Vocals alone")
    page.get_by_label("Profile").select_option("karaoke")
    album = tmp_path / "Album"
    album.mkdir()
    shutil.copy(sound, album / "One.wav")
    (album / "cover.jpg").write_bytes(b"x")
    page.locator("#folder").set_input_files(album)
    assert daemon.final("Album/One.wav")["options"]["stems"] == ["vocals"]
    assert daemon.song("Album/One.wav")["options"]["profile"] == "karaoke"
    page.locator("#files").set_input_files([album / "cover.jpg"])
    expect(page.locator("#uploads")).to_contain_text("no kind of music")


def test_the_result_is_played_and_taken(daemon: Daemon, visitor: Visitor, done: str) -> None:
    """It plays, one stem alone, from where somebody points; a stem and all of them are downloaded as they are."""
    page = visitor.page
    visitor.open(done)
    player = page.locator(".demixd-player")
    play = player.get_by_role("button", name=re.compile("play", re.IGNORECASE)).first
    play.click()
    expect(player.get_by_role("button", name=re.compile("pause", re.IGNORECASE)).first).to_be_visible()
    player.get_by_role("button", name="Pause").click()
    line = player.get_by_role("slider", name="Position")
    line.press("End")
    expect(line).to_have_attribute("aria-valuetext", re.compile("0:04"))
    solo = player.get_by_role("button", name=re.compile("solo", re.IGNORECASE)).first
    solo.click()
    expect(solo).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as one:
        page.get_by_role("link", name="Download vocals.wav").click()
    assert one.value.path().read_bytes() == (daemon.outbox / "Ready made" / "vocals.wav").read_bytes()
    with page.expect_download() as all_of_it:
        page.get_by_role("link", name="All as one ZIP").click()
    assert all_of_it.value.suggested_filename == "Ready made.zip"
    with zipfile.ZipFile(io.BytesIO(all_of_it.value.path().read_bytes())) as archive:
        assert archive.testzip() is None
        assert "Ready made/instrumental.wav" in archive.namelist()


@pytest.mark.daily
def test_many_songs_at_once(daemon: Daemon, visitor: Visitor, sound: Path) -> None:
    """They are sent one after the other, those that wait are counted, and all arrive."""
    names = [f"Many {number}.wav" for number in range(12)]
    visitor.drop(sound, *names)
    expect(visitor.page.locator("#said")).to_have_text("12 songs arrived.")
    for name in names:
        daemon.final(name)
    expect(visitor.page.locator("#uploads .row")).to_have_count(0)


@pytest.mark.daily
def test_a_song_that_is_there_already(daemon: Daemon, browser: Browser, site: Site, sound: Path) -> None:
    """It is not sent a second time: the row says why, and goes when it is dismissed."""
    with window(browser, 390, expected="status of 409") as page:
        visitor = Visitor(page, site)
        daemon.hold.touch()
        visitor.drop(sound, "Twice.wav")
        expect(visitor.page.locator("#running")).to_contain_text("Twice.wav")
        visitor.drop(sound, "Twice.wav")
        expect(visitor.page.locator("#uploads")).to_contain_text("already")
        visitor.page.get_by_role("button", name="Do not send Twice.wav").click()
        expect(visitor.page.locator("#uploads .row")).to_have_count(0)
        daemon.hold.unlink()
        daemon.final("Twice.wav")


def test_cancel_and_again(daemon: Daemon, visitor: Visitor, sound: Path) -> None:
    """A song that runs is stopped, says so, and is tried again."""
    page = visitor.page
    daemon.hold.touch()
    visitor.drop(sound, "Stopped.wav")
    page.get_by_role("button", name="Cancel Stopped.wav").click()
    expect(page.locator("#last")).to_contain_text("Stopped.wav")
    expect(page.locator("#last").get_by_text("Cancelled")).to_be_visible()
    daemon.quiet(1)
    daemon.hold.unlink()
    page.get_by_role("button", name="Try Stopped.wav again").click()
    expect(page.locator("#last .row").filter(has_text="Stopped.wav").get_by_text("Done")).to_be_visible()


def test_a_failed_song_says_why(daemon: Daemon, visitor: Visitor, tmp_path: Path) -> None:
    """What is wrong, and what to do, stand on its page."""
    noise = tmp_path / "noise"
    noise.write_bytes(b"no sound at all" * 100)
    visitor.drop(noise, "Noise.mp3")
    daemon.final("Noise.mp3")
    visitor.open("Noise.mp3")
    expect(visitor.page.locator("#song-trouble")).to_contain_text("The song is no audio")
    expect(visitor.page.locator("#song-trouble")).to_contain_text("What to do")
    assert faults(visitor.page) == []
    daemon.quiet()
    first = daemon.song("Noise.mp3")["job_id"]
    visitor.page.get_by_role("button", name="Try Noise.mp3 again").click()
    daemon.until(lambda: daemon.song("Noise.mp3")["job_id"] != first, "it is tried again")
    daemon.final("Noise.mp3")
    expect(visitor.page.locator("#song-title")).to_have_text("Noise.mp3")
    expect(visitor.page.get_by_role("button", name="Try Noise.mp3 again")).to_be_visible()


def test_pause_and_priority(daemon: Daemon, visitor: Visitor, sound: Path) -> None:
    """Songs wait during a pause, one is told to be first, and they go on."""
    page = visitor.page
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#sentence")).to_contain_text("paused")
    visitor.drop(sound, "Waits one.wav", "Waits two.wav")
    waits = page.locator("#queue .row, #waiting .row").filter(has_text="Waits two.wav")
    expect(waits).to_be_visible()
    assert faults(page) == []
    waits.get_by_role("link").click()
    page.get_by_label("Place in the queue").select_option(label="First")
    daemon.until(lambda: (daemon.inbox / "Waits two.wav.job.json").exists(), "it has options")
    assert (daemon.inbox / "Waits two.wav.job.json").read_text() == '{"priority": 90}\n'
    visitor.go("now")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#sentence")).to_contain_text("ready")
    for name in ("Waits one.wav", "Waits two.wav"):
        daemon.final(name)


@pytest.mark.daily
def test_the_daemon_dies_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    """The page says that it is gone, and by itself that it is there again."""
    daemon = Daemon(tmp_path, fake=True, status={"heartbeat_s": CLIENT_BEAT_S}).start()
    try:
        daemon.ready()
        with serving(daemon.config) as site, window(browser, 390) as page:
            Visitor(page, site)
            expect(page.locator("#health")).to_have_attribute("data-mood", "well")
            daemon.end()
            expect(page.locator("#sentence")).to_contain_text("not running")
            expect(page.locator("#health")).to_have_attribute("data-mood", "ill")
            daemon.start().ready()
            expect(page.locator("#health")).to_have_attribute("data-mood", "well")
    finally:
        daemon.end()


@pytest.mark.daily
def test_the_server_dies_and_comes_back(daemon: Daemon, browser: Browser) -> None:
    """The page says that its server is gone, and what is shown is true again once it is back."""
    with serving(daemon.config) as site, window(browser, 390, expected="net::ERR") as page:
        Visitor(page, site)
        expect(page.locator("#sentence")).to_contain_text("ready")
        assert site.stop() == 0
        expect(page.locator("#lost")).to_be_visible()
        site.start()
        expect(page.locator("#lost")).to_be_hidden()


def test_names_of_others(daemon: Daemon, visitor: Visitor, sound: Path) -> None:
    """Markup in a name is text, marks that turn its direction are seen, and right-to-left names have their own direction."""
    page = visitor.page
    names = ["<img src=x onerror=alert(1)>.wav", "\u202egpj.evil.wav", "שלום.wav", "🎵 O'Neill &amp; co.wav"]
    for name in names:
        shutil.copy(sound, daemon.inbox / ".part")
        (daemon.inbox / ".part").rename(daemon.inbox / name)
        daemon.final(name)
    visitor.go("songs")
    shown = page.locator("#found bdi")
    for name in names:
        expect(shown.get_by_text(name.replace("\u202e", "\ufffd"), exact=True)).to_be_visible()
    assert page.locator("#found img").count() == 0
    hebrew = shown.get_by_text("שלום.wav", exact=True)
    assert hebrew.evaluate("each => getComputedStyle(each).direction") == "rtl"
    visitor.open("<img src=x")
    assert page.locator("#page-song img").count() == 0


def test_by_keyboard_alone(daemon: Daemon, visitor: Visitor, done: str) -> None:
    """Search, song, download and back, without a pointer; where one is can be seen."""
    page = visitor.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Songs", exact=True)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#songs-title")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("ready made")
    expect(page.locator("#found .row")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Done")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.locator("#found").get_by_role("link", name=done)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#song-title")).to_be_focused()
    expect(page.locator(".demixd-player")).to_be_visible()
    page.get_by_role("link", name="Download vocals.wav").focus()
    with page.expect_download() as one:
        page.keyboard.press("Enter")
    assert one.value.suggested_filename == "vocals.wav"
    page.keyboard.press("Shift+Tab")
    page.go_back()
    expect(page.locator("#songs-title")).to_be_focused()


@layouts
def test_the_layouts(
    daemon: Daemon, browser: Browser, site: Site, done: str, sound: Path, width: int, dark: bool
) -> None:
    """On each page nothing is wider than the window, and axe finds no serious fault; $SCREENSHOTS gets pictures of them."""
    with window(browser, width, dark=dark) as page:
        visitor = Visitor(page, site)
        for name, ready in (("now", "#last .row"), ("songs", "#found .row"), ("song", ".demixd-player .dp-wave")):
            if name == "song":
                visitor.open(done)
            else:
                visitor.go(name)
            expect(page.locator(ready).first).to_be_visible()
            assert faults(page) == [], name
            if folder := os.environ.get("SCREENSHOTS"):
                Path(folder, f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(
                    page.screenshot(full_page=True)
                )


def test_whoever_is_not_let_in(browser: Browser, site: Site) -> None:
    """Without the link there is a page that says how to get in, and nothing of the songs."""
    with window(browser, expected="status of 40[13]") as page:
        page.goto(site.origin)
        expect(page.get_by_role("heading", name="This page is locked")).to_be_visible()
        assert faults(page) == []
        page.goto(f"{site.origin}/?token=wrong")
        expect(page.get_by_role("heading", name="This page is locked")).to_be_visible()
