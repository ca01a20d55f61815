"""Changes that are told to browsers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="config/requirements-web.lock is not installed")

from demixd import config as configuration
from demixd.client import actions
from demixd.spool.tree import Spool
from demixd.web import events as telling
from demixd.web.events import Events
from demixd.web.problem import ProblemError
from demixd.web.state import State


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.setattr(telling, "EVERY_S", 0.01)
    (tmp_path / "spool" / "inbox").mkdir(parents=True)
    return Spool(configuration.parse(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n', "x"))


async def following(stream: AsyncIterator[bytes], count: int) -> list[str]:
    """The names of the next events."""
    pieces = [await anext(stream) for _ in range(count)]
    return [
        line.removeprefix("event: ") for piece in pieces for line in piece.decode().split("\n") if "event: " in line
    ]


def test_what_changes_is_told_and_nothing_else(spool: Spool) -> None:
    """At first there is every part; then that which has changed, to everybody who looks; at the end the streams end."""

    async def look() -> None:
        events = Events(State(spool, recursive=True, start="demixd run"))
        one, two = aiter(events.stream()), aiter(events.stream())
        assert await following(one, 1) == []  # how soon a browser is to try again
        assert sorted(await following(one, 3)) == ["now", "queue", "songs"]
        assert sorted(await following(two, 4)) == ["now", "queue", "songs"]
        actions.pause(spool)
        assert await following(one, 1) == await following(two, 1) == ["now"]
        events.close()
        assert [each async for each in one] == [each async for each in two] == []

    asyncio.run(look())


def test_silence_has_a_sign(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing changes there is a comment and a beat now and then."""
    monkeypatch.setattr(telling, "HEARTBEAT_S", 0.05)

    async def look() -> None:
        events = Events(State(spool, recursive=True, start="demixd run"))
        stream = aiter(events.stream())
        while (piece := await anext(stream)) != b":\nevent: beat\ndata:\n\n":
            assert piece.startswith((b"retry: ", b"event: "))
        events.close()
        assert [each async for each in stream] == []

    asyncio.run(look())


def test_too_many(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many browsers one is refused; when one goes there is room again."""
    monkeypatch.setattr(telling, "MOST", 1)

    async def look() -> None:
        events = Events(State(spool, recursive=True, start="demixd run"))
        first = events.stream()
        await anext(first)
        with pytest.raises(ProblemError):
            events.stream()
        await first.aclose()  # type: ignore[attr-defined]
        second = events.stream()
        await anext(second)
        events.close()
        assert [each async for each in second] == []

    asyncio.run(look())
