"""The list of ends, where the daemon dies between two steps, or cannot write to it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demixd.protocol.job import Job, Stage
from demixd.supervisor.jobs.table import JobTable
from end_lines import lines
from simulated import Killed, Simulated
from simulated_songs import make_song


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Simulated]:
    daemon = Simulated(tmp_path)
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def ends(daemon: Simulated) -> list[tuple[str, str]]:
    return [(line["input"]["name"], line["state"]) for line in lines(daemon.spool / "status")]


def test_a_death_before_it_is_finished(daemon: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is there, and the ledger does not know it: it is written again, with the same number, and never anew."""
    commit, deaths = JobTable.commit, 2

    def dies(table: JobTable, job: Job, stage: Stage) -> Any:
        nonlocal deaths
        if stage is Stage.FINISHED and deaths:
            deaths -= 1
            raise Killed
        return commit(table, job, stage)

    monkeypatch.setattr(JobTable, "commit", dies)
    make_song(daemon.inbox / "song.wav", 0.3)
    daemon.until_dead()
    with pytest.raises(AssertionError, match="the daemon ended before"):  # of the second death
        daemon.start().ready()
    daemon.start().ready().quiet()
    assert ends(daemon) == [("song.wav", "done")] * 3
    assert len({line["end"] for line in lines(daemon.spool / "status")}) == 1


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_list_that_cannot_be_written(daemon: Simulated, is_killed: bool) -> None:
    """Jobs wait for it with their results in place, the heartbeat says so, and they are told in order once it can be."""
    path = daemon.spool / "status" / "_ends.jsonl"
    (path / "a folder").mkdir(parents=True)
    for number in range(3):
        make_song(daemon.inbox / f"{number}.wav", 0.3 + number / 10)
        assert daemon.final(f"{number}.wav")["state"] == "done"
    daemon.until(
        lambda: any("_ends.jsonl cannot be written" in each for each in daemon.read("_daemon.json")["warnings"]), "told"
    )
    assert len(daemon.works()) == 3
    assert daemon.log.read_text().count(": done (") == 3
    if is_killed:
        daemon.kill()
        daemon.start().ready()
    make_song(daemon.inbox / "late.wav", 0.9)
    assert daemon.final("late.wav")["state"] == "done"
    shutil.rmtree(path)
    daemon.until(lambda: len(ends(daemon)) == 4 and not daemon.works(), "all are told")
    daemon.until(lambda: not daemon.read("_daemon.json")["warnings"], "that is over")
    assert sorted(name for name, _ in ends(daemon)) == ["0.wav", "1.wav", "2.wav", "late.wav"]
    daemon.quiet()


def test_every_end_is_told(daemon: Simulated) -> None:
    """Also those that no sidecar shows for long: of songs that were replaced, deleted and cancelled while they waited."""
    daemon.hold.touch()
    make_song(daemon.inbox / "first.wav", 0.3)
    daemon.until(lambda: daemon.song("first.wav").get("step") == "separate", "it runs")
    for name in ("replaced.wav", "deleted.wav", "cancelled.wav"):
        make_song(daemon.inbox / name, 0.5)
        daemon.until(lambda name=name: daemon.song(name).get("reason") == "queued", "it waits")
    make_song(daemon.folder / "new.wav", 0.7).rename(daemon.inbox / "replaced.wav")
    (daemon.inbox / "deleted.wav").unlink()
    (daemon.inbox / "cancelled.wav.cancel").touch()
    (daemon.inbox / "bad.mp3").write_bytes(b"no music\n" * 400)
    daemon.final("cancelled.wav")
    daemon.hold.unlink()
    daemon.quiet()
    over = {"deleted.wav", "cancelled.wav", "replaced.wav"}
    told = ends(daemon)
    assert {name for name, state in told if state == "cancelled"} == over
    assert [name for name, state in told if state == "done"] == ["first.wav", "replaced.wav"]
    assert ("bad.mp3", "failed") in told
    assert len(told) == 6


def test_an_owed_end_comes_first(daemon: Simulated) -> None:
    """After a restart an end that has its number is told before an older song's that has none yet, so that numbers only grow."""
    status = daemon.spool / "status"
    for name in ("older.wav.json", "_ends.jsonl"):
        (status / name / "a folder").mkdir(parents=True)
    make_song(daemon.inbox / "older.wav", 0.3)
    daemon.until(lambda: (daemon.outbox / "older").exists(), "its result is there")
    make_song(daemon.inbox / "newer.wav", 0.5)
    assert daemon.final("newer.wav")["state"] == "done"
    daemon.sleep(5)
    daemon.kill()
    for name in ("older.wav.json", "_ends.jsonl"):
        shutil.rmtree(status / name)
    daemon.start().ready().quiet()
    assert ends(daemon) == [("newer.wav", "done"), ("older.wav", "done")]
