"""The options of a song: what its option file may say, over its profile, over `[defaults]`."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from daemons import ROOT, Daemon, make_song, running
from demixd.config import Config, parse
from demixd.errors import AudioProcessingError, Code
from demixd.protocol import options, result_names
from demixd.protocol.options import Defaults

CONFIG = parse(
    """
    [defaults]
    format = "wav"
    bitrate = 192
    [profiles.karaoke]
    format = "flac"
    bit_depth = 24
    model = "htdemucs_ft"
    [profiles.drums]
    stems = ["drums", "no_drums"]
    """,
    "where.toml",
)
MODELS = {"htdemucs", "htdemucs_ft", "demo"}
HASH = "0123456789abcdef" * 4
TOLD, UNTOLD = True, False
"""Whether a JSON Schema can tell that it is bad."""

BAD: list[tuple[str, bytes | dict[str, Any], tuple[str, ...], bool]] = [
    ("not JSON", b"format = mp3", ("not JSON", "line 1 column 1"), UNTOLD),
    ("cut off", b'{"format": "mp3"', ("not JSON",), UNTOLD),
    ("two objects", b'{"format": "mp3"} {}', ("not JSON",), UNTOLD),
    ("NaN", b'{"overlap": NaN}', ("not JSON", "NaN"), UNTOLD),
    ("empty", b"", ("empty", "{}"), UNTOLD),
    ("blank", b" \n", ("empty",), UNTOLD),
    ("too large", b'{"tag": "' + b"x" * options.LONGEST + b'"}', ("65536",), UNTOLD),
    ("not UTF-8", b'{"tag": "\xff"}', ("UTF-8", "byte 9"), UNTOLD),
    ("UTF-16", '{"format": "mp3"}'.encode("utf-16"), ("UTF-8",), UNTOLD),
    ("half a surrogate pair", b'{"tag": "\\ud800"}', ("surrogate",), UNTOLD),
    ("nested deep", b'{"tag": ' + b"[" * 30000 + b"]" * 30000 + b"}", ("nested",), UNTOLD),
    ("nested less deep", b'{"tag": ' + b"[" * 400 + b"]" * 400 + b"}", ("tag", "text"), TOLD),
    ("a key twice", b'{"format": "mp3", "format": "wav"}', ("format", "twice"), UNTOLD),
    ("an array", b'["format", "mp3"]', ("object",), TOLD),
    ("a number", b"5", ("object", "5"), TOLD),
    ("null", b"null", ("object", "null"), TOLD),
    ("unknown key", {"fromat": "mp3"}, ("fromat", "did you mean format?"), TOLD),
    ("key in wrong case", {"Bit_Depth": 24}, ("Bit_Depth", "did you mean bit_depth?"), TOLD),
    ("key like no other", {"\x1b[31m": 1}, ("\\u001b[31m", "no such key", "wait_for_sha256"), TOLD),
    ("a key of the configuration", {"device": "cpu"}, ("device", "no such key"), TOLD),
    ("schema 2", {"schema": 2}, ("schema = 2", "must be 1"), TOLD),
    ("schema is true", {"schema": True}, ("schema = true", "must be 1"), TOLD),
    ("profile is null", {"profile": None}, ("profile = null", "text"), TOLD),
    ("profile is empty", {"profile": ""}, ('profile = ""', "1 to 60"), TOLD),
    ("model is a list", {"model": ["htdemucs"]}, ("model = [...]", "text"), TOLD),
    ("stems is a text", {"stems": "vocals"}, ('stems = "vocals"', "list"), TOLD),
    ("stems are none", {"stems": []}, ("stems", "1 to 64 entries"), TOLD),
    ("stems are many", {"stems": [f"stem{n}" for n in range(65)]}, ("stems", "1 to 64 entries"), TOLD),
    ("a stem is a number", {"stems": ["vocals", 4]}, ("stems", "each a text"), TOLD),
    ("a stem twice", {"stems": ["vocals", "drums", "vocals"]}, ("stems", "'vocals' twice"), TOLD),
    (
        "format unknown",
        {"format": "aiff"},
        ('format = "aiff"', '"alac", "flac", "m4a", "mp3", "ogg", "opus", "source" or "wav"'),
        TOLD,
    ),
    ("bitrate is no quality of LAME's", {"bitrate": "V10"}, ('bitrate = "V10"', '"V9"'), TOLD),
    ("quality is high", {"quality": 10}, ("quality = 10", "from 0 to 9"), TOLD),
    ("the guide's vocals are loud", {"guide_db": 3}, ("guide_db = 3", "from -60 to 0"), TOLD),
    ("tags is a text", {"tags": "no"}, ('tags = "no"', "true or false"), TOLD),
    (
        "two stems of one name",
        {"naming": "yarg", "stems": ["other", "instrumental"]},
        ("naming", "'other'", "'instrumental'", "'song'"),
        UNTOLD,
    ),
    (
        "a preset that cannot be WAV",
        {"naming": "yarg", "format": "wav"},
        ("naming", '"source" or "ogg" or "opus"'),
        UNTOLD,
    ),
    ("NI Stems as FLAC", {"naming": "ni-stems", "format": "flac"}, ("naming", '"m4a" or "alac"'), UNTOLD),
    ("format in capitals", {"format": "MP3"}, ('format = "MP3"', '"mp3"'), TOLD),
    ("bitrate is a text", {"bitrate": "320"}, ('bitrate = "320"', "whole number from 8 to 512"), TOLD),
    ("bitrate is high", {"bitrate": 1e9}, ("bitrate = 1000000000", "512"), TOLD),
    ("bit_depth is a text", {"bit_depth": "16"}, ('bit_depth = "16"', '16, 24, 32, "float"'), TOLD),
    ("rate is low", {"rate": 4000}, ("rate = 4000", 'from 8000 to 192000 or "source"'), TOLD),
    ("rate is a fraction", {"rate": 44100.5}, ("rate = 44100.5", "whole"), TOLD),
    ("naming is null", {"naming": None}, ("naming = null", "text"), TOLD),
    ("instrumental unknown", {"instrumental": "sum"}, ('instrumental = "sum"', '"add", "auto" or "minus"'), TOLD),
    ("clip unknown", {"clip": "hard"}, ('clip = "hard"', '"clamp", "joint" or "none"'), TOLD),
    ("clip without float", {"clip": "none", "format": "mp3"}, ("clip", "float", 'format = "wav"'), UNTOLD),
    ("shifts are many", {"shifts": 1000}, ("shifts = 1000", "0 to 20"), TOLD),
    ("shifts are huge", b'{"shifts": ' + b"9" * 5000 + b"}", ("4300 digits",), UNTOLD),
    ("overlap is whole", {"overlap": 1}, ("overlap = 1", "0 to 0.9"), TOLD),
    ("priority is true", {"priority": True}, ("priority = true", "whole number"), TOLD),
    ("priority is infinite", b'{"priority": 1e400}', ("priority = Infinity", "1000"), UNTOLD),
    ("force is a text", {"force": "yes"}, ('force = "yes"', "true or false"), TOLD),
    ("hash is short", {"wait_for_sha256": "abc"}, ('wait_for_sha256 = "abc"', "64 hex digits"), TOLD),
    ("hash is not hex", {"wait_for_sha256": "g" * 64}, ("wait_for_sha256", "64 hex digits"), TOLD),
    ("hash and a newline", {"wait_for_sha256": HASH + "\n"}, ("wait_for_sha256", "64 hex digits"), TOLD),
    ("tag is an object", {"tag": {"table": 4}}, ("tag = {...}", "text"), TOLD),
    ("tag is long", {"tag": "x" * 1001}, ("tag", "1000 characters"), TOLD),
    *(
        (f"naming {template!r}", {"naming": template}, ("naming", words), UNTOLD)
        for template, words in [
            ("../{stem}.{ext}", "'..'"),
            ("/{stem}.{ext}", "''"),
            ("a//{stem}.{ext}", "''"),
            ("{song}/../../{stem}.{ext}", "'..'"),
            (".demixd/{stem}.{ext}", "'.demixd'"),
            (" /{stem}.{ext}", "' '"),
            ("a /{stem}.{ext}", "'a '"),
            ("a./{stem}.{ext}", "'a.'"),
            ("C:\\{stem}.{ext}", "every filesystem"),
            ("{stem}\0.{ext}", "every filesystem"),
            ("{stem}\n.{ext}", "every filesystem"),
            ("{stem.__class__}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{stem[0]}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{0}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{stem!r}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{stem:>9999999}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{stem:{song}}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{artist} {stem}.{ext}", "{stem}, {ext}, {song}, {model}"),
            ("{stem.{ext}", "braces"),
            ("{stem}}.{ext}", "braces"),
            ("{song}.{ext}", "must have {stem}"),
            ("{{stem}}.{ext}", "must have {stem}"),
            ("{stem}{stem}{stem}.{ext}", "nothing twice"),
            ("{stem}", "end in .{ext}"),
            ("{stem}.flac", "end in .{ext}"),
            ("ö" * 45 + "{stem}.{ext}", "100 bytes"),
            ("karaoke", "stem, song-stem, song-stem-model"),
        ]
    ),
    ("naming is long", {"naming": "x" * 90 + "{stem}.{ext}"}, ("naming", "100 characters"), TOLD),
]

BAD_IN_PLACE = [
    *(
        ({"profile": name}, ("profile", "no such profile", "karaoke, drums"))
        for name in ("jazz", "Karaoke", "../karaoke", "/etc", "karaoke\0", "{stem}", ".", "~")
    ),
    *(
        ({"model": name}, ("model", "no such model", "demixd models list"))
        for name in ("htdemuc", "HTDEMUCS", "../htdemucs", "/models/htdemucs", "htdemucs\0", "https://x/htdemucs")
    ),
    ({"profile": "karaoke", "clip": "none"}, ("clip", "bit_depth = 24")),
]
"""Whether these are bad depends on the configuration and the models that there are."""

GOOD: list[bytes | dict[str, Any]] = [
    b"{}",
    b"\xef\xbb\xbf{}",
    b' \r\n{\r\n"priority": 5.0}\r\n',
    {"schema": 1, "profile": "karaoke", "model": "htdemucs", "stems": ["vocals"], "format": "mp3", "bitrate": 8},
    {"bit_depth": 24, "rate": 8000, "naming": "a/{stem}.{ext}", "instrumental": "minus", "clip": "clamp", "shifts": 20},
    {"overlap": 0, "priority": -1000, "force": True, "wait_for_sha256": HASH.upper(), "tag": "täg\n"},
    {"bit_depth": "float", "rate": "source", "clip": "none", "wait_for_sha256": None, "tag": None},
    {"stems": [f"stem{n}" for n in range(64)], "overlap": 0.9, "naming": "song-stem"},
]


def as_bytes(content: bytes | dict[str, Any]) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def known(name: str) -> bool:
    return name in MODELS


def read(**asked: Any) -> options.JobOptions:
    return options.parse(json.dumps(asked).encode())


def refused(data: bytes, words: tuple[str, ...], name: str = "Song.flac") -> None:
    """The options in `data` are refused, in one line that has all `words`."""
    with pytest.raises(AudioProcessingError) as error:
        CONFIG.options_of(name, options.parse(data), known)
    message = error.value.message
    assert error.value.code is Code.BAD_OPTIONS
    assert [word for word in words if word not in message] == [], message
    assert message.isprintable()
    assert len(message) < 600
    assert not any(jargon in message for jargon in ("Expected `", "regex", "enum", "$.", "`str`", "array"))


@pytest.mark.parametrize(("content", "words"), [row[1:3] for row in BAD], ids=[row[0].encode() for row in BAD])
def test_bad_options_are_refused(content: bytes | dict[str, Any], words: tuple[str, ...]) -> None:
    """A mistake in an option file is `bad-options`, in a sentence that names the key and what it must be."""
    refused(as_bytes(content), words)


@pytest.mark.parametrize(("asked", "words"), BAD_IN_PLACE, ids=[str(row[0]).encode() for row in BAD_IN_PLACE])
def test_options_are_refused_that_nothing_here_fits(asked: dict[str, Any], words: tuple[str, ...]) -> None:
    """A profile or a model that is not there, however it is spelled, is `bad-options` and never a path."""
    refused(as_bytes(asked), words)


def test_every_key_has_its_type() -> None:
    """No key of an option file takes a value of another type."""
    wrong = {"stems": 1, "bit_depth": 1.5, "rate": [], "overlap": "0.25", "force": 1, "priority": "1", "shifts": None}
    for key in (*options._OWN, *options._DEFAULTS):
        refused(as_bytes({key: wrong.get(key, 3.5)}), (f"{key} = ", "must be"))


@pytest.mark.parametrize("content", GOOD, ids=repr)
def test_good_options_are_taken(content: bytes | dict[str, Any]) -> None:
    """Every key is taken at its limits; a byte order mark, blanks and 5.0 for 5 do no harm."""
    job = options.parse(as_bytes(content))
    made = json.loads(msgspec.json.encode(CONFIG.options_of("Song.flac", job, known)))
    asked = json.loads(as_bytes(content).decode("utf-8-sig"))
    if "naming" in asked:
        asked["naming"] = result_names.template_of(asked["naming"])
    assert {key: made[key] for key in asked if key in made} == {key: asked[key] for key in asked if key in made}
    own = {**msgspec.to_builtins(job.own), "wait_for_sha256": (job.own.wait_for_sha256 or "").upper() or None}
    assert {key: own[key] for key in asked if key in own} == {key: asked[key] for key in asked if key in own}


def test_the_shipped_schema_is_the_types() -> None:
    """config/job.schema.json is what the code's types say."""
    assert json.loads((ROOT / "config" / "job.schema.json").read_text()) == options.schema()


def test_the_schema_judges_alike() -> None:
    """A JSON Schema validator refuses what the daemon refuses, as far as a schema can tell, and takes what it takes."""
    validator = jsonschema.Draft202012Validator(options.schema())
    for what, content, _, tells in BAD:
        if tells:
            assert not validator.is_valid(json.loads(as_bytes(content))), what
    for good in GOOD:
        validator.validate(json.loads(as_bytes(good).decode("utf-8-sig")))


def test_a_job_goes_over_a_profile_over_the_defaults() -> None:
    """Effective options are `[defaults]`, changed by the profile's keys, changed by the job's."""
    plain = CONFIG.options_of("Song.flac", options.NONE, known)
    assert (plain.format, plain.bitrate, plain.bit_depth, plain.model, plain.profile) == (
        ("wav", 192, "source", "htdemucs", None)
    )
    assert plain == CONFIG.options
    sung = CONFIG.options_of("Song.flac", read(profile="karaoke"), known)
    assert (sung.format, sung.bitrate, sung.bit_depth, sung.model, sung.profile) == (
        ("flac", 192, 24, "htdemucs_ft", "karaoke")
    )
    own = CONFIG.options_of("Song.flac", read(profile="karaoke", bit_depth=16, model="demo"), known)
    assert (own.format, own.bit_depth, own.model) == ("flac", 16, "demo")


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("Song.flac", None),
        ("karaoke.flac", None),
        ("karaoke/Song.flac", "karaoke"),
        ("a/karaoke/b/Song.flac", "karaoke"),
        ("karaoke/drums/Song.flac", "drums"),
        ("drums/karaoke/Song.flac", "karaoke"),
        ("Karaoke/Song.flac", None),
        ("karaoke2/Song.flac", None),
        ("Gro\u0308\u00dfe/Song.flac", "Größe"),
        ("\udcff/karaoke/\udcff.flac", "karaoke"),
    ],
)
def test_the_deepest_profile_folder_wins(name: str, profile: str | None) -> None:
    """A song below a folder that is called as a profile is uses it, the deepest one of several."""
    assert options.profile_of(name, {"karaoke": {}, "drums": {}, "Größe": {}}) == profile


def test_the_profile_in_the_file_beats_the_folder() -> None:
    """A profile named in the option file is used in place of the folder's."""
    made = CONFIG.options_of("karaoke/Song.flac", read(profile="drums"), known)
    assert (made.profile, made.stems, made.format) == ("drums", ("drums", "no_drums"), "wav")


@pytest.mark.parametrize("naming", [*result_names.PRESETS, "{song}/{stem}.{ext}"])
def test_a_job_s_options_read_back(naming: str) -> None:
    """The ledger, the worker and a rebuilt job get the options that were frozen, whatever a preset made of them."""
    frozen = Defaults(naming=naming, format="source", clip="clamp").of("htdemucs", "karaoke")
    text = msgspec.json.encode(frozen)
    assert msgspec.json.decode(text, type=options.Options) == frozen
    turned = dict(reversed(msgspec.json.decode(text).items()))
    assert msgspec.convert(turned, options.Options) == frozen
    for missing in ("model", "profile"):
        with pytest.raises(msgspec.ValidationError, match=missing):
            msgspec.convert({key: value for key, value in turned.items() if key != missing}, options.Options)


def test_a_missing_model_of_the_configuration_is_not_the_song_s_mistake() -> None:
    """Where the configured model is not there, songs wait for it: only one that the song asks for is `bad-options`."""
    assert CONFIG.options_of("karaoke/Song.flac", options.NONE, lambda _: False).model == "htdemucs_ft"
    with pytest.raises(AudioProcessingError):
        CONFIG.options_of("Song.flac", read(model="htdemucs"), lambda _: False)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{stem}.{ext}", "vocals.flac"),
        ("stem", "vocals.flac"),
        ("song-stem", "A song - vocals.flac"),
        ("song-stem-model", "A song - vocals (htdemucs).flac"),
        ("{model}/{song} {stem}.{ext}", "htdemucs/A song vocals.flac"),
        ("{stem}/audio.{ext}", "vocals/audio.flac"),
        ("{{x}} {stem}.{ext}", "{x} vocals.flac"),
        ("nul/{stem}.{ext}", "_nul/vocals.flac"),
        ("e\u0301/{stem}.{ext}", "é/vocals.flac"),
    ],
)
def test_files_are_named_by_the_template(template: str, path: str) -> None:
    """`naming` is a template or the name of one, with sub-folders if it has slashes."""
    result_names.check(template)
    template = result_names.template_of(template)
    assert result_names.file_name(template, stem="vocals", ext="flac", model="htdemucs", leaf="A song.mp3") == path


NASTY = (
    "../../etc/passwd",
    "/",
    "..",
    "a/b",
    "\0",
    "con",
    "CON .x",
    "aux.txt",
    ". .",
    "ä" * 200,
    "\x85\x9f",
    "x" * 300,
)


@pytest.mark.parametrize("text", NASTY)
def test_no_part_of_a_name_leaves_the_folder(text: str) -> None:
    """Whatever a stem, a model or a song is called, a file stays where the template has it, with its extension."""
    for template in ("d/{model} {song} {stem}.{ext}", "d/{stem}.{ext}", *result_names.PRESETS):
        path = result_names.file_name(template, stem=text, ext="flac", model=text, leaf=f"{text}.mp3")
        assert path.count("/") == result_names.template_of(template).count("/")
        assert path.endswith(".mp4" if template == result_names.ONE_FILE else ".flac")
        for part in path.split("/"):
            assert part == result_names.holdable(part, 255)
            assert part.isprintable()
            assert len(part.encode()) <= 255


@pytest.mark.parametrize(
    ("leaf", "folder"),
    [
        ("Song.flac", "Song"),
        ("a.b.flac", "a.b"),
        ("e\u0301.flac", "é"),
        ("what?.flac", "what_"),
        ('a<>:"\\|*b.flac', "a_______b"),
        ("a\nb\x7f\x85.flac", "a_b__"),
        ("dots... .flac", "dots"),
        ("... .flac", "song"),
        (".demixd.flac", "demixd"),
        ("Con.flac", "_Con"),
        ("lpt1.live.flac", "_lpt1.live"),
        ("console.flac", "console"),
        ("ä" * 100 + ".flac", "ä" * 60),
        ("con." + "x" * 200 + ".flac", "_con." + "x" * 115),
        ("x" * 119 + " y.flac", "x" * 119),
        ("\ufffd.flac", "\ufffd"),
    ],
)
def test_a_folder_is_named_by_its_song(leaf: str, folder: str) -> None:
    """A result's folder has the song's name without extension, as every filesystem can hold it, in at most 120 bytes."""
    assert result_names.folder_name(leaf) == folder
    assert result_names.holdable(folder) == folder


def test_a_song_without_options_has_the_defaults() -> None:
    """The configuration's own options are those of a song that brings none."""
    assert Config().options_of("Song.flac", options.NONE, known).stems == Defaults().stems


# The same through the daemon.

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
