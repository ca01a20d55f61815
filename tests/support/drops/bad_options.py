"""Options that no song may have: what is in the file, the words of what is said, and whether the schema tells."""

import json
from typing import Any

from demixd.protocol import options

HASH = "0123456789abcdef" * 4


TOLD, UNTOLD = True, False
"""Whether a JSON Schema can tell that it is bad."""


BAD: list[tuple[str, bytes | dict[str, Any], tuple[str, ...], bool]] = [
    ("not JSON", b"format = mp3", ("not JSON", "line 1, column 1", "quotes that are missing"), UNTOLD),
    ("a comma too many", b'{"format": "mp3",\n}', ("not JSON", "line 2, column 1", "a comma too many"), UNTOLD),
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
    ("an empty key", {"": 1}, ('""', "no such key"), TOLD),
    ("a key of the configuration", {"device": "cpu"}, ("device", "no such key"), TOLD),
    ("schema 2", {"schema": 2}, ("schema = 2", "must be 1"), TOLD),
    ("schema is true", {"schema": True}, ("schema = true", "must be 1"), TOLD),
    ("profile is null", {"profile": None}, ("profile = null", "text"), TOLD),
    ("profile is empty", {"profile": ""}, ('profile = ""', "1 to 60"), TOLD),
    ("model is a list", {"model": ["htdemucs"]}, ('model = ["htdemucs"]', "one model"), TOLD),
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
    ("format by its codec", {"format": "AAC"}, ('format = "AAC"', 'did you mean "m4a"?'), TOLD),
    ("format by its container", {"format": "mp4"}, ('format = "mp4"', 'did you mean "m4a"?'), TOLD),
    ("format by another codec", {"format": "vorbis"}, ('format = "vorbis"', 'did you mean "ogg"?'), TOLD),
    ("format in capitals", {"format": "MP3"}, ('format = "MP3"', 'did you mean "mp3"?'), TOLD),
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
    ("shifts are huge", b'{"shifts": ' + b"9" * 5000 + b"}", ("shifts = Infinity", "0 to 20"), UNTOLD),
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
        (f"naming {template!r}", {"naming": template}, ("naming", words), UNTOLD if "100 bytes" in words else TOLD)
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
            ("{stem}{stem}{stem}.{ext}", "{stem} twice"),
            ("{song}/{song} - {stem}.{ext}", "{song} twice"),
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


def as_bytes(content: bytes | dict[str, Any]) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()
