"""What `systemd/install` says beforehand, and what `--uninstall` takes away and leaves, for one user; systemctl does nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemons import ROOT
from demixd.engine.models.catalog import PUBLISHED
from mounts import mounts, needs_mounts, tmpfs


class Home:
    """A user's home, with demixd installed and a configuration whose spool is `spool`."""

    def __init__(self, folder: Path, spool: str) -> None:
        self.folder, self.spool = folder, folder / spool
        for path in (
            "bin",
            ".config/demixd",
            ".local/state/demixd/models",
            ".local/state/demixd/recorded",
            ".local/state/demixd/work",
            ".local/state/demixd/.cache",
        ):
            (folder / path).mkdir(parents=True)
        systemctl = folder / "bin" / "systemctl"
        systemctl.write_text("#!/bin/sh\n")
        systemctl.chmod(0o755)
        self.state = folder / ".local/state/demixd"
        (folder / ".config/demixd/demixd.toml").write_text(
            f'[paths]\nspool = "{self.spool}"\nstate = "{self.state}"\nmodels = "{self.state}/models"\n'
        )
        (self.state / "ledger.sqlite3-wal").touch()
        self.home = folder / ".local/share/demixd"
        (self.home / "daemon").mkdir(parents=True)
        (self.home / ".venv").symlink_to(sys.prefix)  # it has our package on its path
        self.song = self.spool / "done" / "Song.flac"
        self.song.parent.mkdir(parents=True)
        self.song.write_bytes(b"a song")

    def uninstall(self, *words: str) -> str:
        environment = {**os.environ, "HOME": str(self.folder), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        command = [str(ROOT / "systemd" / "install"), "--uninstall", "--user", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


INSIDE = [".local/share/demixd/music", ".local/share/demixd/daemon"]


@pytest.mark.parametrize("spool", INSIDE)
def test_songs_stay_wherever_they_are(tmp_path: Path, spool: str) -> None:
    """A spool in a folder of the installer stays, also under a name that the installer uses; the rest goes."""
    home = Home(tmp_path, spool)
    said = home.uninstall()
    assert home.song.read_bytes() == b"a song"
    assert str(home.spool) in said.partition("What stays:")[2]
    assert not (home.home / ".venv").exists()
    assert not home.state.exists()


@pytest.mark.parametrize("place", ["share", "state"])
def test_what_somebody_keeps_there_stays(tmp_path: Path, place: str) -> None:
    """Where the configuration is gone nobody knows of a spool: what is not demixd's by its name stays, and is told of."""
    home = Home(tmp_path, f".local/{place}/demixd/music")
    (tmp_path / ".config/demixd/demixd.toml").unlink()
    said = home.uninstall()
    assert home.song.read_bytes() == b"a song"
    assert f"{tmp_path}/.local/{place}/demixd, all but music" in said
    assert f"{tmp_path}/.local/{place}/demixd\n" in said.partition("What stays:\n")[2]
    assert home.home.exists() is (place == "share")
    assert home.state.exists() is (place == "state")


@needs_mounts
def test_a_mount_point_stays(tmp_path: Path) -> None:
    """Where a disk was mounted for the program it is emptied, and told of: nothing is left in it, and it cannot be removed."""
    mount = tmpfs(tmp_path / ".local/share/demixd", 1 << 20)
    with mounts(mount):
        said = Home(tmp_path, "music").uninstall()
        assert list(mount.at.iterdir()) == []
    assert f"  what was in {mount.at}, on which something is mounted\n" in said
    assert f"  {mount.at}\n" in said.partition("What stays:\n")[2]


def test_models_of_ones_own_stay(tmp_path: Path) -> None:
    """A folder of models that the configuration names is not the installer's: it stays, and is told of."""
    home, models = Home(tmp_path, "music"), tmp_path / "my models"
    models.mkdir()
    file = tmp_path / ".config/demixd/demixd.toml"
    file.write_text(file.read_text().replace(f"{home.state}/models", str(models)))
    assert str(models) in home.uninstall().partition("What stays:")[2]
    assert models.is_dir()


def test_one_instance_is_not_all(tmp_path: Path) -> None:
    """Whoever asks for one instance to be taken away is told how, and nothing goes: `--uninstall` is for all of them."""
    home = Home(tmp_path, "music")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        home.uninstall("--instance", "karaoke")
    assert refused.value.returncode == 2
    assert refused.value.stderr.startswith("--uninstall takes every instance away: ")
    assert home.state.exists()


def test_nothing_is_left(tmp_path: Path) -> None:
    """With a spool elsewhere both folders go; `--dry-run` only says so."""
    home = Home(tmp_path, "music")
    said = home.uninstall("--dry-run")
    assert said.startswith("This would be taken away:\n") and str(home.home) in said and "\nWhat would stay:\n" in said
    assert (home.state / "ledger.sqlite3-wal").exists()
    home.uninstall()
    assert not home.home.exists() and not home.state.exists()
    assert home.song.exists()


@pytest.mark.parametrize("words", [[], ["--uninstall"]], ids=" ".join)
def test_a_dry_run_works_anywhere(tmp_path: Path, words: list[str]) -> None:
    """Without a systemd that runs `--dry-run` tells that, and all the same what would be done; without it that is refused."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    for dry, status in (["--dry-run"], 0), ([], 1):
        command = [str(ROOT / "systemd" / "install"), "--user", *words, *dry]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "systemd does not run here" in done.stderr) == (status, True)
        assert ("the units" in done.stdout or f"{tmp_path}/stems, for songs" in done.stdout) is bool(dry)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_dry_run_tells_what_each_option_does(tmp_path: Path) -> None:
    """OpenVINO, Ray, page, no CUDA, the configuration to begin with are told; where there is one, that the other is not used."""

    def said(*words: str) -> str:
        command = [str(ROOT / "systemd" / "install"), "--user", "--dry-run", *words]
        environment = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "CPU alone" not in said() and "torch for the CPU alone" in said("--cpu", "https://index.invalid/cpu")
    assert "OpenVINO" not in said() and "its packages and OpenVINO into" in said("--openvino")
    assert "--user and --hooks do not go together: start demixd hooks yourself" in refused("--hooks")
    assert "page" not in said() and "what the page needs" in said("--web")
    assert "by which the page listens at 0.0.0.0" in said("--web", "0.0.0.0") and "listens" not in said("--web")
    assert "Ray" not in said() and "its packages and Ray into" in said("--ray")
    mine, there = tmp_path / "mine.toml", tmp_path / ".config/demixd/demixd.toml"
    mine.write_text('[paths]\nspool = "/music"\n')
    told = said("--config", str(mine))
    assert f"{there}, from {mine}\n" in told and f"the spool that {mine} names" in told and "stems" not in told
    assert f'{there}, from {mine}, with spool = "/other"' in said("--config", str(mine), "--spool", "/other")
    there.parent.mkdir(parents=True)
    there.touch()
    assert f"{there} is there and stays as it is; {mine} is not used" in said("--config", str(mine))


def refused(*words: str) -> str:
    """What the installer says of words that it does not take; were they taken, `--dry-run` would keep it from doing anything."""
    command = [str(ROOT / "systemd" / "install"), "--user", "--dry-run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize("option", ["--spool", "--group", "--config", "--instance", "--fetch", "--cpu"])
def test_a_forgotten_value_takes_no_option(option: str) -> None:
    """An option whose value was forgotten is refused by its name: the next option, such as `--dry-run`, is not its value."""
    assert refused(option) == f"{option} needs a value; see --help\n"
    assert refused(option, "--dry-run") == f"{option} needs a value, and --dry-run is none; see --help\n"


def test_a_model_that_cannot_be_fetched_is_refused_first() -> None:
    """A name that is no model of Demucs is told before anything is done, with all that there are: those of the catalogue."""
    assert refused("--fetch", "htdemuc") == (
        f"--fetch: Demucs publishes no model htdemuc; there are {', '.join(PUBLISHED)}\n"
    )
