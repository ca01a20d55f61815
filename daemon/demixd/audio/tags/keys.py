"""The keys of texts: for each thing the name of its Vorbis comment, in lower case, and each format's name of it. Pure.

The same table serves for reading and writing a format. A key that is not in it is written as a text with a free name:
ID3's TXXX, MP4's `----:com.apple.iTunes:`, and any name in Vorbis comments, APEv2 and ASF.
"""

import re
from collections.abc import Iterator

ID3 = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "albumartist": "TPE2",
    "genre": "TCON",
    "composer": "TCOM",
    "lyricist": "TEXT",
    "bpm": "TBPM",
    "initialkey": "TKEY",
    "copyright": "TCOP",
    "language": "TLAN",
    "label": "TPUB",
    "conductor": "TPE3",
    "remixer": "TPE4",
    "grouping": "TIT1",
    "subtitle": "TIT3",
    "media": "TMED",
    "mood": "TMOO",
    "compilation": "TCMP",
    "discsubtitle": "TSST",
    "originaldate": "TDOR",
    "originalartist": "TOPE",
    "originalalbum": "TOAL",
    "titlesort": "TSOT",
    "artistsort": "TSOP",
    "albumsort": "TSOA",
    "albumartistsort": "TSO2",
    "composersort": "TSOC",
}

MP4 = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "albumartist": "aART",
    "date": "\xa9day",
    "genre": "\xa9gen",
    "composer": "\xa9wrt",
    "comment": "\xa9cmt",
    "lyrics": "\xa9lyr",
    "copyright": "cprt",
    "grouping": "\xa9grp",
    "work": "\xa9wrk",
    "movementname": "\xa9mvn",
    "titlesort": "sonm",
    "artistsort": "soar",
    "albumsort": "soal",
    "albumartistsort": "soaa",
    "composersort": "soco",
}

INFO = {
    "title": "INAM",
    "artist": "IART",
    "album": "IPRD",
    "date": "ICRD",
    "genre": "IGNR",
    "comment": "ICMT",
    "copyright": "ICOP",
    "tracknumber": "ITRK",
}
"""The texts of a WAV's INFO that Windows and DAWs show. FFmpeg writes the track as IPRT."""

ASF = {
    "title": "Title",
    "artist": "Author",
    "copyright": "Copyright",
    "comment": "Description",
    "album": "WM/AlbumTitle",
    "albumartist": "WM/AlbumArtist",
    "date": "WM/Year",
    "tracknumber": "WM/TrackNumber",
    "discnumber": "WM/PartOfSet",
    "genre": "WM/Genre",
    "composer": "WM/Composer",
    "lyricist": "WM/Writer",
    "lyrics": "WM/Lyrics",
    "bpm": "WM/BeatsPerMinute",
    "initialkey": "WM/InitialKey",
    "language": "WM/Language",
    "label": "WM/Publisher",
    "conductor": "WM/Conductor",
    "remixer": "WM/ModifiedBy",
    "grouping": "WM/ContentGroupDescription",
    "subtitle": "WM/SubTitle",
    "mood": "WM/Mood",
    "compilation": "WM/IsCompilation",
    "originaldate": "WM/OriginalReleaseYear",
    "titlesort": "WM/TitleSortOrder",
    "artistsort": "WM/ArtistSortOrder",
    "albumsort": "WM/AlbumSortOrder",
}

FREE = {
    "musicbrainz_artistid": "MusicBrainz Artist Id",
    "musicbrainz_albumartistid": "MusicBrainz Album Artist Id",
    "musicbrainz_workid": "MusicBrainz Work Id",
    "releasetype": "MusicBrainz Album Type",
    "releasestatus": "MusicBrainz Album Status",
    "releasecountry": "MusicBrainz Album Release Country",
}
"""Keys -> the free names under which MP3 and MP4 have them: music servers look for these."""

ALIASES = {name.lower(): key for key, name in FREE.items()} | {
    "album artist": "albumartist",
    "album_artist": "albumartist",
    "description": "comment",
    "disc": "discnumber",
    "iprt": "tracknumber",
    "key": "initialkey",
    "publisher": "label",
    "tempo": "bpm",
    "totaldiscs": "disctotal",
    "totaltracks": "tracktotal",
    "track": "tracknumber",
    "unsynced lyrics": "lyrics",
    "unsyncedlyrics": "lyrics",
    "synced lyrics": "syncedlyrics",
    "year": "date",
}

TOTALS = {"tracknumber": "tracktotal", "discnumber": "disctotal"}

LEFT_OUT = re.compile(
    r"replaygain_|r128_|mp3gain_|accuraterip"  # loudness and rip of the song, which are not the stem's
    r"|encod|itun|lame_|lame$|tool$|length$|tlen$|wmfsdk|deviceconformance"  # its encoder, and its gaps
    r"|acoustid|fingerprint|musicip"  # fingerprints of its sound
    r"|isrc|barcode|musicbrainz[ _](?:original|(?:track|recording|release[ _]?track|album|release[ _]?group|disc|trm)[ _]?id)"
    # numbers of its recording and of its release: a stem is another recording, and on no release
    r"|cuesheet|cue_|chapter|serato|traktor"  # marks in it
    r"|metadata_block_picture|coverart|cover art|waveformatextensible"  # pictures and channel masks, read elsewhere
    r"|_statistics|duration|bps$|number_of_|creation_time|major_brand|minor_version|compatible_brands|handler_name"
    r"|vendor_id"  # FFmpeg's and Matroska's own
)

LONGEST = 100
"""Characters of a key."""


def canonical(name: str) -> str:
    """Our key for a text that a format calls `name`; empty where it is left out."""
    key = name.strip().lower().replace("musicbrainz/", "musicbrainz ")
    key = ALIASES.get(key, key)
    if key.startswith("lyrics-"):
        key = "lyrics"  # FFmpeg adds the language
    valid = len(key) <= LONGEST and all(" " <= letter <= "}" and letter != "=" for letter in key)
    return key if valid and not LEFT_OUT.match(key) else ""


def split_total(key: str, text: str) -> Iterator[tuple[str, str]]:
    """The key and the text, or two of each where `text` is a number and its total, `3/12`; parts that are empty or 0 left out."""
    number, slash, total = text.partition("/")
    if key in TOTALS and slash:
        yield from ((each, part.strip()) for each, part in ((key, number), (TOTALS[key], total)) if part.strip(" 0"))
    elif key and text:
        yield key, text
