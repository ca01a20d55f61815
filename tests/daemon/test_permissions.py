"""Commands by a user who may not look everywhere: each says so in a sentence, and takes nothing hidden for missing."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import ENVIRONMENT, until
from daemons import Daemon, make_song
from demixd import config
from demixd.engine.models import records, store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user: sudo tests/run")

NOBODY = 65534
REMEDY = "let this user in, or run this as the daemon's user or by sudo"

# The interpreter itself may lie where that user cannot read: what it loads late is loaded before.
AS_NOBODY = (
    "import email.parser, encodings.ascii, encodings.utf_8_sig, os\n"
    "import demixd.cli.songs.cancel, demixd.cli.songs.follow, demixd.cli.songs.submit\n"
    "import demixd.cli.check.findings, demixd.cli.status.watch\n"
    "import demixd.engine.families.demucs, demixd.engine.models.listing, demixd.supervisor.service, demixd.cli.app\n"
    f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); demixd.cli.app.main()"
)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """One that is not started, in a folder to which every user has a way."""
    with tempfile.TemporaryDirectory(prefix="demixd-permissions-") as folder:
        Path(folder).chmod(0o755)
        yield Daemon(Path(folder))


@pytest.fixture
def closed(daemon: Daemon) -> Daemon:
    """The same, whose spool nobody else may enter."""
    for part in ("outbox", "status", "done", "failed"):
        (daemon.spool / part).mkdir()
    daemon.spool.chmod(0o700)
    (daemon.folder / "state").mkdir()
    os.chown(daemon.folder / "state", NOBODY, NOBODY)
    return daemon


def program(daemon: Daemon, *words: str) -> list[str]:
    return [sys.executable, "-c", AS_NOBODY, "--config", str(daemon.config), *words]


def as_nobody(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of demixd by another user, to its end."""
    return subprocess.run(program(daemon, *words), env=ENVIRONMENT, capture_output=True, text=True, check=False)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The line of each subject of `check`."""
    return {line.split()[1]: line for line in done.stdout.splitlines()}


def with_model(daemon: Daemon) -> None:
    """Give it a model in a folder that all may read, whose record is in a state folder that only its owner may."""
    repo, state = daemon.folder / "repo", daemon.folder / "state"
    repo.mkdir()
    state.mkdir(mode=0o700)
    (repo / "mine.yaml").write_text("models: ['a1']\n")
    (repo / "a1.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace('name = "demo"', f'name = "mine"\nrepo = "{repo}"'))


def test_check_as_one_who_may_only_read(daemon: Daemon) -> None:
    """A user who may read and not write gets findings, not tracebacks; the model of the package is there for everyone."""
    for part in ("outbox", "status", "done", "failed"):
        (daemon.spool / part).mkdir()
    (daemon.folder / "state").mkdir(mode=0o700)
    before = sorted(daemon.folder.rglob("*"))
    done = as_nobody(daemon, "check")
    assert (done.returncode, done.stderr) == (1, "")
    lines = found(done)
    for part in ("outbox", "status", "done", "failed"):
        assert re.match(rf"FAIL +{part} .*this user", lines[part]), done.stdout
    for part in ("state", "models"):
        assert re.match(rf"note +{part} .*not visible to you", lines[part]), done.stdout
    assert re.match(r"ok +model +demo in ", lines["model"]), done.stdout
    assert lines["inbox"].startswith("note")
    assert all("not tried" in lines[subject] for subject in ("rename", "lease"))
    assert sorted(daemon.folder.rglob("*")) == before


REFUSED = ("cancel x.wav", "cancel --all", "submit SONG")


@pytest.mark.parametrize("words", ["status --json", *(pytest.param(each, marks=pytest.mark.daily) for each in REFUSED)])
def test_a_closed_spool_refuses_a_command(closed: Daemon, words: str) -> None:
    """One sentence, with the folder and the remedy, and status 1."""
    song = make_song(closed.folder / "song.wav", 0.1)
    done = as_nobody(closed, *words.replace("SONG", str(song)).split())
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"demixd: {closed.spool}/\S+: Permission denied: {REMEDY}\n", done.stderr)


def test_a_closed_spool_has_no_status(closed: Daemon) -> None:
    """`status` does not say that no daemon has run there: it cannot know."""
    done = as_nobody(closed, "status")
    assert (done.returncode, done.stderr) == (1, "")
    hidden = "whether demixd runs on this spool is not visible to you"
    assert done.stdout.startswith(f"{hidden}; {closed.spool}/status: Permission denied: {REMEDY}; ")


def test_check_goes_on_where_the_spool_is_closed(closed: Daemon) -> None:
    """Each folder that cannot be looked at is a finding, and what lies elsewhere is checked all the same."""
    done = as_nobody(closed, "check")
    assert (done.returncode, done.stderr) == (1, "")
    lines = found(done)
    for part in ("inbox", "outbox", "status", "done", "failed"):
        assert re.fullmatch(rf"FAIL +{part} +{closed.spool}/{part}: Permission denied: {REMEDY}", lines[part])
    assert re.match(r"note +daemon .*not visible to you", lines["daemon"])
    assert lines["state"].startswith("ok")


def test_a_daemon_waits_for_a_closed_spool(closed: Daemon) -> None:
    """`run` says which folders it cannot use and waits for them, as for others that it may not use."""
    with closed.log.open("wb") as log:
        process = subprocess.Popen(program(closed, "run"), env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        said = f"{closed.spool}/inbox (inbox) cannot be used: Permission denied."
        until(lambda: said in closed.log.read_text() or process.poll() is not None, said)
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait() == 0


def test_models_in_a_closed_state_folder(daemon: Daemon) -> None:
    """`models list` names the folder that it cannot look into."""
    (daemon.folder / "state").mkdir(mode=0o700)
    done = as_nobody(daemon, "models", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"demixd: {daemon.folder}/state/models: Permission denied: {REMEDY}\n"


def test_hidden_records_vouch_for_nothing(daemon: Daemon) -> None:
    """`models verify` calls no model good whose records this user cannot see."""
    with_model(daemon)
    files = store.Where.of(config.load(daemon.config), "mine").locate()
    store.record(files, {each.sig: records.hash_file(each.path) for each in files.members})
    (daemon.folder / "repo" / "a1.safetensors").write_bytes(b"others")
    done = as_nobody(daemon, "models", "verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"demixd: {daemon.folder}/state/recorded/\w+ is not visible to you.* by sudo\.\n", done.stderr)


def test_hidden_records_are_not_missing(daemon: Daemon) -> None:
    """`models list` and `check` say that the records are not visible, and not that there are none."""
    with_model(daemon)
    (line,) = (line for line in as_nobody(daemon, "models", "list").stdout.splitlines() if line.startswith("mine "))
    assert re.match(r"mine +not visible .*is not visible to you", line)
    lines = found(as_nobody(daemon, "check"))
    assert re.match(r"note +model +mine in .*is not visible to you", lines["model"])
    assert re.match(r"ok +models .* has mine", lines["models"])
