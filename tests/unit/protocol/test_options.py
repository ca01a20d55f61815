"""The options of a song: what its option file may say, over its profile, over `[defaults]`."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from bad_options import BAD, BAD_IN_PLACE, HASH, as_bytes
from daemons import ROOT
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


def test_several_models_in_one_text() -> None:
    """Who writes models as stems are written is told that a song has one."""
    with pytest.raises(AudioProcessingError, match="there is no such model; a song has one model"):
        CONFIG.options_of("Song.flac", read(model="demo,htdemucs"), lambda _: False)


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


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (b'{"tag": "table 4", "stems": "vocals"}', "table 4"),
        (b'\xef\xbb\xbf{"tag": "table 4", "nothing": [{}]}', "table 4"),
        (b'{"tag": 4, "x": 1}', None),
        (b'{"tag": "' + b"x" * 1001 + b'"}', None),
        (b'{"tag": "\\ud800"}', None),
        (b'{"tag": "table 4",}', None),
        (b'["tag"]', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_tag_of_refused_options(data: bytes, tag: str | None) -> None:
    """An option file that is refused for something else still tells its tag."""
    assert options.tag_of(data) == tag
    with pytest.raises(AudioProcessingError):
        options.parse(data)
