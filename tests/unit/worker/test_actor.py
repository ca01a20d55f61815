"""The far end, without a cluster: an actor is a class."""

import asyncio
import importlib.util
import threading
import time
from pathlib import Path

import pytest

from demixd.spool import processes

if importlib.util.find_spec("ray") is None:
    pytest.skip("no Ray: see config/requirements-ray.lock", allow_module_level=True)

from demixd.worker.ray import actor
from demixd.worker.ray.actor import Actor


def test_a_share_that_hangs_is_asked_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The song is sent in pieces then, and the next one is at once; when it answers again, it is asked again."""
    hangs, asked = threading.Event(), []

    def answer(folder: Path, nonce: str) -> bool:
        asked.append(nonce)
        return hangs.wait(10)

    async def ask() -> None:
        one = Actor(None)
        assert not await one.sees(str(tmp_path), "a")
        began = time.monotonic()
        assert not await one.sees(str(tmp_path), "b")
        assert time.monotonic() - began < actor.LISTEN_S and asked == ["a"]
        hangs.set()
        while one._asking and not one._asking.done():
            await asyncio.sleep(0.01)
        assert await one.sees(str(tmp_path), "c")

    monkeypatch.setattr(actor, "_answer", answer)
    monkeypatch.setattr(actor, "LISTEN_S", 0.3)
    asyncio.run(ask())


def test_who_is_where_we_are_asks_nothing_of_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of another daemon may be there, and broken; another machine needs its own."""
    (tmp_path / "broken.toml").write_text("[[")
    monkeypatch.setenv("DEMIXD_CONFIG", str(tmp_path / "broken.toml"))

    async def hello(place: str) -> dict[str, object]:
        one = Actor(None)
        facts = await one.hello(place)
        await one.leave()
        return facts

    here, there = asyncio.run(hello(processes.place())), asyncio.run(hello("elsewhere"))
    assert (here["error"], here["is_here"]) == ("", True)
    assert "broken.toml" in str(there["error"])
