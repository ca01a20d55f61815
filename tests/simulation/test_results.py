"""What need not be computed again, what stays for how long, and whose turn it is."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from queues import queued, running
from simulated import Simulated
from simulated_songs import make_song
from watching import faults


@contextmanager
def started(folder: Path, **sections: Any) -> Iterator[Simulated]:
    daemon = Simulated(folder, **sections)
    daemon.constants["demixd.supervisor.workers.missing:RETRY_S"] = [0.3]
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Simulated]:
    with started(tmp_path) as one:
        yield one


def drop(daemon: Simulated, name: str, song: str, **options: Any) -> None:
    """The song called `song`, always the same bytes, is dropped as `name`."""
    source = daemon.folder / f"song-{song}.wav"
    if not source.exists():
        make_song(source, 0.3)
    (daemon.inbox / name).parent.mkdir(parents=True, exist_ok=True)
    if options:
        (daemon.inbox / f"{name}.job.json").write_text(json.dumps(options))
    part = daemon.inbox / f".{Path(name).name}.part"
    shutil.copy2(source, part)
    part.rename(daemon.inbox / name)


def done(daemon: Simulated, name: str, song: str, **options: Any) -> dict[str, Any]:
    """Dropped and done, and its original put away: the sidecar."""
    drop(daemon, name, song, **options)
    sidecar = daemon.final(name)
    assert sidecar["state"] == "done", sidecar
    daemon.until((daemon.spool / "done" / name).exists, "put away")
    return sidecar


def orders(daemon: Simulated, kind: str = "separate") -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (daemon.folder / "orders").read_bytes().splitlines()]
    return [each for each in told if each["type"] == kind]


def computed(daemon: Simulated, sidecar: dict[str, Any]) -> bool:
    """Whether the worker had to work for it."""
    return sidecar["job_id"] in [order["job_id"] for order in orders(daemon)]


# ---- duplicates


def test_the_same_song_is_not_computed_again(daemon: Simulated) -> None:
    """Under another name: done at once, as a duplicate whose output is the earlier folder, with all that it is."""
    first = done(daemon, "one.wav", "same")
    again = done(daemon, "deep/other name.wav", "same")
    assert not computed(daemon, again)
    assert again["duplicate_of"] == first["job_id"]
    assert first["duplicate_of"] is None
    assert again["output"] == first["output"]
    assert again["progress"]["fraction"] == 1.0
    assert again["engine"] == first["engine"]
    assert {key: again["input"][key] for key in ("sha256", "frames", "rate", "channels", "format")} == {
        key: first["input"][key] for key in ("sha256", "frames", "rate", "channels", "format")
    }
    assert again["input"]["name"] == "deep/other name.wav"
    assert not (daemon.outbox / "deep").exists()
    third = done(daemon, "third.wav", "same")
    assert third["duplicate_of"] == first["job_id"], "the job that computed it, not a duplicate of it"


SAME: list[dict[str, Any]] = [
    {"tag": "table 4"},
    {"priority": 7},
    {"stems": ["vocals", "instrumental"]},
    {"naming": "{stem}.{ext}"},
    {"naming": "stem"},
    {"model": "demo"},
]
OTHER: list[dict[str, Any]] = [
    {"stems": ["vocals"]},
    {"stems": ["instrumental", "vocals"]},
    {"format": "flac"},
    {"bit_depth": 24},
    {"naming": "{stem} of {song}.{ext}"},
    {"naming": "{model}/{stem}.{ext}"},
    {"shifts": 1},
    {"overlap": 0.5},
    {"clip": "clamp"},
    {"force": True},
]


def test_what_changes_the_result_and_what_does_not(daemon: Simulated) -> None:
    """Options that do not affect the output change nothing; any other is computed anew, in a folder of its own."""
    first = done(daemon, "options.wav", "options")
    for number, options in enumerate(SAME):
        again = done(daemon, f"options same {number}.wav", "options", **options)
        assert again["duplicate_of"] == first["job_id"], options
    for number, options in enumerate(OTHER):
        other = done(daemon, f"options other {number}.wav", "options", **options)
        assert other["duplicate_of"] is None, options
        assert other["output"]["dir"] == f"options other {number}"
        assert computed(daemon, other)


def test_names_with_the_song_in_them(daemon: Simulated) -> None:
    """Where files are named after the song, a song of another name is computed anew, and the same name is not."""
    naming = "{song} - {stem}.{ext}"
    first = done(daemon, "party.wav", "named", naming=naming)
    same = done(daemon, "sub/party.wav", "named", naming=naming)
    other = done(daemon, "dance.wav", "named", naming=naming)
    assert same["duplicate_of"] == first["job_id"]
    assert other["duplicate_of"] is None
    assert [file["name"] for file in other["output"]["files"]] == ["dance - vocals.wav", "dance - instrumental.wav"]


def test_force_is_the_newest_result(daemon: Simulated) -> None:
    """`force` computes anyway; from then on that result is the one that stands for the song."""
    first = done(daemon, "forced.wav", "forced")
    anew = done(daemon, "forced again.wav", "forced", force=True)
    assert anew["duplicate_of"] is None
    assert anew["output"]["dir"] != first["output"]["dir"]
    assert done(daemon, "forced third.wav", "forced")["duplicate_of"] == anew["job_id"]


def change_a_byte(folder: Path) -> None:
    path = folder / "vocals.wav"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_a_file(folder: Path) -> None:
    os.truncate(folder / "vocals.wav", 100)


def remove_a_file(folder: Path) -> None:
    (folder / "instrumental.wav").unlink()


def change_the_waveforms(folder: Path) -> None:
    (folder / "peaks.json").write_text("[]\n")


def forget_the_waveforms(folder: Path) -> None:
    """The manifest says nothing of them any more."""
    manifest = json.loads((folder / "stems.json").read_bytes())
    (folder / "stems.json").write_text(json.dumps({**manifest, "extras": []}))


def remove_the_manifest(folder: Path) -> None:
    (folder / "stems.json").unlink()


def replace_it(folder: Path) -> None:
    """The folder of another job has the name now."""
    manifest = json.loads((folder / "stems.json").read_bytes())
    (folder / "stems.json").write_text(json.dumps({**manifest, "job_id": 32 * "0"}))


HARM = [
    change_a_byte,
    cut_a_file,
    remove_a_file,
    change_the_waveforms,
    forget_the_waveforms,
    remove_the_manifest,
    replace_it,
    shutil.rmtree,
]


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_a_result_that_is_not_whole_any_more(daemon: Simulated, harm: Any) -> None:
    """A result that does not verify any more is computed anew, and what is left of it stays as it is."""
    name = harm.__name__
    first = done(daemon, f"{name}.wav", name)
    place = daemon.outbox / first["output"]["dir"]
    daemon.look_away()
    harm(place)
    left = {path: path.read_bytes() for path in place.rglob("*")}
    anew = done(daemon, f"{name} again.wav", name)
    assert anew["duplicate_of"] is None
    assert faults(daemon.outbox / anew["output"]["dir"]) == []
    assert {path: path.read_bytes() for path in place.rglob("*")} == left
    assert done(daemon, f"{name} third.wav", name)["duplicate_of"] == anew["job_id"]


def test_duplicates_in_a_row(tmp_path: Path) -> None:
    """The same song many times at once: the first is computed, the others are its duplicates, in the order of work."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "0.wav", "other")
        daemon.until(lambda: daemon.song("0.wav").get("step") == "separate", "it runs")
        for name in ("d.wav", "b.wav", "a.wav", "c.wav"):
            drop(daemon, name, "same", **({"priority": 1} if name == "c.wav" else {}))
            daemon.until(lambda n=name: daemon.song(n).get("reason") == "queued", "queued")
        daemon.hold.unlink()
        ends = [daemon.final(name) for name in ("c.wav", "d.wav", "b.wav", "a.wav")]
        daemon.quiet()
    assert [end["duplicate_of"] for end in ends] == [None, *[ends[0]["job_id"]] * 3]
    assert [end["state_since"] for end in ends] == sorted(end["state_since"] for end in ends)
    assert [order["name"] for order in orders(daemon)] == ["0.wav", "c.wav"]


# ---- models


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A folder in which the models `demo` and `two` can be."""
    folder = tmp_path / "repo"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text("models: ['a']\n")
    return folder


def test_a_song_s_own_model(tmp_path: Path, repo: Path) -> None:
    """The option `model` has that model warmed up for the song, and its result is another one."""
    with started(tmp_path, model={"name": "one", "repo": str(repo)}) as daemon:
        first = done(daemon, "first.wav", "same")
        other = done(daemon, "other.wav", "same", model="two")
        again = done(daemon, "again.wav", "same", model="two")
        back = done(daemon, "back.wav", "same")
        fresh = done(daemon, "fresh.wav", "fresh")
    assert [order["model"] for order in orders(daemon, "warm")] == ["one", "two", "one"]
    assert (first["engine"]["model"], other["engine"]["model"], fresh["engine"]["model"]) == ("one", "two", "one")
    assert other["duplicate_of"] is None
    assert again["duplicate_of"] == other["job_id"]
    assert back["duplicate_of"] == first["job_id"]


def test_another_model_of_the_same_name(tmp_path: Path) -> None:
    """A model is known by its hash: where its weights are others now, the song is computed anew."""
    with started(tmp_path) as daemon:
        first = done(daemon, "first.wav", "same")
    (tmp_path / "weights-demo").write_text("other")
    with started(tmp_path) as daemon:
        anew = done(daemon, "anew.wav", "same")
        assert done(daemon, "again.wav", "same")["duplicate_of"] == anew["job_id"]
    assert anew["duplicate_of"] is None
    assert (first["engine"]["model_sha256"], anew["engine"]["model_sha256"]) == ("demo", "other")


def test_a_missing_model_holds_nobody_else_up(tmp_path: Path, repo: Path) -> None:
    """A song whose model is missing waits as `model-missing`; the others go on in order; it is done when it can be."""
    with started(tmp_path, model={"name": "one", "repo": str(repo)}) as daemon:
        (tmp_path / "missing-two").touch()
        daemon.hold.touch()
        drop(daemon, "0.wav", "zero")
        daemon.until(lambda: daemon.song("0.wav").get("step") == "separate", "it runs")
        for name in ("c.wav", "a.wav", "b.wav"):
            drop(daemon, name, name, **({"model": "two"} if name == "c.wav" else {}))
            daemon.until(lambda n=name: daemon.song(n).get("reason") == "queued", "queued")
        daemon.hold.unlink()
        assert daemon.final("b.wav")["state"] == daemon.final("a.wav")["state"] == "done"
        waiting = daemon.until(lambda: (s := daemon.song("c.wav"))["reason"] == "model-missing" and s, "it waits")
        assert "two" in waiting["message"]
        assert waiting["attempt"] == 0
        assert done(daemon, "later.wav", "later")["state"] == "done"
        assert daemon.song("c.wav")["state"] == "waiting"
        assert daemon.read("_daemon.json")["worker"]["model"] == "one"
        (tmp_path / "missing-two").unlink()
        assert daemon.final("c.wav")["engine"]["model"] == "two"
    assert [order["name"] for order in orders(daemon)] == ["0.wav", "a.wav", "b.wav", "later.wav", "c.wav"]


def test_the_model_of_the_configuration_is_missing(tmp_path: Path, repo: Path) -> None:
    """The daemon is ready, songs wait and say for what; one with a model that is there is done meanwhile."""
    (tmp_path / "missing-one").touch()
    with started(tmp_path, model={"name": "one", "repo": str(repo)}) as daemon:
        drop(daemon, "waits.wav", "waits")
        daemon.until(lambda: daemon.song("waits.wav").get("reason") == "model-missing", "it waits")
        assert done(daemon, "other.wav", "other", model="two")["engine"]["model"] == "two"
        assert daemon.song("waits.wav")["reason"] == "model-missing"
        (tmp_path / "missing-one").unlink()
        assert daemon.final("waits.wav")["engine"]["model"] == "one"


# ---- turns


def test_places_in_the_queue(tmp_path: Path) -> None:
    """`queue_position` says who is next: by priority, then by the time it became ready; the daemon says the same."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "0.wav", "zero")
        daemon.until(lambda: daemon.song("0.wav").get("step") == "separate", "it runs")
        assert daemon.song("0.wav")["progress"]["queue_position"] is None
        wanted: dict[str, int] = {"z.wav": 0, "low.wav": -1, "a.wav": 0, "high.wav": 5, "high too.wav": 5}
        for name, priority in wanted.items():
            drop(daemon, name, name, priority=priority)
            place = daemon.until(lambda n=name: daemon.song(n).get("progress", {}).get("queue_position"), "a place")
            queue = daemon.until(
                lambda n=name: n in (q := [each["name"] for each in daemon.read("_daemon.json")["queue"]]) and q,
                "listed",
            )
            assert queue.index(name) + 1 == place
        line = ["high.wav", "high too.wav", "z.wav", "a.wav", "low.wav"]
        assert [each["name"] for each in daemon.read("_daemon.json")["queue"]] == line
        assert [each["job_id"] for each in daemon.read("_daemon.json")["queue"]] == [
            daemon.song(n)["job_id"] for n in line
        ]
        daemon.hold.unlink()
        for name in line:
            assert daemon.final(name)["progress"]["queue_position"] is None
    assert [order["name"] for order in orders(daemon)] == ["0.wav", *line]


def test_three_drops_of_a_name(tmp_path: Path) -> None:
    """While the first runs its sidecar names the next; a later drop takes the next one's place; then it is a chain."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav", "one")
        first = daemon.until(lambda: (s := daemon.song("song.wav")).get("step") == "separate" and s, "it runs")
        assert (first["next"], first["previous"]) == (None, None)
        drop(daemon, "song.wav", "two")
        second = daemon.until(lambda: daemon.song("song.wav")["next"], "the next")
        daemon.until(lambda: daemon.read("_daemon.json")["queue"], "it waits for its turn")
        assert daemon.read("_daemon.json")["queue"] == [{"job_id": second, "name": "song.wav"}]
        drop(daemon, "song.wav", "three")
        third = daemon.until(lambda: (n := daemon.song("song.wav")["next"]) not in (second, None) and n, "another next")
        assert daemon.song("song.wav")["job_id"] == first["job_id"]
        daemon.hold.unlink()
        last = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] == third and s["state"] == "done" and s, "done"
        )
        daemon.quiet()
        assert last["next"] is None
        assert last["previous"] == {"job_id": second, "state": "cancelled", "output": None}
        assert faults(daemon.outbox / "song") == [], "the first one is done all the same"
        assert last["output"]["dir"] == "song (2)"
        drop(daemon, "song.wav", "four")
        fourth = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] != third and s["state"] == "done" and s, "done"
        )
        assert fourth["previous"] == {"job_id": third, "state": "done", "output": last["output"]}
    sizes = {path.stat().st_size for path in (tmp_path / "spool" / "done").iterdir()}
    assert len(list((tmp_path / "spool" / "done").iterdir())) == 2
    assert sizes == {(tmp_path / "song-one.wav").stat().st_size}
    assert [order["name"] for order in orders(daemon)] == ["song.wav"] * 3


# ---- retention


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_sidecars_of_songs_that_are_gone_are_removed(tmp_path: Path) -> None:
    """After `keep_days`; those of songs that are there, of younger ones, of jobs, and what is not ours stay."""
    daemon = Simulated(tmp_path, inbox={"after": "keep"}, status={"heartbeat_s": 0.2, "keep_days": 7})
    status = daemon.spool / "status"
    names = ["old.wav", "young.wav", "kept.wav", "deep/old.wav", "deep/er/old.wav", "held.wav"]
    try:
        daemon.start().ready()
        for name in names[:-1]:
            drop(daemon, name, name.replace("/", "-"))
        for name in names[:-1]:
            assert daemon.final(name)["state"] == "done"
        daemon.hold.touch()
        drop(daemon, "held.wav", "held")
        daemon.until(lambda: daemon.song("held.wav").get("step") == "separate", "it runs")
        daemon.kill()
        for name in names:
            age(status / f"{name}.json", 6 if name == "young.wav" else 8)
            if name not in ("kept.wav", "held.wav"):
                (daemon.inbox / name).unlink()
        foreign = {"list.json": "[]", "notes.txt": "theirs", "deep/theirs.json": "{}"}
        for name, content in foreign.items():
            (status / name).write_text(content)
            age(status / name, 100)
        os.mkfifo(status / "pipe.json")  # who opens it to read waits for a writer
        age(status / "pipe.json", 100)
        daemon.start().ready()
        daemon.until(lambda: not daemon.song("old.wav"), "the old one is gone")
        daemon.until(lambda: not daemon.song("deep/old.wav"), "and the one in a folder")
        daemon.until(lambda: not (status / "deep" / "er").exists(), "and its empty folder")
        seq = daemon.read("_daemon.json")["seq"]
        daemon.until(lambda: daemon.read("_daemon.json")["seq"] > seq + 5, "some looks later")
        for name, content in foreign.items():
            assert (status / name).read_text() == content
        assert daemon.song("young.wav")["state"] == daemon.song("kept.wav")["state"] == "done"
        assert daemon.song("held.wav")["state"] == "running"
        daemon.hold.unlink()
        assert daemon.final("held.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


# ---- a model that is not there


def test_a_reload_gives_waiting_songs_another_model(tmp_path: Path) -> None:
    """Songs whose model is missing go by the configuration that is read again, in their order; the others keep theirs."""
    (tmp_path / "missing-htdemucs").touch()
    with started(tmp_path, model={"name": "htdemucs"}) as daemon:
        for name, options in {"b.wav": {}, "a.wav": {}, "own.wav": {"model": "htdemucs"}}.items():
            drop(daemon, name, name, **options)
            daemon.until(lambda name=name: daemon.song(name).get("reason") == "model-missing", "it waits")
        daemon.config.write_text(daemon.config.read_text().replace('"htdemucs"', '"demo"'))
        daemon.reload()
        assert [daemon.final(name)["options"]["model"] for name in ("b.wav", "a.wav")] == ["demo", "demo"]
        assert [each["name"] for each in orders(daemon)] == ["b.wav", "a.wav"]
        daemon.until(lambda: daemon.song("own.wav").get("reason") == "model-missing", "it waits still")
        assert daemon.song("own.wav")["options"]["model"] == "htdemucs"


def test_a_reload_that_is_taken_back_at_once(tmp_path: Path) -> None:
    """A song that was accepted for a model that nobody has, and did not know it yet, goes by the configuration as well."""
    (tmp_path / "missing-htdemucs").touch()
    with started(tmp_path, model={"name": "demo"}) as daemon:
        daemon.hold.touch()
        drop(daemon, "runs.wav", "runs")
        running(daemon, "runs.wav")
        daemon.config.write_text(daemon.config.read_text().replace('"demo"', '"htdemucs"'))
        daemon.reload()
        drop(daemon, "song.wav", "song")
        queued(daemon, "song.wav")
        assert daemon.song("song.wav")["options"]["model"] == "htdemucs"
        daemon.config.write_text(daemon.config.read_text().replace('"htdemucs"', '"demo"'))
        daemon.reload()
        daemon.hold.unlink()
        assert daemon.final("song.wav")["options"]["model"] == "demo"


def test_a_model_that_comes_is_noticed(tmp_path: Path) -> None:
    """Whatever comes into the folder of models has a missing one asked for at once, however long the next try would wait."""
    (tmp_path / "missing-htdemucs").touch()
    daemon = Simulated(tmp_path, model={"name": "htdemucs"})
    daemon.constants["demixd.supervisor.workers.missing:RETRY_S"] = [3600.0]
    try:
        daemon.start().ready()
        drop(daemon, "song.wav", "song")
        daemon.until(lambda: daemon.song("song.wav").get("reason") == "model-missing", "it waits")
        (tmp_path / "missing-htdemucs").unlink()
        daemon.sleep(60)
        assert daemon.song("song.wav")["reason"] == "model-missing"
        models = tmp_path / "state" / "models"
        models.mkdir()
        (models / "htdemucs.yaml").touch()
        assert daemon.final("song.wav")["state"] == "done"
    finally:
        daemon.end()
