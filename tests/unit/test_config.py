"""The configuration: the shipped file, the schema, and errors that name the key."""

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli

from demixd import config
from demixd.config.sections import Paths
from demixd.engine.models.catalog import FOUR
from demixd.errors import ConfigError
from demixd.pipeline.mix import recipe
from demixd.protocol import options, schemas, status
from demixd.protocol.inbox_names import kind_of_folder

CONFIG = Path(__file__).parents[2] / "config"


def test_the_shipped_file_is_the_defaults() -> None:
    """config/demixd.toml shows every key, each with its default."""
    table = tomli.loads((CONFIG / "demixd.toml").read_text())
    assert table == msgspec.json.decode(msgspec.json.encode(config.Config()))


def test_the_shipped_schemas_are_the_types() -> None:
    """config/status.schema.json and those in config/schemas/ are what the code's types say, each whole and with a name."""
    made = schemas.schemas()
    shipped = [CONFIG / "status.schema.json", *(CONFIG / "schemas").iterdir()]
    assert {path.relative_to(CONFIG).as_posix(): json.loads(path.read_text()) for path in shipped} == made
    assert len({schema["$id"] for schema in made.values()} - {options.schema()["$id"]}) == len(made)
    assert all(schema["$ref"].removeprefix("#/$defs/") in schema["$defs"] for schema in made.values())


BAD = [
    ('[inbox]\nsettle = "long"', ('[inbox] settle = "long"', "number from 0 to 31536000")),
    ("[defaults]\nstems = []", ("stems = []", "a list of 1 to 64 entries")),
    ('[defaults]\nstems = [""]', ('stems = [""]',)),
    ("[inbox]\nsettle = {}", ("settle = {}", "number")),
    ("[inbox]\nsettle = inf", ("[inbox] settle = Infinity", "number from 0 to 31536000")),
    ("[inbox]\nscan_interval = 0", ("[inbox] scan_interval = 0", "but not 0")),
    ("[inbox]\nsettle_remote = nan", ("[inbox] settle_remote = NaN", "number")),
    ("[inbox]\nsettle_remote = 2026-01-01", ("[inbox] settle_remote = 2026-01-01", "number")),
    ("[inbox]\nsettel = 1", ("[inbox] settel", "no such key; did you mean settle?")),
    ("[inbox]\nSettle = 1", ("[inbox] Settle", "did you mean settle?")),
    ("[inbocks]\nsettle = 1", ("[inbocks]", "no such key; did you mean inbox?")),
    ("settle = 1", ("[settle]", "no such key")),
    ("'' = 1", ('[""]', "no such key")),
    ('[model]\ndevice = ["cpu", "gpu"]', ('device = "gpu"', "a list of these")),
    ("[model]\ndevice = []", ("device = []", "cuda:N")),
    ('[model]\ndevice = ["cpu", 1]', ('device = ["cpu", 1]', "cuda:N", "a list of 1 to 64 of these")),
    (f"[model]\ndevice = {['cpu'] * 65}", ('device = ["cpu", "cpu", ', "...: it must be", "1 to 64")),
    (f"[model]\ndevice = {'[' * 50}1{']' * 50}", ("device = [[[...]]]: ", "cuda:N")),
    ('[model]\ndevice = ["a\\u001b[2J", {x = 1}]', ('device = ["a\\u001b[2J", {...}]',)),
    ("[inbox]\n'' = 1", ('[inbox] ""', "no such key")),
    ("inbox = 1", ("[inbox] must be a table", "1")),
    ("[[inbox]]", ("[inbox] must be a table", "not [{}]")),
    ('[inbox]\nafter = "burn"', ('[inbox] after = "burn"', '"move", "keep" or "delete"')),
    ('[inbox]\nrecursive = "yes"', ('[inbox] recursive = "yes"', "true or false")),
    ("[status]\nheartbeat_s = 601", ("[status] heartbeat_s = 601", "600")),
    ("[status]\nkeep_days = 0", ("[status] keep_days = 0", "36500")),
    (f"[limits]\nmemory_bytes = {10**400}", ("[limits] memory_bytes = 1000", "from 0 to 1e+15")),
    (f"[limits]\nmax_attempts = {10**400}", ("[limits] max_attempts = 1000", "from 1 to 1000")),
    (f"[limits]\nmax_attempts = {'9' * 5000}", ("not TOML", "thousands of digits")),
    (f'[model]\ndevice = "cuda:{"9" * 5000}"', ('[model] device = "cuda:99', "cuda:N")),
    ('[model]\ndevice = "cuda:x"', ('[model] device = "cuda:x"', "auto, cpu, cuda, cuda:N or openvino:GPU")),
    ('[model]\ndevice = "cpu\\n"', ('[model] device = "cpu\\n"', "auto, cpu, cuda, cuda:N or openvino:GPU")),
    ('[model]\nprecision = "half"', ('[model] precision = "half"', '"bfloat16", "float16" or "float32"')),
    ("[model]\nbatch = 0", ("[model] batch = 0", "1")),
    ("[model]\nkeep_alive_s = -2", ("[model] keep_alive_s = -2", "-1")),
    ('[model]\nname = ""', ('[model] name = ""', "1 to 100 characters")),
    ('[model]\nrepo = "models"', ('[model] repo = "models"', "absolute")),
    ("[limits]\nmax_attempts = 1.5", ("[limits] max_attempts = 1.5", "whole number from 1 to 1000")),
    ('[log]\nlevel = "loud"', ('[log] level = "loud"', '"debug", "error", "info" or "warning"')),
    ("not toml", ("not TOML", "line 1")),
    ("a = " + "[" * 5000 + "]" * 5000, ("not TOML",)),
    ('[defaults]\nformat = "aiff"', ('[defaults] format = "aiff"', '"flac", "m4a", "mp3"')),
    ('[defaults]\nnaming = "{stem}"', ("[defaults] naming", ".{ext}")),
    ('[defaults]\nclip = "none"\nbit_depth = 16', ("[defaults] clip", "bit_depth = 16")),
    ('[defaults]\nclip = "none"\nnaming = "yarg"', ("[defaults] clip", 'naming = "yarg" has none')),
    (
        '[defaults]\nnaming = "ni-stems"\n[profiles.x]\nclip = "none"',
        ("[profiles.x] clip", 'naming = "ni-stems" has none'),
    ),
    ('[defaults]\nstems = ["bass", "bass"]', ("[defaults] stems", "twice")),
    ("[defaults]\npriority = 1", ("[defaults] priority", "no such key")),
    ("[profiles]\nkaraoke = 1", ("[profiles]", "[profiles.NAME]")),
    ("[profiles.karaoke]\nbitrate = 1", ("[profiles.karaoke] bitrate = 1", "8 to 512")),
    ("[profiles.karaoke]\nmodel = 1", ("[profiles.karaoke] model = 1", "text")),
    ("[profiles.karaoke]\nforce = true", ("[profiles.karaoke] force", "no such key")),
    ('[defaults]\nformat = "mp3"\n[profiles.loud]\nclip = "none"', ("[profiles.loud] clip", 'format = "mp3"')),
    ('[paths]\nspool = "here"', ('[paths] spool = "here"', "absolute")),
    ('[paths]\nspool = "~/demixd"', ('[paths] spool = "~/demixd"', "~ is not known")),
    ('[paths]\nstate = "/a\\u0000b"', ("[paths] state", "absolute")),
    ('[ray]\naddress = "nas"', ('[ray] address = "nas"', '"local", "auto" or "HOST:PORT"')),
    ('[ray]\naddress = "nas:65536"', ('[ray] address = "nas:65536"', '"local", "auto" or "HOST:PORT"')),
    ("[ray]\nworkers = 0", ("[ray] workers = 0", "from 1 to 1000")),
    ('[ray]\nworkers = "all"', ('[ray] workers = "all"', '"gpus"')),
    (
        '[ray]\npath_map = [["/srv/music", "music"]]',
        ('[ray] path_map has "music"', "both paths of a pair must be absolute"),
    ),
    ('[ray]\npath_map = [["/srv/music"]]', ('[ray] path_map = [["/srv/music"]]: it must be a list of up to 64 pairs',)),
    ('[model]\ndevice = "cuda:1"\n[ray]\naddress = "auto"', ('[model] device = "cuda:1"', "gets its GPU from Ray")),
    ('[model]\ndevice = ["cpu", "cpu"]\n[ray]\naddress = "auto"', ("[model] device", "gets its GPU from Ray")),
    ('[model]\ndevice = "cpu"\n[ray]\naddress = "auto"', ("[ray] workers must be a number", '[model] device is "cpu"')),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[text[:60].encode() for text, _ in BAD])
def test_errors_name_the_key(text: str, words: tuple[str, ...]) -> None:
    """A mistake is refused with the key, the file, the reason and what there is to choose."""
    with pytest.raises(ConfigError) as error:
        config.check(config.parse(text, "where.toml"), "where.toml")
    message = str(error.value)
    assert message.startswith("where.toml: ")
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


FOLDERS = (
    *("a.json", "a.cancel", ".hidden", "..", ".", "", "a/b", "a.part", "a.tmp", "~$a", "a~", "@eaDir", "#recycle"),
    *("#snapshot", ".stfolder", ".stversions", ".Trash-1000", "__MACOSX", "lost+found", "~syncthing~a", "Thumbs.db"),
    *("con", "LPT1", "a:b", "a b ", " a", "a\x00", "e\u0301", "x" * 61),
)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_profile_is_called_as_a_folder_can_be(name: str) -> None:
    """A profile cannot have a name that the inbox ignores or reserves, or that some filesystem cannot hold."""
    with pytest.raises(ConfigError, match="letters and digits") as error:
        config.check(config.Config(profiles={name: {}}), "where.toml")
    assert "[profiles." in str(error.value)


@pytest.mark.parametrize("name", ["karaoke", "Größe", "8 bit", "a-b_c", "カラオケ", "x" * 60])
def test_a_profile_folder_is_walked(name: str) -> None:
    """A name that a profile can have is one of a folder that the inbox walks."""
    assert config.check(config.Config(profiles={name: {"format": "mp3"}}), "where.toml").profiles
    assert kind_of_folder(name) is None


PARTS = ("inbox", "outbox", "status", "done", "failed", "state", "models", "work")
TOGETHER = ({"done", "failed"}, {"state", "models"}, {"state", "work"}, {"models", "work"})


@pytest.mark.parametrize("inner", PARTS)
@pytest.mark.parametrize("outer", PARTS)
@pytest.mark.parametrize("below", ["", "/x"])
def test_folders_lie_apart(inner: str, outer: str, below: str) -> None:
    """No folder may lie in another or be it, but where nothing of one can be taken for something of the other."""
    if inner == outer:
        return
    paths = {part: f"/there/{part}" for part in PARTS}
    paths[inner] = paths[outer] + below
    made = config.Config(paths=Paths(**paths))
    if {inner, outer} in TOGETHER and not ({inner, outer} == {"done", "failed"} and below):
        assert config.check(made, "where.toml") is made
        return
    with pytest.raises(ConfigError, match="lie in each other") as error:
        config.check(made, "where.toml")
    assert f" {inner} (" in str(error.value)
    assert f" {outer} (" in str(error.value)


@pytest.mark.parametrize("part", ["state", "models", "work"])
@pytest.mark.parametrize("below", ["", "/x/y"])
def test_a_file_is_no_folder(tmp_path: Path, part: str, below: str) -> None:
    """Of the folders that are on no share each is one, or can become one."""
    (tmp_path / "file").touch()
    made = config.Config(paths=Paths(**{"state": f"{tmp_path}/new/state", part: f"{tmp_path}/file{below}"}))
    with pytest.raises(ConfigError, match=f"paths. {part} .*: {tmp_path}/file is no folder: set {part} to one"):
        config.check(made, "where.toml")


@pytest.mark.parametrize("part", ["spool", "inbox", "outbox", "status", "done", "failed"])
def test_a_file_holds_no_folder(tmp_path: Path, part: str) -> None:
    """A part of the spool that lies below a file can never be made: the key that says so is wrong."""
    (tmp_path / "file").touch()
    value = f"{tmp_path}/file" + ("" if part == "spool" else "/below")
    made = config.Config(paths=Paths(**{"spool": f"{tmp_path}/new", part: value}))
    with pytest.raises(
        ConfigError, match=rf"paths. {part} \({value}\): {tmp_path}/file is no folder: set {part} to one"
    ):
        config.check(made, "where.toml")


def test_the_state_folder_is_not_on_the_share() -> None:
    """Whoever writes to the spool could take it away, also where no other folder of the spool is in its way."""
    for state in ("/there", "/there/state"):
        made = config.Config(paths=Paths(spool="/there", state=state))
        with pytest.raises(ConfigError, match=r"spool \(/there\) and state|inbox .* and state"):
            config.check(made, "where.toml")


def test_an_installed_program_has_its_models_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the installer has made a folder for them; else they are in the state folder. A configuration may name another."""
    monkeypatch.setattr(config, "BESIDE", tmp_path / "models")
    state = config.Config(paths=Paths(state="/var/lib/x"))
    assert state.models == Path("/var/lib/x/models")
    (tmp_path / "models").mkdir()
    assert state.models == tmp_path / "models"
    assert state.recorded == Path("/var/lib/x/recorded")
    assert config.Config(paths=Paths(models="/m")).models == Path("/m")


def test_a_link_is_followed(tmp_path: Path) -> None:
    """An outbox that is a link into the inbox lies in it."""
    (tmp_path / "inbox" / "deep").mkdir(parents=True)
    (tmp_path / "outbox").symlink_to(tmp_path / "inbox" / "deep")
    with pytest.raises(ConfigError, match="outbox"):
        config.check(config.parse(f'[paths]\nspool = "{tmp_path}"', "where.toml"), "where.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount: sudo tests/run")
def test_a_bind_mount_is_seen_through(tmp_path: Path) -> None:
    """An outbox that is the inbox, mounted a second time, lies in it, whatever the paths say."""
    for part in ("inbox", "outbox"):
        (tmp_path / part).mkdir()
    mount = ["mount", "--bind", str(tmp_path / "inbox"), str(tmp_path / "outbox")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount: run on a machine of your own")
    try:
        with pytest.raises(ConfigError, match=r"inbox .* and outbox .* lie in each other"):
            config.check(config.parse(f'[paths]\nspool = "{tmp_path}"', "where.toml"), "where.toml")
    finally:
        subprocess.run(["umount", str(tmp_path / "outbox")], check=True)


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    """A folder that cannot be followed is named."""
    (tmp_path / "outbox").symlink_to(tmp_path / "done")
    (tmp_path / "done").symlink_to(tmp_path / "outbox")
    with pytest.raises(ConfigError, match="outbox"):
        config.check(config.parse(f'[paths]\nspool = "{tmp_path}"', "where.toml"), "where.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user: sudo tests/run")
def test_whoever_may_not_look_can_use_the_spool(tmp_path: Path) -> None:
    """Commands work for a user who may not look into the state folder, where models are."""
    state = tmp_path / "state"
    (state / "models").mkdir(parents=True)
    text = f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{state}"'
    state.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (state / "models").stat()
        assert config.check(config.parse(text, "where.toml"), "where.toml").state == state
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b'[log]\nlevel = "\xff"', "UTF-8"),
        (b"\xef\xbb\xbf[log]\nlevel = 1", "[log] level = 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    """A configuration that is not there, or is no text, is an error with its path."""
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    """A FIFO, which nobody may ever write to, and a device without an end are refused at once."""
    fifo = tmp_path / "demixd.toml"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"{path}: the configuration must be a regular file"):
            config.load(path)


def test_the_command_ends_with_78(tmp_path: Path) -> None:
    """A mistake in the configuration ends any command with 78 and one line."""
    path = tmp_path / "own.toml"
    path.write_text("[inbox]\nsettel = 1\n")
    program = [sys.executable, "-m", "demixd", "--config", str(path), "check"]
    env = {**os.environ, "PYTHONPATH": str(CONFIG.parent / "daemon")}
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"demixd: {path}: [inbox] settel: there is no such key; did you mean settle?")
    assert done.stderr.count("\n") == 1


READY = ("karaoke", "nas", "dj")
"""Configurations to begin with, for three kinds of users."""


def plain(name: str) -> dict[str, Any]:
    return tomli.loads((CONFIG / f"{name}.toml").read_text())


@pytest.mark.parametrize("name", READY)
def test_a_ready_configuration_loads(name: str) -> None:
    """Each is taken as it is, and its stems, profiles included, are those of htdemucs."""
    made = config.load(CONFIG / f"{name}.toml")
    for profile in (None, *made.profiles):
        song = f"{profile}/Song.flac" if profile else "Song.flac"
        found = made.options_of(song, options.NONE, lambda _: True)
        assert found.profile == profile
        assert set(recipe(found.stems, FOUR).stems) == set(found.stems)


@pytest.mark.parametrize("name", READY)
def test_a_ready_configuration_says_only_what_differs(name: str) -> None:
    """Every key has another value than it would have without, in a profile than in [defaults]; and says why."""
    table, defaults = plain(name), msgspec.json.decode(msgspec.json.encode(config.Config()))
    profiles = table.pop("profiles")
    for section, keys in table.items():
        assert [key for key, value in keys.items() if value == defaults[section][key]] == [], section
    own = {**defaults["defaults"], **table.get("defaults", {}), "model": table["model"].get("name", "htdemucs")}
    for profile, keys in profiles.items():
        assert [key for key, value in keys.items() if value == own[key]] == [], profile
    lines = (CONFIG / f"{name}.toml").read_text().partition("[profiles.")[0].splitlines()
    assert [line for line in lines if "=" in line.partition("#")[0] and len(line.partition("#")[2]) < 15] == []
    for line in lines:
        assert len(line) <= 120, line


def test_ready_configurations_differ() -> None:
    """No two of them are the same, nor share a spool."""
    tables = [plain(name) for name in READY]
    assert all(one != other for one, other in combinations(tables, 2))
    assert len({table["paths"]["spool"] for table in tables}) == len(READY)
    assert {path.stem for path in CONFIG.glob("*.toml")} == {"demixd", *READY}


def test_every_key_has_a_line_of_comment() -> None:
    """config/demixd.toml says of every key what it does."""
    lines = (CONFIG / "demixd.toml").read_text().splitlines()
    assert [line for line in lines if "=" in line.partition("#")[0] and len(line.partition("#")[2]) < 15] == []


def test_what_companions_go_by_is_none_of_the_daemons() -> None:
    """A daemon need not read a file again in which only [web] or [hooks] has changed."""
    plain = config.Config()
    other = config.parse('[web]\nallow = "all"\n[hooks]\nlimit_s = 5\n', "demixd.toml")
    assert other != plain
    of = status.ConfigurationFacts.of
    assert of("", other.daemons) == of("", plain.daemons)
    assert of("", config.parse("[status]\nkeep_days = 5\n", "demixd.toml").daemons) != of("", plain.daemons)
