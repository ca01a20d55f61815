"""What `systemd/install` is told by `demixd.cli.unit`: a first configuration, and the drop-in of a unit."""

import grp
import os
from pathlib import Path

import msgspec
import pytest

from daemons import ROOT
from demixd import config
from demixd.cli import unit
from demixd.config import Config
from demixd.config.sections import Model, Paths
from demixd.errors import ConfigError


@pytest.mark.parametrize("spool", ["/srv/demixd", '/srv/the "share"', "/srv/Müll 100%", "/srv/back\\slash"])
def test_a_first_configuration_says_what_was_asked_for(spool: str) -> None:
    """Any folder, and a state folder of the service's own name; models are the installer's, for all services."""
    made = config.parse(unit.first_configuration("demixd@sing", spool), "here")
    assert made.paths == Paths(spool=spool, state="/var/lib/demixd@sing")
    assert msgspec_defaults(made)
    first = config.parse(unit.first_configuration("demixd", spool), "here")
    assert first.paths == Paths(spool=spool, state="/var/lib/demixd")


def msgspec_defaults(made: Config) -> bool:
    """Whether everything but the paths is left at its default, so that an upgrade may change it."""
    return made == Config(paths=made.paths)


@pytest.mark.parametrize("name", ["karaoke", "nas", "dj"])
@pytest.mark.parametrize("spool", ["", "/srv/else"])
def test_a_first_configuration_after_an_example(name: str, spool: str) -> None:
    """It is the example's, word by word, but for the folders: the spool that was asked for, else the example's."""
    text = (ROOT / "config" / f"{name}.toml").read_text(encoding="utf-8")
    theirs = config.parse(text, "there")
    made = config.parse(unit.first_configuration("demixd@two", spool, "", text), "here")
    assert made.paths == Paths(spool=spool or theirs.paths.spool, state="/var/lib/demixd@two")
    assert msgspec.structs.replace(made, paths=theirs.paths) == theirs


def test_the_folders_of_an_example_wherever_they_stand() -> None:
    """The section of the folders is left out whole, also at the end of the file, and none that is like it."""
    text = '[log]\nlevel = "debug"\n[paths]\nspool = "/a"\n# more\ninbox = "/b"\n'
    assert unit.first_configuration("demixd", "/c", "", text).endswith('\n\n[log]\nlevel = "debug"\n')
    last = unit.first_configuration("demixd", "/c", "", text + '[profiles.paths]\nformat = "mp3"\n')
    assert config.parse(last, "here").profiles == {"paths": {"format": "mp3"}}
    with pytest.raises(ConfigError, match="fromat"):
        unit.first_configuration("demixd", "", "", "[defaults]\nfromat = 1\n")


def test_folders_within_the_spool_need_no_line(tmp_path: Path) -> None:
    """The spool stands for its folders; what lies elsewhere is named."""
    inside = Config(paths=Paths(spool="/srv/a", state="/var/lib/demixd"))
    assert unit.folders(inside) == [Path("/srv/a"), Path("/var/lib/demixd")]
    outside = Config(paths=Paths(spool="/srv/a", outbox="/mnt/b", work="/fast/c", models="/m", state="/var/lib/demixd"))
    assert list(map(str, unit.folders(outside))) == ["/srv/a", "/mnt/b", "/var/lib/demixd", "/fast/c"]
    parts = {part: f"/each/{part}" for part in unit.PARTS}
    assert Path("/srv/demixd") not in unit.folders(Config(paths=Paths(**parts)))


def test_a_unit_waits_for_what_it_needs_and_writes_only_there() -> None:
    """The folders of models are waited for and not written; the state folder is the unit's own already."""
    paths = Paths(spool="/none/a", models="/none/models")
    text = unit.paths("demixd", Config(paths=paths, model=Model(repo="/none/repo")), "/etc/demixd/demixd.toml")
    assert text.splitlines()[1:] == [
        "[Unit]",
        'RequiresMountsFor="/none/a"',
        'RequiresMountsFor="/var/lib/demixd"',
        'RequiresMountsFor="/none/models"',
        'RequiresMountsFor="/none/repo"',
        "",
        "[Service]",
        'ReadWritePaths="-/none/a"',
    ]


def test_signs_that_mean_something_in_units() -> None:
    text = unit.paths("demixd", Config(paths=Paths(spool='/none/50% "a\\b"')), "x")
    assert 'ReadWritePaths="-/none/50%% \\"a\\\\b\\""' in text.splitlines()


def test_a_spool_in_a_home_is_let_through() -> None:
    assert "ProtectHome=read-only" in unit.paths("demixd", Config(paths=Paths(spool="/home/anna/stems")), "x")
    assert "ProtectHome" not in unit.paths("demixd", Config(paths=Paths(spool="/none/stems")), "x")


def test_the_group_of_the_share(tmp_path: Path) -> None:
    """The daemon gets the group that the spool belongs to, unless that is root's."""
    group = os.getgid()
    text = unit.paths("demixd", Config(paths=Paths(spool=str(tmp_path))), "x")
    assert (f"Group={grp.getgrgid(group).gr_name}" in text) is (group != 0)
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, grp.getgrnam("audio").gr_gid)
        assert "Group=audio" in unit.paths("demixd", Config(paths=Paths(spool=str(tmp_path))), "x").splitlines()


@pytest.mark.parametrize(
    "spool",
    [
        "/opt/demixd",
        "/var/lib/demixd/music",
        "/var/lib/demixd@sing/x/y",
        "~/.local/share/demixd/music",
        "/etc/demixd/s",
    ],
)
def test_a_spool_in_a_folder_of_the_installer_is_refused(spool: str) -> None:
    """It would be emptied when the program is taken away."""
    folder = str(Path(spool).expanduser())
    with pytest.raises(ConfigError, match="installer's own"):
        unit.main(["config", "demixd@other", folder, "", ""])


def test_songs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The spool comes first, then each of its folders, wherever it lies."""
    file = tmp_path / "demixd.toml"
    file.write_text('[paths]\nspool = "/srv/a"\ndone = "/mnt/done"\n')
    unit.main(["songs", str(file)])
    assert capsys.readouterr().out.split() == [
        "/srv/a",
        *(f"/srv/a/{part}" for part in unit.PARTS[:3]),
        "/mnt/done",
        "/srv/a/failed",
    ]


def with_private(spool: Path, outbox: Path, user: int) -> Config:
    """A spool whose outbox has a private folder of that user, as former versions made it."""
    private = outbox / ".demixd"
    private.mkdir(parents=True)
    os.chown(private, user, -1)
    private.chmod(0o2775)
    spool.mkdir(exist_ok=True)
    return Config(paths=Paths(spool=str(spool)))


@pytest.mark.parametrize("is_link", [False, True])
def test_an_open_private_folder_is_closed(tmp_path: Path, is_link: bool) -> None:
    """What is made in it has the group of the share still. The spool of the configuration may be a link."""
    there = tmp_path / "there"
    config, private = with_private(there, there / "outbox", os.geteuid()), there / "outbox" / ".demixd"
    if is_link:
        (tmp_path / "link").symlink_to(there)
        config = Config(paths=Paths(spool=str(tmp_path / "link")))
    assert [folder.resolve() for folder in unit.close(os.geteuid(), config)] == [private]
    assert private.stat().st_mode & 0o7777 == 0o2700
    assert list(unit.close(os.geteuid(), config)) == []


def test_no_link_leads_to_a_folder_that_is_closed(tmp_path: Path) -> None:
    """What others have put in the place of the outbox, or of the private folder, is left alone, and all that it leads to."""
    elsewhere = with_private(tmp_path / "spool", tmp_path / "elsewhere", os.geteuid())
    private = tmp_path / "elsewhere" / ".demixd"
    (tmp_path / "spool" / "outbox").symlink_to(tmp_path / "elsewhere")
    assert list(unit.close(os.geteuid(), elsewhere)) == []
    (tmp_path / "spool" / "outbox").unlink()
    (tmp_path / "spool" / "outbox").mkdir()
    (tmp_path / "spool" / "outbox" / ".demixd").symlink_to(private)
    assert list(unit.close(os.geteuid(), elsewhere)) == []
    assert private.stat().st_mode & 0o7777 == 0o2775


def test_another_user_s_private_folder_is_not_closed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert list(unit.close(os.geteuid() + 1, with_private(spool, spool / "outbox", os.geteuid()))) == []
    assert (spool / "outbox" / ".demixd").stat().st_mode & 0o7777 == 0o2775


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give folders away: sudo tests/run")
def test_a_share_is_given_to_its_group_and_no_link_is_followed(tmp_path: Path) -> None:
    """What the service's user has put in the place of a folder leads root nowhere."""
    group = grp.getgrnam("audio").gr_gid
    spool, other = tmp_path / "spool", tmp_path / "other"
    for folder in (spool / "inbox", other):
        folder.mkdir(parents=True, mode=0o755)
    (spool / "outbox").symlink_to(other)
    file = tmp_path / "demixd.toml"
    file.write_text(f'[paths]\nspool = "{spool}"\n')
    assert list(unit.share(group, config.load(file))) == [spool, spool / "inbox"]
    assert list(unit.share(group, config.load(file))) == []
    for folder in (spool, spool / "inbox"):
        assert (folder.stat().st_gid, folder.stat().st_mode & 0o7777) == (group, 0o2775)
    assert (other.stat().st_gid, other.stat().st_mode & 0o7777) == (0, 0o755)


def test_the_page_writes_where_songs_are_dropped(tmp_path: Path) -> None:
    """It is in the group of the share, and may write to the inbox and to failed/ alone."""
    (tmp_path / "inbox").mkdir()
    group = next(each for each in grp.getgrall() if each.gr_gid)
    os.chown(tmp_path / "inbox", -1, group.gr_gid)
    text = unit.web_paths(Config(paths=Paths(spool=str(tmp_path), failed="/home/anna/failed")), "demixd.toml")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        f'ReadWritePaths="-{tmp_path}/inbox"',
        'ReadWritePaths="-/home/anna/failed"',
    ]
    assert "ProtectHome=read-only" in lines and f"SupplementaryGroups={group.gr_name}" in lines
    assert f'RequiresMountsFor="{tmp_path}/status"' in lines


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        *(("0.0.0.0", "0.0.0.0:8377"), ("192.168.1.7:80", "192.168.1.7:80"), ("nas.local", "nas.local:8377")),
        *(("::", "[::]:8377"), ("[::1]:9000", "[::1]:9000"), ("[::]", "[::]:8377")),
    ],
)
def test_where_the_page_listens(address: str, listen: str) -> None:
    """An address may lack the port, and one of IPv6 the brackets."""
    assert f'Environment="LISTEN=--listen {listen}"' in unit.web_listen(address)


@pytest.mark.parametrize("address", ["a b", "x:99999", "http://nas", "0.0.0.0:", ":::"])
def test_where_nothing_can_listen(address: str) -> None:
    """What is no address is refused."""
    with pytest.raises(ConfigError, match="--web"):
        unit.web_listen(address)
