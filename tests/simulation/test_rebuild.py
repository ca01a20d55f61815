"""The ledger is lost: what other programs can see, and the inbox, say enough to go on from. Nothing twice, nothing lost."""

import json
import os
import shutil
import signal
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demixd.spool import documents
from simulated import Simulated
from simulated_songs import make_song
from watching import faults, sha256


def remove_state(state: Path) -> None:
    shutil.rmtree(state)


def write_garbage(state: Path) -> None:
    (state / "ledger.sqlite3").write_bytes(b"not what it was\n" * 1000)
    for suffix in ("-wal", "-shm"):
        (state / f"ledger.sqlite3{suffix}").unlink(missing_ok=True)


def damage(state: Path) -> None:
    """A ledger of which a part was overwritten."""
    with sqlite3.connect(state / "ledger.sqlite3") as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    data = bytearray((state / "ledger.sqlite3").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (state / "ledger.sqlite3").write_bytes(data)


def age(state: Path) -> None:
    """The ledger of another version, whose tables are not ours."""
    with sqlite3.connect(state / "ledger.sqlite3") as ledger:
        ledger.execute("PRAGMA user_version = 99")
        ledger.execute("ALTER TABLE jobs RENAME COLUMN record TO document")
    ledger.close()


LOSSES = [remove_state, write_garbage, damage, age]


def drop(daemon: Simulated, name: str, seconds: float = 0.3) -> None:
    source = make_song(daemon.folder / f"dropped-{name}", seconds)
    shutil.copy2(source, daemon.inbox / f".{name}.part")
    (daemon.inbox / f".{name}.part").rename(daemon.inbox / name)


def results(daemon: Simulated) -> dict[str, str]:
    """Which song's each result is; every one of them is whole."""
    found = {}
    for manifest in sorted(daemon.outbox.glob("*/stems.json")):
        assert faults(manifest.parent) == []
        found[manifest.parent.name] = json.loads(manifest.read_bytes())["song"]
    return found


def seqs(daemon: Simulated) -> dict[str, int]:
    return {path.name: json.loads(path.read_bytes())["seq"] for path in (daemon.spool / "status").glob("*.json")}


def jobs(daemon: Simulated, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (daemon.song(name)["job_id"], daemon.song(name)["state"]) for name in names}


def kept_aside(daemon: Simulated) -> list[str]:
    return [path.name for path in (daemon.folder / "state").iterdir() if path.name.startswith("ledger.sqlite3.bad")]


def goes_on(daemon: Simulated, before: dict[str, int], lose: Callable[[Path], None]) -> None:
    """Start after the loss, and do all there is to do; `seq` has only grown, and the bad ledger is kept."""
    daemon.tells_all_ends = False
    daemon.start().ready().quiet()
    assert {name: seq for name, seq in before.items() if seqs(daemon).get(name, 0) < seq} == {}
    assert daemon.read("_daemon.json")["seq"] > max(before.values())
    assert bool(kept_aside(daemon)) is (lose is not remove_state)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_all_kinds_of_songs(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    """Done, failed, cancelled and waiting songs: the ends stay what they were, what waited is done, each once."""
    daemon = Simulated(tmp_path)
    over = ("done.wav", "failed.mp3", "cancelled.wav")
    try:
        daemon.start().ready()
        drop(daemon, "done.wav")
        (daemon.inbox / "failed.mp3").write_bytes(b"no music\n" * 400)
        daemon.final("failed.mp3")
        daemon.final("done.wav")
        daemon.hold.touch()
        drop(daemon, "cancelled.wav", 0.4)
        daemon.until(lambda: daemon.song("cancelled.wav").get("step") == "separate", "it runs")
        (daemon.inbox / "cancelled.wav.cancel").touch()
        daemon.final("cancelled.wav")
        drop(daemon, "running.wav", 0.5)
        daemon.until(lambda: daemon.song("running.wav").get("step") == "separate", "it runs")
        drop(daemon, "waiting.wav", 0.6)
        daemon.until(lambda: daemon.song("waiting.wav").get("reason") == "queued", "it waits")
        daemon.kill()
        daemon.hold.unlink()
        before, ends = seqs(daemon), jobs(daemon, *over)
        lose(tmp_path / "state")
        goes_on(daemon, before, lose)
        assert jobs(daemon, *over) == ends
        assert results(daemon) == {"done": "done.wav", "running": "running.wav", "waiting": "waiting.wav"}
        shutil.copy2(tmp_path / "dropped-done.wav", daemon.inbox / "the same.wav")
        again = daemon.final("the same.wav")
        assert (again["duplicate_of"], again["output"]["dir"]) == (None, "the same"), (
            "others may have written the sidecar"
        )
        (daemon.spool / "failed" / "failed.mp3").rename(daemon.inbox / "failed.mp3")
        tried = daemon.until(
            lambda: (
                (s := daemon.song("failed.mp3"))["job_id"] != ends["failed.mp3"][0] and s["state"] == "failed" and s
            ),
            "tried again",
        )
        assert tried["previous"]["job_id"] == ends["failed.mp3"][0]
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert list(daemon.inbox.iterdir()) == []
    assert {path.name for path in (daemon.spool / "failed").iterdir()} == {"cancelled.wav", "failed.mp3"}


def test_kept_songs(tmp_path: Path) -> None:
    """Under `keep` an answered song stays answered, done or failed; `touch` still retries it, with its history."""
    daemon = Simulated(tmp_path, inbox={"after": "keep"})
    try:
        daemon.start().ready()
        drop(daemon, "kept.wav")
        (daemon.inbox / "failed.mp3").write_bytes(b"no music\n" * 400)
        daemon.final("kept.wav")
        daemon.final("failed.mp3")
        daemon.quiet()
        assert daemon.stop() == 0
        before, ends = seqs(daemon), jobs(daemon, "kept.wav", "failed.mp3")
        remove_state(tmp_path / "state")
        goes_on(daemon, before, remove_state)
        assert jobs(daemon, "kept.wav", "failed.mp3") == ends
        (daemon.inbox / "kept.wav").touch()
        again = daemon.until(
            lambda: (s := daemon.song("kept.wav"))["job_id"] != ends["kept.wav"][0] and s["state"] == "done" and s,
            "again",
        )
        assert (again["previous"]["job_id"], again["duplicate_of"]) == (ends["kept.wav"][0], None)
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert results(daemon) == {"kept": "kept.wav", "kept (2)": "kept.wav"}
    assert {path.name for path in daemon.inbox.iterdir()} == {"kept.wav", "failed.mp3"}


ENDING = ["7-final move", "8-sidecar move", "9-original move", "10-finished move"]
ENDING += ["7-final keep", "9-original keep", "7-final delete", "8-sidecar delete"]


@pytest.mark.parametrize(("point", "after"), [each.split() for each in ENDING])
def test_a_job_that_was_ending(tmp_path: Path, point: str, after: str) -> None:
    """Published but not final, or final with its original where it was: done once, and the original stays where it is."""
    daemon = Simulated(tmp_path, inbox={"after": after})
    drop(daemon, "song.wav")
    try:
        daemon.start({point: "kill"})
        daemon.until_dead()
        job = json.loads((daemon.outbox / "song" / "stems.json").read_bytes())["job_id"]
        before = seqs(daemon)
        remove_state(tmp_path / "state")
        goes_on(daemon, before, remove_state)
        sidecar = daemon.song("song.wav")
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert (sidecar["state"], sidecar["job_id"]) == ("done", job)
    assert [each["stem"] for each in sidecar["output"]["files"]] == ["vocals", "instrumental"]
    assert results(daemon) == {"song": "song.wav"}
    is_away = point == "10-finished" and after != "keep"
    assert [path.name for path in daemon.inbox.iterdir()] == ([] if is_away else ["song.wav"])
    assert [path.name for path in (daemon.spool / "done").iterdir()] == (["song.wav"] if is_away else [])


def test_an_original_on_its_way(tmp_path: Path) -> None:
    """An original that was under its private name, in the middle of being moved, stays there, and `_inbox.json` has it."""
    daemon = Simulated(tmp_path)
    drop(daemon, "song.wav")
    try:
        daemon.start({"9-original": "kill"})
        daemon.until_dead()
        sidecar = daemon.song("song.wav")
        assert sidecar["state"] == "done"
        (daemon.inbox / "song.wav").rename(daemon.inbox / f".demixd-{sidecar['job_id']}")
        before = seqs(daemon)
        remove_state(tmp_path / "state")
        goes_on(daemon, before, remove_state)
        listed = [each["name"] for each in daemon.read("_inbox.json")["entries"]]
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert results(daemon) == {"song": "song.wav"}
    assert daemon.song("song.wav")["job_id"] == sidecar["job_id"]
    assert [path.name for path in daemon.inbox.iterdir()] == listed == [f".demixd-{sidecar['job_id']}"]


def test_forged_sidecars_move_nothing(tmp_path: Path) -> None:
    """Who says in a sidecar that a song is done has it answered, and neither moved nor deleted; nor is its result used."""
    daemon = Simulated(tmp_path, inbox={"after": "delete"})
    try:
        daemon.start().ready()
        drop(daemon, "song.wav")
        forged = daemon.final("song.wav")
        daemon.quiet()
        assert daemon.stop() == 0
        victim = make_song(daemon.inbox / "victim.wav", 0.7)
        named = {"name": "victim.wav", "name_b64": b64encode(b"victim.wav").decode(), "sha256": sha256(victim)}
        forged["input"] |= named | looks_of(victim)
        (daemon.spool / "status" / "victim.wav.json").write_text(json.dumps({**forged, "job_id": "f" * 32}))
        remove_state(tmp_path / "state")
        daemon.tells_all_ends = False
        daemon.start().ready().quiet()
        assert victim.exists()
        shutil.copy2(victim, daemon.inbox / "twin.wav")
        assert daemon.final("twin.wav")["duplicate_of"] is None
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_results_without_sidecars(tmp_path: Path) -> None:
    """State and status both lost: results stay what they are, and a song that is dropped again is computed again."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        drop(daemon, "song.wav")
        job = daemon.final("song.wav")["job_id"]
        daemon.quiet()
        assert daemon.stop() == 0
        daemon.look_away()  # where the count is lost with all that has seen it, it begins anew
        remove_state(tmp_path / "state")
        shutil.rmtree(daemon.spool / "status")
        daemon.start().ready()
        shutil.copy2(tmp_path / "dropped-song.wav", daemon.inbox / "again.wav")
        assert daemon.final("again.wav")["duplicate_of"] is None
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert results(daemon) == {"song": "song.wav", "again": "again.wav"}
    assert json.loads((daemon.outbox / "song" / "stems.json").read_bytes())["job_id"] == job


@pytest.mark.parametrize("starts", [1, 2])
def test_a_ledger_lost_while_the_spool_was_away(tmp_path: Path, starts: int) -> None:
    """It is rebuilt when the spool is there, however often the daemon was started before; `seq` goes on above."""
    daemon = Simulated(tmp_path)
    try:
        for _ in range(3):  # so that fewer starts would show
            daemon.start().ready()
            assert daemon.stop() == 0
        daemon.start().ready()
        drop(daemon, "song.wav")
        job = daemon.final("song.wav")["job_id"]
        daemon.quiet()
        assert daemon.stop() == 0
        before = seqs(daemon)
        remove_state(tmp_path / "state")
        daemon.spool.rename(tmp_path / "away")
        for _ in range(starts):
            was = daemon.log.stat().st_size
            daemon.start()
            daemon.until(lambda n=was: "is not there" in daemon.log.read_text()[n:], "it is said")
            if starts > 1:
                daemon.until(lambda n=was: "is warm" in daemon.log.read_text()[n:], "it is up")
                assert daemon.stop() == 0
        (tmp_path / "away").rename(daemon.spool)
        if starts > 1:
            daemon.start()
        daemon.ready()
        assert daemon.song("song.wav")["job_id"] == job
        drop(daemon, "song.wav", 0.4)
        again = daemon.until(lambda: (s := daemon.song("song.wav"))["job_id"] != job and s, "its next job")
        assert again["previous"]["job_id"] == job
        assert daemon.final("song.wav")["state"] == "done"
        assert {name: seq for name, seq in before.items() if seqs(daemon)[name] < seq} == {}
        assert daemon.read("_daemon.json")["seq"] > max(before.values())
        assert daemon.stop() == 0
    finally:
        daemon.end()


STRANGE = {
    "status/list.json": "[1, 2]",
    "status/text.json": "no JSON",
    "status/foreign.json": '{"seq": "many"}',
    "outbox/theirs/stems.json": '{"by": "another program"}',
    "outbox/empty/stems.json": "",
}


def put_traps(status: Path, result: Path) -> None:
    """What a reader waits for, reads for ever, or falls into."""
    result.mkdir()
    os.mkfifo(result / "stems.json")
    os.mkfifo(status / "pipe.json")
    (status / "endless.json").symlink_to("/dev/zero")
    (status / "deep.json").write_text("[" * 100_000)


def looks_of(path: Path) -> dict[str, int]:
    """What a sidecar says of a song's file."""
    status = path.stat()
    return {"inode": status.st_ino, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def test_strange_files_are_somebody_else_s(tmp_path: Path) -> None:
    """Files that are not ours, or of another version, stop nothing: they are left alone."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        drop(daemon, "song.wav")
        daemon.final("song.wav")
        daemon.quiet()
        assert daemon.stop() == 0
        sidecar = daemon.song("song.wav")
        manifest = json.loads((daemon.outbox / "song" / "stems.json").read_bytes())
        strange = dict(STRANGE)
        for number, change in enumerate(
            ({"options": {"of another": "version"}}, {"job_id": "../../outside"}, {"seq": -1})
        ):
            name, job = f"{number}.wav", f"{number:032x}"
            song = {**sidecar["input"], "name": name, "name_b64": b64encode(name.encode()).decode()}
            strange[f"status/{name}.json"] = json.dumps({**sidecar, "job_id": job, "input": song, **change})
            strange[f"outbox/{number}/stems.json"] = json.dumps({**manifest, "job_id": f"{number + 9:032x}", **change})
        make_song(daemon.inbox / "1.wav", 0.5)  # so that a job of that id would have an end to come to
        bad = json.loads(strange["status/1.wav.json"])
        bad["input"] |= looks_of(daemon.inbox / "1.wav")
        strange["status/1.wav.json"] = json.dumps(bad)
        outside = make_song(tmp_path / "outside.wav")
        for number, raw in enumerate(("%", b64encode(b"../../outside.wav").decode())):
            song = {**sidecar["input"], "name_b64": raw, **looks_of(outside)}
            strange[f"status/name {number}.json"] = json.dumps(
                {**sidecar, "job_id": f"{number + 20:032x}", "input": song}
            )
        strange["outside/file"] = "here"
        daemon.look_away()  # who reads all of it falls into a trap
        for name, content in strange.items():
            path = daemon.spool / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        put_traps(daemon.spool / "status", daemon.outbox / "trap")
        remove_state(tmp_path / "state")
        daemon.start().ready()
        drop(daemon, "next.wav", 0.4)
        assert daemon.final("next.wav")["state"] == "done"
        daemon.until(lambda: daemon.song("1.wav")["job_id"] != bad["job_id"] and daemon.final("1.wav"), "its own job")
        daemon.until(lambda: not daemon.works(), "put away")
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert list(tmp_path.glob("outside*")) == [outside]
    del strange["status/1.wav.json"]  # the song has a job now, and that its sidecar
    assert {name for name, content in strange.items() if (daemon.spool / name).read_text() != content} == set()


def a_slow_share(daemon: Simulated, monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> list[int]:
    """A status/ of 20 strange files, each of which takes a second to read; the heartbeat's `seq` before each."""
    status, read, seqs = daemon.spool / "status", documents.read, []
    status.mkdir(parents=True)
    for number in range(20):
        (status / f"{number}.json").write_text("{}")

    def read_slowly(path: str | Path, kind: type[Any], **how: int) -> Any:
        if Path(path).name[:-5].isdigit():
            daemon.clock.sleep(1)
            seqs.append(json.loads((status / "_daemon.json").read_bytes())["seq"])
            then(len(seqs))
        return read(path, kind, **how)

    monkeypatch.setattr(documents, "read", read_slowly)
    return seqs


def test_the_heart_beats_while_a_long_status_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files others have put into status/, the heartbeat grows from one of them to the next."""
    daemon = Simulated(tmp_path)
    seqs = a_slow_share(daemon, monkeypatch, lambda _: None)
    try:
        daemon.start()
        daemon.look_away()
        daemon.ready()
        assert len(seqs) >= 20
        assert len(set(seqs)) > 0.9 * len(seqs)
        assert sorted(seqs) == seqs
    finally:
        daemon.end()


def test_a_stop_ends_the_walk_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is not kept waiting by the files in status/, and no song is taken before they have been read."""
    daemon = Simulated(tmp_path)

    def stop(read: int) -> None:
        if read == 3:
            daemon.service._on_signal(signal.SIGTERM, None)

    seqs = a_slow_share(daemon, monkeypatch, stop)
    drop(daemon, "song.wav")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        daemon.start()
        service = daemon.service
        monkeypatch.setattr(service, "start_up", lambda: None)  # it has started
        service.run()
        assert len(seqs) == 3
        assert daemon.read("_daemon.json")["state"] == "stopping"
        assert not (daemon.spool / "status" / "song.wav.json").exists()
    finally:
        daemon.service = None
        daemon._undo.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
