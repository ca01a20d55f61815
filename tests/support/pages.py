"""The pages that people read: their texts, sections, tables and blocks of code."""

import re
import subprocess
import time
from collections.abc import Callable

from daemons import PATIENCE_S, ROOT

README, PROTOCOL, TUNING, SERVICE, CONTRIBUTING, SCALE = PAGES = (
    "README.md",
    "config/PROTOCOL.md",
    "config/README.md",
    "systemd/README.md",
    "tests/README.md",
    "config/SCALE.md",
)
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
EXAMPLES = ROOT / "config" / "examples"


def section(title: str, page: str = PROTOCOL) -> str:
    """The text below a heading, up to the next one of any kind."""
    return re.split(r"^##+ ", TEXT[page].split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str, table: int = 0, page: str = PROTOCOL) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = re.findall(r"(?:^\|.*\n)+", section(title, page), re.MULTILINE)[table].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def blocks(language: str, page: str) -> list[tuple[str, str]]:
    """The page's code blocks in a language, each with the heading that it stands under."""
    found, heading = [], ""
    for each in re.finditer(rf"^##+ ([^\n]+)$|^```{language}\n(.*?)^```$", TEXT[page], re.DOTALL | re.MULTILINE):
        heading = each[1] or heading
        if each[2]:
            found.append((heading, each[2]))
    return found


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def first(table: list[list[str]]) -> list[str]:
    """Everything named in the first column."""
    return [word for row in table for word in words(row[0])]


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and all that it has said."""
    try:
        said, _ = run.communicate(timeout=PATIENCE_S)
    finally:
        run.kill()
    return run.returncode, said


def soon(condition: Callable[[], bool]) -> None:
    """Wait for something; the test says what is wrong where it did not come."""
    limit = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
