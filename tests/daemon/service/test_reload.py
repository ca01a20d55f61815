"""SIGHUP: the configuration is read again, and gone by, without losing the warm model or a song."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemons import ROOT, Daemon, heard, make_song, running
from demixd import config
from demixd.config.sections import Limits, Model
from demixd.errors import Code
from demixd.protocol.job import Error
from demixd.protocol.options import Defaults
from demixd.supervisor.workers.line import Said
from demixd.supervisor.workers.manager import Have
from demixd.worker.messages import Unready, Warm
from scripted_worker import Worker, options

RUN = f"""
import sys
sys.path.insert(0, {str(ROOT / "daemon")!r})
from demixd import __main__
import signal
block = signal.pthread_sigmask
signal.pthread_sigmask = lambda *how: (block(*how), how[0] == signal.SIG_BLOCK and print("up", flush=True))
__main__.main()
"""
"""The command, which says when it has begun to keep SIGHUP."""


def rewrite(daemon: Daemon, change: Callable[[str], str]) -> None:
    """Another configuration, and the signal."""
    daemon.config.write_text(change(daemon.config.read_text()))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def says(daemon: Daemon, sentence: str) -> None:
    daemon.until(lambda: sentence in daemon.log.read_text(), f"the log says: {sentence}")


def worker(daemon: Daemon) -> dict[str, Any]:
    told: dict[str, Any] = daemon.read("_daemon.json")["worker"]
    return told


def test_a_good_configuration(tmp_path: Path) -> None:
    """From the next drop on; what runs or waits keeps its options, and the worker stays. systemd is told of it."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        with heard(tmp_path) as (address, lines):
            daemon.start(NOTIFY_SOCKET=address).ready()
            pid = worker(daemon)["pid"]
            daemon.hold.touch()
            make_song(daemon.inbox / "runs.wav", 0.3)
            daemon.until(lambda: daemon.song("runs.wav").get("step") == "separate", "it runs")
            make_song(daemon.inbox / "waits.wav", 0.3)
            daemon.until(lambda: daemon.song("waits.wav").get("reason") == "queued", "it waits")
            rewrite(daemon, lambda text: text + '[defaults]\nformat = "flac"\n[log]\nlevel = "debug"\n')
            says(daemon, "the configuration was read again")
            make_song(daemon.inbox / "new.wav", 0.3)
            daemon.until(lambda: daemon.song("new.wav").get("reason") == "queued", "it waits too")
            daemon.hold.unlink()
            formats = {name: daemon.final(f"{name}.wav")["options"]["format"] for name in ("runs", "waits", "new")}
            assert formats == {"runs": "source", "waits": "source", "new": "flac"}
            assert worker(daemon)["pid"] == pid
            assert daemon.stop() == 0
        told = [line for line in lines if line in ("READY=1", "RELOADING=1", "STOPPING=1")]
        assert told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        assert any(line.startswith("MONOTONIC_USEC=") for line in lines)
    finally:
        daemon.end()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text + "[defaults]\nfromat = 1\n", "fromat"),
        (lambda _: "not toml", "not TOML"),
        (lambda text: text.replace('spool = "', 'spool = "/elsewhere'), "[paths] has changed"),
        (lambda text: text + '[profiles.sing]\nstems = ["vocal"]\n', "did you mean vocals?"),
        (lambda text: text.replace('name = "demo"', 'name = "nothing_like_it"'), "there is no such model"),
        (lambda text: text + '[profiles.sing]\nmodel = "nothing_like_it"\n', "[profiles.sing] model"),
    ],
    ids=[
        "unknown key",
        "not toml",
        "another spool",
        "a stem that the model lacks",
        "no model",
        "no model of a profile",
    ],
)
def test_a_bad_configuration(tmp_path: Path, change: Callable[[str], str], reason: str) -> None:
    """It is refused, the log says why, and the old one goes on."""
    with running(tmp_path, fake=True) as daemon:
        rewrite(daemon, change)
        says(daemon, reason)
        says(daemon, "the old one stays")
        daemon.until(lambda: any(reason in each for each in daemon.read("_daemon.json")["warnings"]), "a warning")
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"


def test_other_folders_of_a_service(tmp_path: Path) -> None:
    """Its unit names the folders: a restart alone would make them read-only for the daemon, so the installer is named too."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start(STATE_DIRECTORY="/var/lib/demixd").ready()
        rewrite(daemon, lambda text: text.replace('spool = "', 'spool = "/elsewhere'))
        says(
            daemon, "[paths] has changed, which only a restart can take over: run `sudo systemd/install` again, since "
        )
        assert daemon.stop() == 0
    finally:
        daemon.end()


MISTAKES = {
    "[defaults]\nfromat = 1\n": "fromat: there is no such key; did you mean format?",
    '[defaults]\nstems = ["banjo"]\n': '[defaults] stems has "banjo": demo has no such stem. There are drums, bass,',
    '[profiles.x]\nmodel = "htdemucs_6s"\nstems = ["banjo"]\n': '[profiles.x] stems has "banjo": htdemucs_6s has no such stem',
    '[profiles.x]\nmodel = "nothing_like_it"\n': '[profiles.x] model = "nothing_like_it": there is no such model',
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_fails_the_check(tmp_path: Path, text: str) -> None:
    """What the unit asks before it signals: 78 and the reason for a mistake, and nothing for a good configuration."""
    daemon = Daemon(tmp_path)
    done = daemon.command("check", "--configuration")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    daemon.config.write_text(daemon.config.read_text() + text)
    done = daemon.command("check", "--configuration")
    assert (done.returncode, done.stdout) == (78, "")
    assert MISTAKES[text] in done.stderr


@pytest.mark.daily
def test_a_reload_before_the_daemon_can_hear_it(tmp_path: Path) -> None:
    """A SIGHUP in its first moments does not end it: the configuration is read again as soon as it is up."""
    for pause_s in (0.08, 0.15, 0.25, 0.4):
        daemon = Daemon(tmp_path / f"{pause_s}", fake=True)
        program = [sys.executable, "-I", "-c", RUN, "--config", str(daemon.config), "run"]
        with daemon.log.open("wb") as log:
            daemon.process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        try:
            assert daemon.process.stdout is not None
            # Python itself is up, and this program's first line has run.
            assert select.select([daemon.process.stdout], [], [], 60)[0]
            time.sleep(pause_s)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.ready()
            says(daemon, "the configuration was read again")
            assert daemon.stop() == 0
        finally:
            daemon.end()
            daemon.process.stdout.close()


def test_other_commands_hear_it(tmp_path: Path) -> None:
    """Only the daemon keeps the signal: another command that has that word among its own ends by it, as programs do."""
    daemon = Daemon(tmp_path, fake=True, status={"heartbeat_s": 0.2})
    daemon.hold.touch()
    daemon.start().ready()
    song = make_song(tmp_path / "song.wav", 0.1)
    words = [sys.executable, "-m", "demixd", "--config", daemon.config, "submit", "--wait", "--to", "run", song]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"run/song.wav: ")
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == -signal.SIGHUP
    daemon.hold.unlink()
    assert daemon.stop() == 0


def test_another_model(tmp_path: Path) -> None:
    """The song that runs is ended with the model it began with; then another worker warms up the new one."""
    bag = tmp_path / "state" / "models" / "mine.yaml"
    bag.parent.mkdir(parents=True)
    bag.write_text("models: [abc]")
    with running(tmp_path, fake=True, model={"name": "mine"}) as daemon:
        pid = worker(daemon)["pid"]
        daemon.hold.touch()
        make_song(daemon.inbox / "runs.wav", 0.3)
        daemon.until(lambda: daemon.song("runs.wav").get("step") == "separate", "it runs")
        rewrite(daemon, lambda text: text.replace('device = "cpu"', 'device = "auto"'))
        says(daemon, "the configuration was read again")
        assert worker(daemon)["pid"] == pid
        daemon.hold.unlink()
        assert daemon.final("runs.wav")["attempt"] == 1
        daemon.until(lambda: worker(daemon)["pid"] not in (None, pid) and worker(daemon)["state"] == "ready", "anew")


def test_a_closed_terminal_ends_it(tmp_path: Path) -> None:
    """There SIGHUP is no wish for another configuration: the daemon ends with the terminal, as programs do."""
    ours, theirs = pty.openpty()
    daemon = Daemon(tmp_path, fake=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    program = [sys.executable, "-m", "demixd", "--config", str(daemon.config), "run"]
    with daemon.log.open("wb") as log:
        daemon.process = subprocess.Popen(program, stdin=theirs, stdout=log, stderr=log, env=environment)
    try:
        daemon.ready()
        os.close(theirs)
        os.close(ours)  # it is no terminal any more from here on
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.wait(timeout=60) == 0
    finally:
        daemon.end()


# ---- the manager, told the time


def test_what_was_missing_is_asked_for_at_once() -> None:
    """A reload after `demixd models fetch` does not wait for the next try."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.manager.on_message(Said(worker.pid, Unready(error=Error(code=Code.MODEL_MISSING, message="not here"))), 1.0)
    asked = len(worker.sent)
    worker.manager.tick(2.0, busy=False)
    assert len(worker.sent) == asked
    worker.manager.reconfigure(config.Config(), worker.place, 3.0)
    worker.manager.tick(3.0, busy=False)
    assert len(worker.sent) == asked + 1
    assert worker.started == 1, "the same worker, for the same configuration"


def test_no_song_begins_with_an_outdated_model() -> None:
    """From the reload on the warm model serves nobody, until a worker of the new configuration is there."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0)
    assert worker.manager.serves(options("htdemucs"))
    worker.manager.reconfigure(config.Config(model=Model(precision="float32")), worker.place, 2.0)
    assert worker.manager.is_outdated and not worker.manager.serves(options("htdemucs"))
    worker.manager.renew(3.0)
    assert worker.manager.want(options("htdemucs"), 3.0) is Have.BUSY
    worker.manager.tick(3.0, busy=True)
    order = worker.sent[-1]
    assert isinstance(order, Warm) and order.precision == "float32"
    assert worker.started == 2
    worker.ready(4.0)
    assert worker.manager.serves(options("htdemucs"))


def test_what_has_nothing_to_do_with_the_model_keeps_it() -> None:
    """Other keys, `keep_alive_s` among them, need no other worker."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0)
    before = config.Config()
    changed = msgspec.structs.replace(
        before, model=Model(keep_alive_s=5.0), defaults=Defaults(format="mp3"), limits=Limits()
    )
    worker.manager.reconfigure(changed, worker.place, 2.0)
    assert not worker.manager.is_outdated
    worker.manager.tick(3.0, busy=False)
    worker.manager.tick(20.0, busy=False)
    assert worker.manager.state == "asleep"
