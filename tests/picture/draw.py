"""Draws the picture in README.md: a terminal, with what a real daemon does and what the real commands say of it.

    .venv/bin/python tests/picture/draw.py [FILE]      FILE is demixd.svg beside this script where none is given

The daemon has the demo model and a throw-away home. The picture is taken when one song is done, one is being separated,
others wait for their turn, and one is still being downloaded. It refers to nothing outside itself: GitHub loads no fonts.
"""

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from demixd.engine.models.demo.songs import make_song

COLUMNS, LINES = 84, 12
PATIENCE_S = 120.0

SONGS = {"Copper Lanterns.flac": 12.0, "Morning Ferry.flac": 240.0, "Paper Kites.flac": 30.0, "Slow Harbour.mp3": 30.0}
"""Made-up titles in the order of work, which is that of their names, and seconds of synthetic music."""
DOWNLOAD = "Tin Roof Rain.mp3"
"""A song of which a browser has not got the rest yet."""

DROP, WATCH, LIST = "cp ~/Music/* ~/demixd/inbox/", "demixd status --watch", "ls ~/demixd/outbox/Copper*"

WATCHED_S = 4.0
"""Until the live table has seen the daemon's heart beat."""
FRAME = "\x1b[H"
"""What the live table writes before each of its screens."""

PROMPT = Text("$ ", style="bold green")

THEME = TerminalTheme(
    (24, 26, 31),
    (214, 218, 224),
    [
        (60, 64, 72),
        (240, 113, 120),
        (126, 199, 118),
        (229, 192, 103),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (214, 218, 224),
    ],
)
"""The terminal's own background: legible on a white page and on a black one."""

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="880" viewBox="0 0 {width} {height}" role="img">
<title>demixd in a terminal</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="demixd-picture-") as folder:
        home = Path(folder)
        environment = prepare(home)
        screen = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        with daemon(home, environment):
            show(screen, DROP, run(DROP, environment))
            await_(lambda: is_telling(home), "one song is done and another half way")
            show(
                screen,
                WATCH,
                run(f"timeout --signal=INT {WATCHED_S} {WATCH} || true", environment).rpartition(FRAME)[2],
            )
            show(screen, LIST, run(LIST, environment))
    target.write_text(screen.export_svg(title="", theme=THEME, code_format=SVG, unique_id="demixd"), encoding="utf-8")


def prepare(home: Path) -> dict[str, str]:
    """Songs, folders and a configuration in `home`; the environment of whoever lives there."""
    music, inbox = home / "Music", home / "demixd" / "inbox"
    music.mkdir()
    inbox.mkdir(parents=True)
    for seed, (name, seconds) in enumerate(SONGS.items()):
        wave = np.sum(list(make_song(seed=seed, seconds=seconds).values()), axis=0).T
        soundfile.write(music / name, wave, 44100)
    (inbox / DOWNLOAD).write_bytes(b"ID3")
    (inbox / f"{DOWNLOAD}.part").write_bytes(b"ID3")
    config = home / "demixd.toml"
    config.write_text(
        f'[paths]\nspool = "{home}/demixd"\nstate = "{home}/state"\n[model]\nname = "demo"\n'
        "[inbox]\nsettle = 0.5\n[status]\nheartbeat_s = 0.5\n",
        encoding="utf-8",
    )
    # A daemon of the same name may be installed here: what is drawn is this tree's.
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"HOME": str(home), "PATH": path, "DEMIXD_CONFIG": str(config), "TERM": "xterm-256color", "LANG": "C.UTF-8"}


@contextmanager
def daemon(home: Path, environment: dict[str, str]) -> Iterator[None]:
    """`demixd run`, ready, and stopped afterwards."""
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["demixd", "run"], env=environment, stdout=log, stderr=log)
        try:
            await_(lambda: read(home, "_daemon.json").get("state") == "ready", "the daemon is ready")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)


def is_telling(home: Path) -> bool:
    """Whether there is something of everything to be seen."""
    first, second, *others = (read(home, f"{name}.json") for name in SONGS)
    states = [first.get("state"), second.get("state"), *(each.get("reason") for each in others)]
    is_half_way = second.get("step") == "separate" and second["progress"]["fraction"] > 0.4
    return states == ["done", "running", "queued", "queued"] and is_half_way


def read(home: Path, name: str) -> dict[str, Any]:
    path = home / "demixd" / "status" / name
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def await_(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            sys.exit(f"Not in {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.05)


def show(screen: Console, command: str, output: str) -> None:
    """The command at its prompt, and its output."""
    if command != DROP:
        screen.print()
    screen.print(PROMPT + Text(command, style="bold"))
    if output := output.rstrip():
        screen.print(Text.from_ansi(output), soft_wrap=True)


def run(command: str, environment: dict[str, str]) -> str:
    """What a command says on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", command], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not part:
            break
        said += part
    status = process.wait()
    os.close(ours)
    if status != 0:
        sys.exit(f"{command} ({status}): {said.decode(errors='replace')}")
    return said.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demixd.svg"))
