"""A real browser: Debian's Chromium without a window of the screen. A test that imports this is skipped where there is none."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright", reason="config/requirements-test.lock is not installed: tests/run installs it")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from daemons import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)

layouts = pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(390, False, id="390-light"),
        pytest.param(1280, True, id="1280-dark"),
        pytest.param(390, True, id="390-dark", marks=pytest.mark.daily),
        pytest.param(1280, False, id="1280-light", marks=pytest.mark.daily),
    ],
)
"""A phone and a desk, by day and by night."""


def launched() -> Iterator[Browser]:
    """A fixture of each module: a browser in which, as on a phone, a media element plays only after a gesture."""
    expect.set_options(timeout=1000 * PATIENCE_S)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--autoplay-policy=user-gesture-required"])
        yield browser
        browser.close()


@contextmanager
def window(
    browser: Browser, width: int = 1280, *, dark: bool = False, calm: bool = False, expected: str = "(?!)"
) -> Iterator[Page]:
    """A window with its own storage, a phone's where it is narrow. Its console has nothing to say but what is `expected`."""
    is_phone = width < 600
    context = browser.new_context(
        viewport={"width": width, "height": 844 if is_phone else 800},
        device_scale_factor=2,
        is_mobile=is_phone,
        has_touch=is_phone,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce" if calm else "no-preference",
    )
    said: list[str] = []

    def close(dialog: Dialog) -> None:
        said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", close)
    try:
        yield page
    finally:
        context.close()
    assert [each for each in said if not re.search(expected, each)] == []


def faults(page: Page) -> list[str]:
    """What axe finds serious in the page once nothing moves in it, and whether it is wider than the window."""
    page.wait_for_function("document.getAnimations().every((each) => each.playState !== 'running')")
    found = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
    serious = [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
    wide, window = page.evaluate("document.documentElement.scrollWidth"), page.viewport_size
    return serious if window and wide <= window["width"] else [*serious, f"{wide} pixels wide"]
