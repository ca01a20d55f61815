"""What the page is told of the songs."""

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("starlette", reason="config/requirements-web.lock is not installed")

from demixd import config as configuration
from demixd.client.words import REMEDY
from demixd.errors import Code
from demixd.protocol.job import Error, Output
from demixd.protocol.job import State as JobState
from demixd.protocol.status import DaemonFacts, Sidecar, encode, sidecar
from demixd.spool.tree import Spool
from demixd.web import state as watching
from demixd.web import view
from demixd.web.problem import ProblemError
from demixd.web.songs import Songs
from demixd.web.state import State
from jobs import job

FACTS = DaemonFacts(instance="i", version="1")
numbers = itertools.count(1)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.setattr(watching, "FRESH_S", -1.0)
    for part in ("inbox", "status", "outbox", "failed"):
        (tmp_path / "spool" / part).mkdir(parents=True)
    return Spool(configuration.parse(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n', "x"))


@pytest.fixture
def state(spool: Spool) -> State:
    return State(spool, recursive=True, start="demixd run")


def write(spool: Spool, name: str, **facts: Any) -> Sidecar:
    """A sidecar as a daemon writes it."""
    number = next(numbers)
    told = job(name, job_id=f"{number:032x}", state_since=f"2026-01-01T00:00:00.{number:06}Z", **facts)
    made = sidecar(told, seq=number, position=None, eta_s=None, daemon=FACTS, now="2026-01-01T00:00:00Z")
    path = spool.sidecar(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(made))
    return made


def over(spool: Spool, name: str, state: JobState = JobState.DONE, **facts: Any) -> Sidecar:
    return write(spool, name, state=state, reason=None, **facts)


def names(found: dict[str, Any]) -> list[str]:
    return [song["name"] for song in found["songs"]]


def test_a_search(spool: Spool, state: State) -> None:
    """By name or tag, whatever the case, and whether an accent is a character of its own; by state; the newest first."""
    over(spool, "box/Café.wav")
    over(spool, "Cafe\u0301 two.wav", JobState.FAILED, error=Error(code=Code.BAD_AUDIO, message="No."))
    over(spool, "other.wav", tag="CAFÉ 3")
    write(spool, "café waits.wav")
    assert names(state.search("cAFÉ", "", 0)) == ["other.wav", "Cafe\u0301 two.wav", "box/Café.wav"]
    assert names(state.search("café", "failed", 0)) == ["Cafe\u0301 two.wav"]
    assert names(state.search("café", "waiting", 0)) == []
    assert names(state.search("x" * 10_000, "none", 0)) == []
    assert state.search("", "done", 0)["total"] == 2


def test_ten_thousand_songs_are_told_a_hundred_at_a_time(spool: Spool, state: State) -> None:
    """What a browser gets does not grow with the songs; each page of a search goes on where the last one ended."""
    for number in range(250):
        over(spool, f"{number:03}.wav")
        write(spool, f"waits {number:03}.wav")
    parts = state.parts()
    assert sum(map(len, parts.values())) < 100_000
    told = json.loads(parts["queue"])
    assert (len(told["queue"]), told["queue_total"]) == (100, 250)
    pages = [names(state.search("", "", start)) for start in (0, 100, 200, 300)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert len(set(itertools.chain(*pages))) == 250


def test_parts_change_apart(spool: Spool, state: State) -> None:
    """A song that ends has the list of songs asked for again; one that waits has not."""
    over(spool, "a.wav")
    before = state.parts()
    write(spool, "b.wav")
    after = state.parts()
    assert [name for name in after if after[name] != before[name]] == ["queue"] or after["songs"] == before["songs"]
    over(spool, "b.wav")
    assert state.parts()["songs"] != before["songs"]


def test_songs_that_no_daemon_has_seen(spool: Spool, state: State) -> None:
    """While none runs they are told of, by their files."""
    (spool.inbox / "new.wav").write_bytes(b"x")
    told = json.loads(state.parts()["queue"])
    assert (told["unseen"], told["unseen_total"]) == (["new.wav"], 1)


def test_texts_are_harmless(spool: Spool, state: State) -> None:
    """Every text in what is told is on one line, but for those of developers, and turns no direction."""
    error = Error(code=Code.BAD_AUDIO, message="\u202eNo\x1b[31m.", detail="one\ntwo\u2066")
    song = over(spool, "\u202ea\x07.wav", JobState.FAILED, error=error, tag="\u200ftag", warnings=("w\x9b",))
    told = Songs(spool, state).detail(song.job_id).decode()
    assert not any(sign in told for sign in "\u202e\x1b\u2066\x07\u200f\x9b")
    found = json.loads(told)
    assert (found["name"], found["error"]["detail"]) == ("\ufffda\ufffd.wav", "one\ntwo\ufffd")


@pytest.mark.parametrize("name", ["../../x.wav", "/etc/x.wav", "a/../../x.wav", ""])
def test_a_forged_name(spool: Spool, state: State, name: str, tmp_path: Path) -> None:
    """A sidecar that names a file outside the inbox has nothing done there."""
    made = over(spool, "a.wav", JobState.CANCELLED)
    forged = msgspec.structs.replace(made.input, name=name, name_b64=base64.b64encode(name.encode()).decode())
    spool.sidecar("a.wav").write_bytes(encode(msgspec.structs.replace(made, input=forged)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ProblemError):
        Songs(spool, state).again(made.job_id)
    waits = write(spool, "b.wav")
    spool.sidecar("b.wav").write_bytes(encode(msgspec.structs.replace(waits, input=forged)))
    for deed in (Songs(spool, state).cancel, lambda job_id: Songs(spool, state).set_priority(job_id, 1)):
        with pytest.raises(ProblemError):
            deed(waits.job_id)
    assert set(tmp_path.rglob("*")) - set(before) == {spool.sidecar("b.wav")}


@pytest.mark.parametrize(
    "folder", ["/etc", "..", "../failed", "a/../..", ".demixd", ".demixd/x/out", "link", "", "a\0"]
)
def test_a_forged_result(spool: Spool, state: State, folder: str) -> None:
    """A sidecar that names another folder for its result has no file served from it."""
    (spool.outbox / "link").symlink_to("/etc")
    (spool.outbox / ".demixd").mkdir()
    (spool.failed / "stems.json").write_text("{}")
    song = over(spool, "a.wav", output=Output(dir=folder, files=()))
    with pytest.raises(ProblemError) as found:
        Songs(spool, state).file(song.job_id, "stems.json")
    assert found.value.status == 404
    assert json.loads(Songs(spool, state).detail(song.job_id))["result"] is None


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"files": 1}', "\xff", " " * 2_000_000])
def test_a_manifest_that_is_none(spool: Spool, state: State, text: str) -> None:
    """Whatever lies in its place, there is no result; it is read no further than a manifest is long."""
    (spool.outbox / "a").mkdir()
    (spool.outbox / "a" / "stems.json").write_text(text, encoding="latin-1")
    song = over(spool, "a.wav", output=Output(dir="a", files=()))
    assert json.loads(Songs(spool, state).detail(song.job_id))["result"] is None


def test_every_error_has_a_remedy() -> None:
    """Whatever a song fails with, its page says what to do."""
    assert REMEDY.keys() == set(Code)


def test_addresses_of_files_are_exact() -> None:
    """An address is ASCII, and leads to the file whatever its name is."""
    assert view.url("1", "a b/é\u202e%.wav") == "/songs/1/files/a%20b/%C3%A9%E2%80%AE%25.wav"
