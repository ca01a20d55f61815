"""The options of a song, through a real daemon: they decide its result and its place; a wrong one fails it and keeps it."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bad_options import BAD, BAD_IN_PLACE, HASH, as_bytes
from daemons import Daemon, make_song, running

TOML = {
    "defaults": {"format": "wav"},
    "profiles.karaoke": {"format": "flac", "stems": ["vocals", "instrumental"]},
    "profiles.drums": {"stems": ["drums", "no_drums"], "bit_depth": 24},
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with a few profiles."""
    with running(tmp_path_factory.mktemp("options"), fake=True, **TOML) as one:
        yield one


def drop(daemon: Daemon, name: str, content: bytes | dict[str, Any] | None = None, seconds: float = 0.3) -> None:
    """A song with its option file, which is complete before the song is."""
    song = daemon.inbox / name
    song.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        song.with_name(f"{song.name}.job.json").write_bytes(as_bytes(content))
    part = make_song(song.with_name(f".{song.name}.part"), seconds, format=song.suffix[1:].upper(), subtype="PCM_16")
    part.rename(song)


SHOWN = (
    "not JSON",
    "empty",
    "too large",
    "nested deep",
    "an array",
    "not UTF-8",
    "unknown key",
    "schema 2",
    "format unknown",
    "a stem twice",
    "hash is short",
    "naming '../{stem}.{ext}'",
    "naming '{stem.__class__}.{ext}'",
)


def test_bad_options_fail_the_song_and_keep_it(daemon: Daemon) -> None:
    """A song with a bad option file is `failed` with `bad-options`; both are in failed/, and nothing is in the outbox."""
    table = {f"bad {n}.wav": (row[1], row[2]) for n, row in enumerate(row for row in BAD if row[0] in SHOWN)}
    assert len(table) == len(SHOWN)
    table |= {f"bad place {n}.wav": row for n, row in enumerate(BAD_IN_PLACE) if "\0" not in str(row[0])}
    for name, (content, _) in table.items():
        drop(daemon, name, content)
    for name, (content, words) in table.items():
        sidecar = daemon.final(name)
        assert (sidecar["state"], (sidecar["error"] or {}).get("code")) == ("failed", "bad-options"), sidecar
        place = [word for word in words if word not in ("karaoke, drums", "bit_depth = 24")]
        assert [word for word in place if word not in sidecar["error"]["message"]] == [], sidecar["error"]["message"]
        assert not sidecar["error"]["retryable"]
        failed = daemon.spool / "failed" / name
        daemon.until(failed.with_name(f"{name}.job.json").exists, f"the options of {name} in failed/")
        assert failed.exists()
        assert failed.with_name(f"{name}.job.json").read_bytes() == as_bytes(content)
    assert not [name for name in daemon.results() if name.startswith("bad")]
    assert not [path.name for path in daemon.inbox.iterdir() if path.name.startswith("bad")]


def test_an_unknown_stem_is_told_by_the_model(daemon: Daemon) -> None:
    """A stem that the model does not have is `bad-options`, with those that it has."""
    drop(daemon, "kazoo.wav", {"stems": ["kazoo"]})
    error = daemon.final("kazoo.wav")["error"]
    assert error["code"] == "bad-options"
    assert [word for word in ("stem", "kazoo", "instrumental", "no_drums") if word not in error["message"]] == []


def test_options_decide_the_result(daemon: Daemon) -> None:
    """Stems, format, names and sub-folders are as the option file has them; it travels to done/; the tag comes back."""
    asked = {"stems": ["bass", "no_bass"], "format": "flac", "naming": "{model}/{song} {stem}.{ext}", "tag": "table 4"}
    drop(daemon, "Asked.wav", asked)
    sidecar = daemon.final("Asked.wav")
    assert sidecar["state"] == "done", sidecar
    assert sidecar["tag"] == "table 4"
    names = [file["name"] for file in sidecar["output"]["files"]]
    assert names == ["demo/Asked bass.flac", "demo/Asked no_bass.flac"]
    assert all((daemon.outbox / sidecar["output"]["dir"] / name).is_file() for name in names)
    assert {key: sidecar["options"][key] for key in ("stems", "format", "naming", "profile")} == (
        {"stems": ["bass", "no_bass"], "format": "flac", "naming": asked["naming"], "profile": None}
    )
    daemon.until((daemon.spool / "done" / "Asked.wav.job.json").exists, "the option file in done/")


def test_folders_give_profiles(daemon: Daemon) -> None:
    """The deepest folder that is called as a profile is gives it; one in the option file beats it; results mirror folders."""
    drop(daemon, "karaoke/one.wav")
    drop(daemon, "karaoke/drums/two.wav")
    drop(daemon, "karaoke/x/three.wav", {"profile": "drums", "bit_depth": 16})
    found = {name: daemon.final(name) for name in ("karaoke/one.wav", "karaoke/drums/two.wav", "karaoke/x/three.wav")}
    assert [each["state"] for each in found.values()] == ["done"] * 3, found
    made = [each["options"] for each in found.values()]
    assert [(each["profile"], each["format"], each["bit_depth"]) for each in made] == (
        [("karaoke", "flac", "source"), ("drums", "wav", 24), ("drums", "wav", 16)]
    )
    assert [each["output"]["dir"] for each in found.values()] == ["karaoke/one", "karaoke/drums/two", "karaoke/x/three"]


def test_priority_orders_the_queue(tmp_path: Path) -> None:
    """Of songs that wait, the one with the higher priority is first; of equal ones, the one that was ready first."""
    with running(tmp_path, fake=True) as daemon:
        daemon.hold.touch()
        drop(daemon, "first.wav")
        daemon.until(lambda: daemon.song("first.wav").get("step") == "separate", "the first one runs")
        for name, asked in (("low.wav", {"priority": -5}), ("plain.wav", None), ("high.wav", {"priority": 5})):
            drop(daemon, name, asked)
            daemon.until(lambda name=name: daemon.song(name).get("reason") == "queued", f"{name} waits")
        queue = daemon.until(lambda: len(q := daemon.read("_daemon.json")["queue"]) == 3 and q, "three in the queue")
        assert [each["name"] for each in queue] == ["high.wav", "plain.wav", "low.wav"]
        daemon.hold.unlink()
        for name in ("low.wav", "plain.wav", "high.wav"):
            assert daemon.final(name)["state"] == "done"
    orders = [json.loads(line) for line in (tmp_path / "orders").read_text().splitlines()]
    assert [order["name"] for order in orders if order.get("song")] == (
        ["first.wav", "high.wav", "plain.wav", "low.wav"]
    )


def test_options_count_as_they_are_at_the_song_s_turn(tmp_path: Path) -> None:
    """Options may change while their song is queued; those that come while it is running are `late-options`."""
    with running(tmp_path, fake=True) as daemon:
        daemon.hold.touch()
        drop(daemon, "first.wav")
        daemon.until(lambda: daemon.song("first.wav").get("step") == "separate", "the first one runs")
        for name in ("changed.wav", "spoiled.wav"):
            drop(daemon, name, {"format": "flac"})
            daemon.until(lambda name=name: daemon.song(name).get("reason") == "queued", f"{name} is queued")
        (daemon.inbox / "changed.wav.job.json").write_bytes(b'{"format": "mp3", "tag": "new"}')
        (daemon.inbox / "spoiled.wav.job.json").write_bytes(b"{")
        (daemon.inbox / "first.wav.job.json").write_bytes(b'{"format": "mp3"}')
        daemon.until(lambda: daemon.song("changed.wav").get("tag") == "new", "the change is seen")
        late = {"name": "first.wav.job.json", "reason": "late-options"}
        daemon.until(
            lambda: any(late.items() <= entry.items() for entry in daemon.read("_inbox.json")["entries"]), "it is late"
        )
        assert daemon.final("spoiled.wav")["error"]["code"] == "bad-options"
        daemon.hold.unlink()
        assert daemon.final("first.wav")["options"]["format"] == "source"
        assert daemon.final("changed.wav")["options"]["format"] == "mp3"


def test_what_is_no_file_is_no_option_file(tmp_path: Path) -> None:
    """A link, a FIFO or a folder in the place of an option file is not read, and does not keep its song from its turn."""
    with running(tmp_path, fake=True) as daemon:
        (tmp_path / "elsewhere").write_bytes(b'{"format": "mp3"}')
        (daemon.inbox / "link.wav.job.json").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(daemon.inbox / "fifo.wav.job.json")
        (daemon.inbox / "folder.wav.job.json").mkdir()
        for name in ("link.wav", "fifo.wav", "folder.wav"):
            drop(daemon, name)
        for name in ("link.wav", "fifo.wav", "folder.wav"):
            sidecar = daemon.final(name)
            assert (sidecar["state"], sidecar["options"]["format"]) == ("done", "source")


def test_a_hash_is_waited_for(tmp_path: Path) -> None:
    """A song whose option file has its hash is not tried before it has it, and fails as `truncated` where it never does."""
    song = make_song(tmp_path / "Song.wav", 0.3).read_bytes()
    asked = {"wait_for_sha256": hashlib.sha256(song).hexdigest().upper()}
    with running(tmp_path, fake=True, limits={"truncated_grace_s": 4.0}) as daemon:
        for name in ("whole.wav", "never.wav"):
            (daemon.inbox / f"{name}.job.json").write_bytes(as_bytes(asked))
            (daemon.inbox / name).write_bytes(song[:-100])
        waits = daemon.until(
            lambda: (s := daemon.song("whole.wav")).get("input", {}).get("sha256") and s, "it was looked at"
        )
        assert (waits["state"], waits["attempt"]) == ("waiting", 0)
        with (daemon.inbox / "whole.wav").open("ab") as file:
            file.write(song[-100:])
        assert daemon.final("whole.wav")["state"] == "done"
        never = daemon.final("never.wav")
        assert (never["state"], never["error"]["code"]) == ("failed", "truncated")
    orders = [json.loads(line) for line in (tmp_path / "orders").read_text().splitlines()]
    assert [order["name"] for order in orders if order.get("song")] == ["whole.wav"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_comes_after_a_hash_that_never_came(tmp_path: Path, end: str) -> None:
    """Originals stay: a song that ended for want of its hash and is written again in place, meanwhile, is a new drop."""
    song = make_song(tmp_path / "Song.wav", 0.3).read_bytes()
    grace_s = 0.5 if end == "failed" else 60.0
    with running(tmp_path, fake=True, inbox={"after": "keep"}, limits={"truncated_grace_s": grace_s}) as daemon:
        options = daemon.inbox / "song.wav.job.json"
        options.write_bytes(as_bytes({"wait_for_sha256": HASH}))
        (daemon.inbox / "song.wav").write_bytes(song)
        if end == "cancelled":
            daemon.until(lambda: daemon.song("song.wav").get("reason") == "truncated", "it waits for its hash")
            (daemon.inbox / "song.wav.cancel").touch()
        first = daemon.final("song.wav")
        assert first["state"] == end
        daemon.quiet(8)  # and what is in the inbox has settled
        assert daemon.stop() == 0
        options.write_bytes(as_bytes({"wait_for_sha256": hashlib.sha256(song[::-1]).hexdigest()}))
        (daemon.inbox / "song.wav").write_bytes(song[::-1])  # of the same size, and the same inode
        daemon.start().ready()
        daemon.until(lambda: daemon.song("song.wav")["job_id"] != first["job_id"], "it is a new job")
        assert daemon.final("song.wav")["previous"]["job_id"] == first["job_id"]
