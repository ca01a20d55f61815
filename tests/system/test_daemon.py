"""The real daemon on real files, with the demo model."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile

from daemons import CLIENT_BEAT_S, MUSIC, ROOT, Daemon, make_song, running
from demixd.errors import Code
from hub import Hub


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that leave it as it was."""
    with running(
        tmp_path_factory.mktemp("daemon"), limits={"truncated_grace_s": 2.0}, status={"heartbeat_s": CLIENT_BEAT_S}
    ) as one:
        yield one


def test_a_copied_song_is_done(daemon: Daemon, tmp_path: Path) -> None:
    """A plain copy becomes stems in the song's format with the song's frames, and the original goes to done/."""
    song = make_song(tmp_path / "Song.flac", 1.3)
    shutil.copy(song, daemon.inbox)
    sidecar = daemon.final("Song.flac")
    assert sidecar["state"] == "done", sidecar
    assert sidecar["progress"]["fraction"] == 1.0
    folder = daemon.outbox / sidecar["output"]["dir"]
    manifest = json.loads((folder / "stems.json").read_text())
    assert {file["name"] for file in manifest["files"]} == {"vocals.flac", "instrumental.flac"}
    for file in manifest["files"]:
        info = soundfile.info(str(folder / file["name"]))
        assert (info.frames, info.samplerate, info.channels) == (soundfile.info(str(song)).frames, 44100, 2)
    daemon.until((daemon.spool / "done" / "Song.flac").exists, "original in done/")
    for path, document in {
        "status.schema.json": sidecar,
        "schemas/daemon.schema.json": daemon.read("_daemon.json"),
        "schemas/inbox.schema.json": daemon.read("_inbox.json"),
        "schemas/stems.schema.json": manifest,
    }.items():
        jsonschema.validate(document, json.loads((ROOT / "config" / path).read_text()))


BAD = [("text.mp3", b"not music at all\n" * 400, "bad-audio"), ("empty header.flac", b"fLaC", "bad-audio")]


@pytest.mark.parametrize(("name", "content", "code"), BAD)
def test_a_bad_song_fails_with_its_code(daemon: Daemon, name: str, content: bytes, code: str) -> None:
    """A file that is no audio fails with a code and a sentence, and the original goes to failed/."""
    (daemon.inbox / name).write_bytes(content)
    sidecar = daemon.final(name)
    assert (sidecar["state"], sidecar["error"]["code"]) == ("failed", code)
    assert len(sidecar["error"]["message"]) > 10
    daemon.until((daemon.spool / "failed" / name).exists, "original in failed/")


@pytest.mark.parametrize("look_s", [0.3, 3.0])
def test_a_song_moved_back_is_tried_again(tmp_path: Path, look_s: float) -> None:
    """A song moved from failed/ back into the inbox is a new job that names the one before, also between two looks."""
    name = "again.mp3"
    with running(tmp_path, fake=True, inbox={"watch": "poll", "scan_interval": look_s, "settle": 0.1}) as daemon:
        (daemon.inbox / name).write_bytes(b"no music\n" * 400)
        first = daemon.final(name)
        failed = daemon.spool / "failed" / name
        daemon.until(failed.exists, "original in failed/")
        failed.rename(daemon.inbox / name)
        second = daemon.until(
            lambda: (s := daemon.song(name))["job_id"] != first["job_id"] and s["state"] == "failed" and s,
            "another try",
        )
    assert second["previous"]["job_id"] == first["job_id"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a read-only folder: sudo tests/run")
def test_a_song_that_cannot_be_moved_is_done_once(tmp_path: Path) -> None:
    """Where done/ takes nothing the original keeps its name in the inbox, with a warning, and is not done again."""
    daemon = Daemon(tmp_path, fake=True)
    done = daemon.spool / "done"
    done.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(done)], check=True)
    try:
        make_song(daemon.inbox / "stuck.wav", 0.5)
        for _ in range(2):
            daemon.start().ready()
            job = daemon.final("stuck.wav")["job_id"]
            daemon.quiet()
            assert daemon.song("stuck.wav")["job_id"] == job
            assert daemon.stop() == 0
    finally:
        daemon.end()
        subprocess.run(["umount", str(done)], check=True)
    assert "stays in the inbox" in daemon.song("stuck.wav")["warnings"][0]
    assert [path.name for path in daemon.inbox.iterdir()] == ["stuck.wav"]


def test_a_kept_song_is_done_once(tmp_path: Path) -> None:
    """With `after = "keep"` the original stays, and is not done again, neither by the next look nor after a restart."""
    daemon = Daemon(tmp_path, fake=True, inbox={"after": "keep"})
    make_song(daemon.inbox / "kept.wav", 0.5)
    try:
        for _ in range(2):
            daemon.start().ready()
            job = daemon.final("kept.wav")["job_id"]
            daemon.quiet()
            assert daemon.song("kept.wav")["job_id"] == job
            assert daemon.stop() == 0
    finally:
        daemon.end()
    assert (daemon.inbox / "kept.wav").exists()
    assert {path.name for path in daemon.outbox.iterdir()} == {"kept", ".demixd"}


def test_not_a_number_is_refused(daemon: Daemon) -> None:
    """NaN in a float WAV is `not-finite`."""
    wave = np.zeros((1000, 2), np.float32)
    wave[500] = np.nan
    part = daemon.inbox / ".nan.part"
    soundfile.write(part, wave, 44100, format="WAV", subtype="FLOAT")
    part.rename(daemon.inbox / "nan.wav")
    assert daemon.final("nan.wav")["error"]["code"] == "not-finite"
    daemon.until((daemon.spool / "failed" / "nan.wav").exists, "original in failed/")


def test_a_cut_song_waits_and_then_fails(daemon: Daemon, tmp_path: Path) -> None:
    """A FLAC cut at half waits as `truncated` for its grace and then fails so."""
    whole = make_song(tmp_path / "cut.flac", 5.0).read_bytes()
    (daemon.inbox / "cut.flac").write_bytes(whole[: len(whole) // 2])
    waiting = daemon.until(lambda: (s := daemon.song("cut.flac")).get("reason") == "truncated" and s, "truncated")
    assert waiting["state"] == "waiting"
    assert daemon.final("cut.flac")["error"]["code"] == "truncated"
    daemon.until((daemon.spool / "failed" / "cut.flac").exists, "original in failed/")


ODD = {
    "two samples.wav": {"seconds": 2 / 44100},
    "six channels.wav": {"channels": 6},
    "8k.wav": {"rate": 8000},
    "192k.flac": {"rate": 192000, "seconds": 0.5},
    "日本語の歌.flac": {},
    "party 🎉.ogg": {},
    "-dash.mp3": {},
    "mono.wav": {"channels": 1},
}


@pytest.mark.daily
def test_odd_songs_are_done(daemon: Daemon, tmp_path: Path) -> None:
    """Odd lengths, rates, channels and names are done, each with the song's number of frames; ten at once, in order."""
    for name, how in ODD.items():
        make_song(tmp_path / name, **how)  # type: ignore[arg-type]
    soundfile.write(tmp_path / "silence.flac", np.zeros((60 * 44100, 2)), 44100)
    names = [*ODD, "silence.flac"]
    for name in names:
        shutil.copy(tmp_path / name, daemon.inbox)
    for name in names:
        sidecar = daemon.final(name)
        assert sidecar["state"] == "done", sidecar
        folder = daemon.outbox / sidecar["output"]["dir"]
        frames = soundfile.info(str(tmp_path / name)).frames
        for file in sidecar["output"]["files"]:
            assert soundfile.info(str(folder / file["name"])).frames == frames, name


def test_what_is_not_a_job_is_explained(daemon: Daemon) -> None:
    """Everything in the inbox that is no job is listed with its reason; an empty file waits."""
    (daemon.inbox / "notes.txt").write_text("hello")
    (daemon.inbox / "film.mid").write_text("hello")
    (daemon.inbox / "Song.wav.part").write_text("hello")
    (daemon.inbox / "nobody.flac.cancel").touch()
    (daemon.inbox / "empty.wav").touch()
    wanted = {
        "notes.txt": "not-audio",
        "film.mid": "unsupported-format",
        "Song.wav.part": "ignored-name",
        "nobody.flac.cancel": "no-such-job",
    }
    daemon.until(
        lambda: wanted.items() <= {e["name"]: e["reason"] for e in daemon.read("_inbox.json")["entries"]}.items(),
        "reasons",
    )
    daemon.until(lambda: not (daemon.inbox / "nobody.flac.cancel").exists(), "the stranger to be removed")
    assert daemon.song("empty.wav")["reason"] == "empty"
    for name in ("notes.txt", "film.mid", "Song.wav.part", "empty.wav"):
        (daemon.inbox / name).unlink()


def test_cancel_of_the_running_song(daemon: Daemon, tmp_path: Path) -> None:
    """A cancelled song ends within 5 s, leaves nothing in the outbox, and the model stays warm for the next."""
    worker = daemon.read("_daemon.json")["worker"]["pid"]
    make_song(tmp_path / "long.flac", 120.0)
    shutil.copy(tmp_path / "long.flac", daemon.inbox)
    daemon.until(lambda: daemon.song("long.flac").get("step") == "separate", "separate")
    began = time.monotonic()
    (daemon.inbox / "long.flac.cancel").touch()
    sidecar = daemon.final("long.flac")
    assert time.monotonic() - began < 5
    assert (sidecar["state"], sidecar["cancel"]["result"]) == ("cancelled", "cancelled")
    daemon.until((daemon.spool / "failed" / "long.flac").exists, "original in failed/")
    daemon.until(lambda: not daemon.works(), "no work folder")
    assert not any(name.startswith("long") for name in daemon.results())
    assert not (daemon.inbox / "long.flac.cancel").exists()
    make_song(daemon.inbox / "after.wav")
    assert daemon.final("after.wav")["state"] == "done"
    assert daemon.read("_daemon.json")["worker"]["pid"] == worker


def test_a_stop_during_a_job_takes_five_seconds_at_most(tmp_path: Path) -> None:
    """SIGTERM ends the daemon within 5 s; the running song waits again, uncharged, and is done after the next start."""
    daemon = Daemon(tmp_path)
    make_song(tmp_path / "song.flac", 30.0)
    shutil.copy(tmp_path / "song.flac", daemon.inbox)
    try:
        daemon.start().ready()
        daemon.until(lambda: daemon.song("song.flac").get("step") == "separate", "separate")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        sidecar = daemon.song("song.flac")
        assert (sidecar["state"], sidecar["attempt"]) == ("waiting", 0)
        daemon.start().ready()
        assert daemon.final("song.flac")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    """Without the model and offline, the daemon is ready, says what is missing, and songs wait as `model-missing`."""
    daemon = Daemon(tmp_path, model={"name": "htdemucs"})
    make_song(daemon.inbox / "song.wav")
    try:
        daemon.start(HF_HUB_OFFLINE="1").ready()
        sidecar = daemon.until(lambda: (s := daemon.song("song.wav")).get("reason") == "model-missing" and s, "waiting")
        assert "htdemucs" in sidecar["message"]
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_missing_model_is_fetched(tmp_path: Path) -> None:
    """A published model that is not there is fetched at need; while the hub refuses, songs wait and it is asked again."""
    demo = ROOT / "daemon" / "demixd" / "engine" / "models" / "demo"
    files = {path.name: path.read_bytes() for path in demo.glob("*.safetensors")}
    files["htdemucs.yaml"] = (demo / "demo.yaml").read_bytes()
    daemon = Daemon(tmp_path, model={"name": "htdemucs"})
    make_song(daemon.inbox / "song.wav", 0.5)
    with Hub({("adefossez/HTDemucs", name): data for name, data in files.items()}, status=503) as hub:
        try:
            daemon.start(HF_ENDPOINT=hub.endpoint, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1").ready()
            daemon.until(lambda: daemon.song("song.wav").get("reason") == "model-missing", "waiting")
            hub.status = None
            sidecar = daemon.final("song.wav")
            assert daemon.stop() == 0
        finally:
            daemon.end()
    assert (sidecar["state"], sidecar["engine"]["model"]) == ("done", "htdemucs")
    assert (tmp_path / "state" / "models" / "htdemucs.yaml").exists()


def test_a_model_that_comes_later(tmp_path: Path) -> None:
    """Songs that wait for their model are done once it is there, without anybody's help."""
    demo = ROOT / "daemon" / "demixd" / "engine" / "models" / "demo"
    daemon = Daemon(tmp_path, model={"name": "late", "repo": str(tmp_path / "repo")})
    make_song(daemon.inbox / "song.wav", 0.5)
    try:
        daemon.start().ready()
        daemon.until(lambda: daemon.song("song.wav").get("reason") == "model-missing", "waiting")
        (tmp_path / "repo").mkdir()
        for weights in demo.glob("*.safetensors"):
            shutil.copy(weights, tmp_path / "repo")
        shutil.copy(demo / "demo.yaml", tmp_path / "repo" / "late.yaml")
        assert daemon.final("song.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_submit_and_wait(daemon: Daemon, tmp_path: Path) -> None:
    """`demixd submit --wait` ends 0 when its song is done, and 1 when it failed; it never imports torch."""
    good, bad = make_song(tmp_path / "given.wav"), tmp_path / "bad.mp3"
    bad.write_bytes(b"no" * 5000)
    for song, status in ((good, 0), (bad, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "demixd", "--config", str(daemon.config), "submit", "--wait", str(song)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr


def test_music(daemon: Daemon) -> None:
    """Real music comes out in its own format with its own number of frames."""
    if not MUSIC.exists():
        pytest.skip("no real music beside the repository (../shared/audio)")
    shutil.copy(MUSIC / "demucs_test.mp3", daemon.inbox)
    sidecar = daemon.final("demucs_test.mp3")
    assert sidecar["state"] == "done", sidecar
    folder = daemon.outbox / sidecar["output"]["dir"]
    for file in sidecar["output"]["files"]:
        assert file["name"].endswith(".mp3")
        assert soundfile.info(str(folder / file["name"])).frames == sidecar["input"]["frames"]


def test_separate_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`demixd.separate_audio` puts the stems directly into the folder, tells its progress, and stops when asked."""
    import demixd

    config = tmp_path / "demixd.toml"
    config.write_text('[model]\nname = "demo"\ndevice = "cpu"\n')
    monkeypatch.setenv("DEMIXD_CONFIG", str(config))
    song = make_song(tmp_path / "song.wav", 2.0)
    said: list[str] = []
    assert demixd.separate_audio(song, tmp_path / "stems", said.append) is True
    assert sorted(path.name for path in (tmp_path / "stems").iterdir()) == ["instrumental.wav", "vocals.wav"]
    assert said
    stop = threading.Event()
    stop.set()
    with pytest.raises(demixd.StopProcessingError):
        demixd.separate_audio(song, tmp_path / "stems2", said.append, stop)
    with pytest.raises(demixd.AudioProcessingError, match=r"missing\.wav"):
        demixd.separate_audio(tmp_path / "missing.wav", tmp_path / "stems3")


def test_separate_audio_leaves_nothing_of_the_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no folder in the daemon's place, whoever calls it: a model that it has to fetch is the user's own."""
    import demixd

    asked: list[Path] = []

    def refuse(name: str, models: Path, **_how: object) -> None:
        asked.append(models)
        raise demixd.AudioProcessingError(Code.MODEL_MISSING, f"{name} is not fetched in tests.")

    config = tmp_path / "demixd.toml"
    config.write_text(f'[paths]\nstate = "{tmp_path}/state"\n[model]\nname = "htdemucs"\ndevice = "cpu"\n')
    monkeypatch.setenv("DEMIXD_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("demixd.worker.warm.fetch", refuse)
    song = make_song(tmp_path / "song.wav", 0.5)
    with pytest.raises(demixd.AudioProcessingError, match="not fetched in tests"):
        demixd.separate_audio(song, tmp_path / "stems")
    assert asked == [tmp_path / "cache" / "demixd" / "models"]
    assert not (tmp_path / "state").exists()
