"""A real browser: Debian's Chromium, driven by its own driver, without a window or a network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

MISSING = (
    "no Chromium: apt-get install chromium chromium-driver"
    if not (CHROMIUM and DRIVER)
    else "no Selenium or axe: pip install selenium axe-playwright-python"
    if not (find_spec("selenium") and find_spec("axe_playwright_python"))
    else ""
)
"""Why there can be no browser here; empty where there can."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none, and what it is shown is ours
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--mute-audio",
    "--autoplay-policy=user-gesture-required",  # as a phone has it
)

AXE = """
const [done] = arguments;
axe.run(document, {resultTypes: ["violations"]}).then(
    (found) => done(found.violations.map(({id, impact, nodes}) => `${impact} ${id}: ${nodes[0].html.slice(0, 200)}`)),
    (error) => done([`serious error: ${error}`]),
);
"""


@contextmanager
def browser() -> Iterator[Any]:
    """Selenium's driver of a browser of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def look(driver: Any, width: int = 1280, *, dark: bool = False, calm: bool = False) -> None:
    """Have the browser be a screen of that width, in dark or light, with or without movement."""
    metrics = {"width": width, "height": 844 if width < 600 else 800, "deviceScaleFactor": 2, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
    features = {
        "prefers-color-scheme": "dark" if dark else "light",
        "prefers-reduced-motion": "reduce" if calm else "no-preference",
    }
    listed = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})


def complaints(driver: Any) -> list[str]:
    """What the console has said since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def serious_faults(driver: Any) -> list[str]:
    """The faults of the page that axe-core calls serious or critical."""
    driver.execute_script(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found: list[str] = driver.execute_async_script(AXE)
    return [each for each in found if each.startswith(("serious", "critical"))]
