"""`status/index.html`, where it is asked for: what `demixd status` shows, for who sees nothing but the share."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import simulated_worker
from demixd.spool import documents
from demixd.supervisor import page as supervisor_page
from simulated import Simulated, simulated
from simulated_songs import make_song

SELDOM = {"heartbeat_s": 60.0, "page": True}


def page(daemon: Simulated) -> str:
    return (daemon.spool / "status" / "index.html").read_text()


def text(html: str) -> str:
    """What a page shows, without a script, on one line."""
    words: list[str] = []

    class Reader(HTMLParser):
        hidden = 0

        def handle_starttag(self, tag: str, _attrs: object) -> None:
            self.hidden += tag in ("script", "style", "head")

        def handle_endtag(self, tag: str) -> None:
            self.hidden -= tag in ("script", "style", "head")

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                words.append(data)

    Reader().feed(html)
    return " ".join(" ".join(words).split())


def written(daemon: Simulated, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """Every page that a reader could meet from now on, and when."""
    seen: list[tuple[float, str]] = []
    write = supervisor_page.write_whole

    def write_and_note(path: Path, data: bytes, **how: Any) -> None:
        write(path, data, **how)
        seen.append((daemon.clock.now(), path.read_text()))

    monkeypatch.setattr(supervisor_page, "write_whole", write_and_note)
    return seen


def test_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.final("song.wav")
        assert not (daemon.spool / "status" / "index.html").exists()


def test_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Songs that run with their bars, the queue with its times, what has ended and how, and at last that it has stopped."""
    monkeypatch.setattr(simulated_worker, "SEGMENT_S", 5.0)
    with simulated(tmp_path, status=SELDOM) as daemon:
        for number in range(3):
            make_song(daemon.inbox / f"song {number}.wav", 20.0, size=5000)
        (daemon.inbox / "broken.wav").write_bytes(b"no sound at all" * 100)
        daemon.until(lambda: re.search(r'<progress [^>]*value="0\.[1-9]', page(daemon)), "a bar has moved")
        shown = text(page(daemon))
        assert re.search(r"Running song 0\.wav \d+ % separate.* Queue 2 song 1\.wav", shown), shown
        assert "is ready" in shown
        daemon.final("song 2.wav")
        daemon.sleep(2.0)
        shown = text(page(daemon))
        assert "Running" not in shown and "Queue" not in shown
        assert all(f"song {number}.wav done, in song {number}" in shown for number in range(3)), shown
        failed = json.loads((daemon.spool / "status" / "broken.wav.json").read_bytes())
        assert f"broken.wav failed: {failed['message']}" in shown
    assert "has stopped: songs wait until it is started" in text(page(daemon))


def test_results_are_there_after_a_restart(tmp_path: Path) -> None:
    """The last ten results, of former daemons too; each name once."""
    with simulated(tmp_path, status=SELDOM) as daemon:
        for turn in range(2):
            for number in range(6):
                make_song(daemon.inbox / f"{turn}-{number}.wav", 0.3)
            for number in range(6):
                daemon.final(f"{turn}-{number}.wav")
            daemon.sleep(2.0)
            daemon.restart()
            daemon.ready()
        daemon.sleep(2.0)
        shown = re.findall(r"(\d-\d)\.wav done", text(page(daemon)))
        assert len(shown) == 10 and set(shown[:6]) == {f"1-{number}" for number in range(6)}


def test_results_that_have_a_page_are_links_to_it(tmp_path: Path) -> None:
    """A tap on a song plays it; one without a page is no link."""
    with simulated(tmp_path, status=SELDOM, defaults={"page": True}) as daemon:
        (daemon.inbox / "a #1").mkdir()
        make_song(daemon.inbox / "a #1" / "100%.wav", 0.3)
        daemon.final("a #1/100%.wav")
        make_song(daemon.inbox / "plain.wav", 0.4)
        (daemon.inbox / "broken.wav").write_bytes(b"no sound at all" * 100)
        daemon.final("broken.wav")
        daemon.sleep(2.0)
        links = re.findall(r'<a href="([^"]*)"><b dir="auto">([^<]*)', page(daemon))
        found = {name: (daemon.spool / "status" / unquote(url)).resolve() for url, name in links}
        assert found["a #1/100%.wav"] == daemon.spool.resolve() / "outbox" / "a #1" / "100%" / "index.html"
        assert found["a #1/100%.wav"].is_file() and "broken.wav" not in found


def test_a_pause_is_shown(tmp_path: Path) -> None:
    """Why nothing goes on is said at the top, and again for each song."""
    with simulated(tmp_path, status=SELDOM) as daemon:
        (daemon.inbox / ".pause").touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until(lambda: "song.wav" in text(page(daemon)), "it is listed")
        daemon.sleep(2.0)
        shown = text(page(daemon))
        assert "is paused: songs can be dropped, and wait until .pause is removed" in shown
        assert "song.wav Paused: it goes on once .pause is removed" in shown


def test_names_are_harmless(tmp_path: Path) -> None:
    """Markup, quotes and marks of direction in names stay text."""
    name = "\u202e<img src=x onerror=alert(1)>\"'&amp;\u05d0.wav"
    with simulated(tmp_path, status=SELDOM) as daemon:
        make_song(daemon.inbox / name, 0.3)
        daemon.final(name)
        daemon.sleep(2.0)
        html = page(daemon)
        assert "<img" not in html and "\u202e" not in html
        assert '<b dir="auto">\ufffd&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;amp;\u05d0.wav</b>' in html


def test_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much happens; and while songs run, often enough for their bars. Of many songs it lists the first hundred."""
    monkeypatch.setattr(simulated_worker, "SEGMENT_S", 2.0)
    with simulated(tmp_path, status=SELDOM) as daemon:
        seen = written(daemon, monkeypatch)
        for number in range(150):
            make_song(daemon.inbox / f"song {number}.wav", 9.0, size=5000)
        daemon.until(lambda: len(seen) > 20, "it is written")
        times = [at for at, _ in seen]
        assert min(later - before for before, later in pairwise(times)) >= 1.0
        assert max(later - before for before, later in pairwise(times[3:])) <= 6.0
        last = seen[-1][1]
        more = re.search(r"and (\d+) more", text(last))
        assert (
            more is not None
            and len(re.findall(r'<b dir="auto">song', last.partition("<ol>")[2].partition("</ol>")[0])) == 100
        )
        assert f"Queue {100 + int(more[1])} " in text(last)
        (daemon.inbox / ".cancel").touch()


def test_it_is_no_sidecar_and_no_song(tmp_path: Path) -> None:
    """Readers of status/ pass it over; folders of the inbox that would be in its way, or in the list of ends', are not walked."""
    names = ["_ends.jsonl", "index.html"]
    with simulated(tmp_path, status=SELDOM) as daemon:
        for name in names:
            (daemon.inbox / name).mkdir()
            make_song(daemon.inbox / name / "song.wav", 0.3)
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.final("song.wav")
        daemon.sleep(2.0)
        found = [Path(path).name for path, _ in documents.sidecars(daemon.spool / "status")]
        assert found == ["song.wav.json"]
        listed = json.loads((daemon.spool / "status" / "_inbox.json").read_bytes())["entries"]
        assert [(each["name"], each["reason"]) for each in listed] == [(name, "reserved-name") for name in names]
        assert "song.wav done" in text(page(daemon))


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with simulated(tmp_path, status=SELDOM) as daemon:
        (daemon.spool / "status" / "index.html").unlink()
        (daemon.spool / "status" / "index.html").mkdir()
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"


def test_a_reload_turns_it_on(tmp_path: Path) -> None:
    with simulated(tmp_path, status={"heartbeat_s": 60.0}) as daemon:
        path = daemon.spool / "status" / "index.html"
        daemon.sleep(2.0)
        assert not path.exists()
        configured = daemon.config.read_text(encoding="utf-8")
        daemon.config.write_text(configured.replace("[status]\n", "[status]\npage = true\n"), encoding="utf-8")
        daemon.reload()
        daemon.until(path.exists, "it is there")
