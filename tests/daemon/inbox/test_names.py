"""Every name that an entry of the inbox can have: one inbox with all of them at once, and what became of each.

A row of the tables is one entry: what it is, its path below the inbox in bytes, and what the contract makes of it.
"""

import base64
import contextlib
import io
import json
import os
import random
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import soundfile

from audio import tones
from daemons import ROOT, Daemon, running
from demixd import config
from demixd.protocol import result_names
from demixd.protocol.inbox_names import READABLE, UNREADABLE, Kind, kind_of_file, kind_of_folder
from demixd.spool.tree import CANCEL, LONGEST, OPTIONS, SIDECAR, Spool, companion, short
from watching import again_and_again

SONGS: list[tuple[str, bytes]] = [
    ("plain", b"plain.wav"),
    ("case twin", b"Twin.wav"),
    ("case twin with another extension", b"twin.WAV"),
    ("case twin in FLAC", b"TWIN.flac"),
    ("named as a twin will be numbered", b"twin (2).wav"),
    ("twins by case folding", "Straße.wav".encode()),
    ("twins by case folding, in capitals", b"STRASSE.wav"),
    ("NFC", unicodedata.normalize("NFC", "Café.wav").encode()),
    ("NFD", unicodedata.normalize("NFD", "Café.wav").encode()),
    ("255 bytes of ASCII", b"x" * 251 + b".wav"),
    ("255 bytes of two each", "é".encode() * 125 + b"a.wav"),
    ("255 bytes of four each", "🎉".encode() * 62 + b"abc.wav"),
    ("121 bytes", b"y" * 117 + b".wav"),
    ("120 bytes", b"z" * 116 + b".wav"),
    ("long twin", b"w" * 200 + b"1.wav"),
    ("other long twin", b"w" * 200 + b"2.wav"),
    ("a character across byte 80", b"a" * 79 + "é".encode() * 30 + b".wav"),
    ("a stray byte", b"caf\xe9.wav"),
    ("only stray bytes", b"\xff\xfe.flac"),
    ("long and stray", b"\xe9" * 200 + b".wav"),
    ("255 bytes that begin no character", b"\x80" * 251 + b".wav"),
    ("a surrogate in UTF-8", b"\xed\xb3\xa9.wav"),
    ("newline", b"new\nline.wav"),
    ("carriage return", b"re\rturn.wav"),
    ("tab", b"ta\tb.wav"),
    ("escape codes", b"\x1b[31mred\x1b[0m.wav"),
    ("bell and delete", b"\x07\x7f.wav"),
    ("C1 controls", "next\x85line\x9b.wav".encode()),
    ("line separator", "line\u2028separator.wav".encode()),
    ("byte order mark", "\ufeffmark.wav".encode()),
    ("right to left", "\u202egnp.\u202c\u05e9\u05e9.wav".encode()),
    ("emoji", "party 🎉👩‍👩‍👧.ogg".encode()),
    ("DOS console", b"con.wav"),
    ("DOS device", b"aux.flac"),
    ("DOS printer", b"LPT1.mp3"),
    ("DOS device with an extension", b"nul.tar.wav"),
    ("DOS port with a superscript", "COM¹.wav".encode()),
    ("DOS device and a space", b"prn .wav"),
    ("DOS device once it is cut", b"nul" + b" " * 130 + b"x.wav"),
    ("trailing dot", b"dot..wav"),
    ("trailing space", b"space .wav"),
    ("trailing dots and spaces", b"many . . .wav"),
    ("leading space", b" leading.wav"),
    ("only spaces", b"   .wav"),
    ("only a wide space", "\u3000.wav".encode()),
    ("only what Windows forbids", b"???.wav"),
    ("colon and question mark", b"a:b?.wav"),
    ("backslash", b"back\\slash.wav"),
    ("an alternate stream", b"song.wav:Zone.Identifier.wav"),
    ("quotes and pipe", b'"quoted" | <piped>.wav'),
    ("wildcard", b"*.wav"),
    ("leading dash", b"-leading.wav"),
    ("an option", b"--help.flac"),
    ("quoted dots", b"%2e%2e.wav"),
    ("a way out, backwards", b"..\\..\\out.wav"[2:]),
    ("template", b"{stem}.wav"),
    ("broken template", b"{stem!r:>{ext}.wav"),
    ("shell", b"$(touch gone) `reboot`;'.wav"),
    ("format string", b"%s%n%(name)s.wav"),
    ("SQL", b"'); DROP TABLE jobs;--.wav"),
    ("brackets", b"[abc].wav"),
    ("tilde", b"~user.wav"),
    ("number sign", b"#1.wav"),
    ("extension in capitals", b"X.MP3"),
    ("wave", b"long extension.WaVe"),
    ("oga", b"o.oga"),
    ("many dots", b"v1.0....final.wav"),
    ("two dots in front", b"..two dots.wav"),
    ("three dots in front", b"...three dots.wav"),
    ("many dots in front, over 120 bytes", b"....." + b"m" * 150 + b".wav"),
    ("below a folder with dots in front", b"...and a folder/in.wav"),
    ("seems a part", b"a.part.wav"),
    ("seems a cancel", b"b.cancel.wav"),
    ("seems options", b"c.job.json.wav"),
    ("named as ours", b"_daemon.wav"),
    ("named as our listing", b"_inbox.wav"),
    ("named as our manifest", b"walked/stems.json.wav"),
    ("beside what is named as our manifest", b"walked/second.wav"),
    ("below a folder named as a song", b"x.wav/inner.wav"),
    ("below a stray folder", b"caf\xe9/in.wav"),
    ("below a folder of 90 stray bytes", b"\xe9" * 90 + b"/in.wav"),
    ("below another folder of as many", b"\xe9" * 89 + b"\xe8/in.wav"),
    ("below a folder of 255 stray bytes", b"\x80" * 255 + b"/in.wav"),
    ("below a folder of 255 bytes", b"f" * 255 + b"/in.wav"),
    ("below a folder that Windows cannot hold", b"a:b/in.wav"),
    ("below a folder that ends in a dot", b"dot./in.wav"),
    ("named as a folder", b"both.wav"),
    ("below the folder named as it", b"both/inner.wav"),
    ("twin below a folder", b"both/INNER.wav"),
]


def file(path: Path) -> None:
    path.write_bytes(b"not ours to touch")


def folder(path: Path) -> None:
    """With a song in it, which is not to be found."""
    path.mkdir()
    (path / "hidden.wav").write_bytes(wav("hidden.wav", 1000))


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def node(kind: int) -> Callable[[Path], None]:
    """FIFO, socket or device; a device needs root, and is left out without it."""

    def make(path: Path) -> None:
        try:
            os.mknod(path, kind | 0o600, os.makedev(1, 5))  # of devices /dev/zero, which never ends
        except PermissionError:
            if not stat.S_ISCHR(kind):
                raise

    return make


IGNORED_FILES = [
    *(b".hidden.wav", b".wav", b"..wav", b"...wav", b".Song.flac.job.json"),
    *(b"1.wav.part", b"2.wav.PART", b"3.wav.partial", b"4.wav.crdownload", b"5.wav.CrDownload", b"6.wav.download"),
    *(b"7.wav.filepart", b"8.tmp", b"9.wav.TMP", b"10.wav.aria2", b"11.wav.!qB", b"12.wav.!QB", b"13.wav.ytdl"),
    *(b"~$14.wav", b"15.wav~", b".syncthing.16.wav.tmp", b"~syncthing~17.wav.tmp", b"~SyncThing~18.wav"),
    *(b".19.wav.AbCdEf", b".nfs000000000000001400000001", b".fuse_hidden0000001500000001", b".smbdelete0001.wav"),
    *(b"._20.wav", b"Thumbs.db", b"THUMBS.DB", b"desktop.ini", b"Desktop.ini", b"walked/deep/21.wav.part"),
    *(b"other\nline.wav.part", b"stray\xe9.wav.part", b"...dots.wav.part", b"....dots.wav.AbCdEf", b"..dots.txt"),
]
IGNORED_FOLDERS = [
    *(b".~tmp~", b".rsync-partial", b"@eaDir", b"@EADIR", b"#recycle", b"#Recycle", b"#snapshot", b"#SNAPSHOT"),
    *(b".stfolder", b".stversions", b".Trash-1000", b"__MACOSX", b"__macosx", b"lost+found", b"LOST+FOUND"),
    *(b"@Recycle", b"@Recently-Snapshot", b"$RECYCLE.BIN", b"$Recycle.Bin", b".recycle", b"RECYCLER", b"~snapshot"),
    *(b"System Volume Information", b"Network Trash Folder", b"Temporary Items", b"..."),
    *(b".demixd", b"album.part", b"ALBUM.CRDOWNLOAD", b"walked/@eaDir", b"walked/deep/#recycle"),
]

OTHERS: list[tuple[bytes, str, Callable[[Path], None]]] = [
    *((name, "ignored-name", file) for name in IGNORED_FILES),
    *((name, "ignored-name", folder) for name in IGNORED_FOLDERS),
    (b"album.json", "reserved-name", folder),
    (b"album.cancel", "reserved-name", folder),
    (b"walked/.cancel", "misplaced", file),
    (b"walked/deep/.pause", "misplaced", file),
    (b"Song.wav.json.cancel", "reserved-name", folder),
    (b"walked/song.flac.json", "reserved-name", folder),
    (b"link to a song.wav", "not-a-regular-file", link("../../outside.wav")),
    (b"link to a folder", "not-a-regular-file", link("../../outside")),
    (b"link to nothing.wav", "not-a-regular-file", link("nowhere.wav")),
    (b"link to the inbox", "not-a-regular-file", link(".")),
    (b"link to itself.flac", "not-a-regular-file", link("link to itself.flac")),
    (b"fifo.wav", "not-a-regular-file", node(stat.S_IFIFO)),
    (b"socket.flac", "not-a-regular-file", node(stat.S_IFSOCK)),
    (b"device.wav", "not-a-regular-file", node(stat.S_IFCHR)),
    (b"noextension", "not-audio", file),
    (b"wav", "not-audio", file),
    (b"   ", "not-audio", file),
    (b"song.wav.", "not-audio", file),
    (b"song.wav ", "not-audio", file),
    (b"archive.tar.gz", "not-audio", file),
    (b"cover.JPG", "not-audio", file),
    (b"Song.wav.json", "not-audio", file),
    (b"walked/deep/notes.txt", "not-audio", file),
    (b"tab\tand\x1bcode.txt", "not-audio", file),
    (b"caf\xe9.txt", "not-audio", file),
    (b"t" * 255, "not-audio", file),
    (b"tune.mid", "unsupported-format", file),
    (b"song.m4p", "unsupported-format", file),
    (b"SONG.XM", "unsupported-format", file),
    (b"walked/deep/\xff.kar", "unsupported-format", file),
    (b"lonely.flac.job.json", "options-without-song", file),
    (b"walked/lonely.flac.job.json", "options-without-song", file),
]

CANCELS = [b"...nobody.flac.cancel", b"nobody.flac.cancel", b"nob\xf6dy.wav.cancel", b"walked/nobody.wav.cancel"]
"""For names that nobody knows: listed as `no-such-job`, and removed."""

KNOWN = {"spool", "state", "demixd.toml", "log", "orders", "hold", "held", "outside.wav", "outside"}

_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")}


def is_holdable(name: str) -> bool:
    """Whether Windows can hold a file or folder of this name, and a Mac gives it back as it was."""
    device = name.split(".")[0].rstrip().casefold() in _DEVICES
    fits = bool(name) and len(name.encode()) <= 255 and name == unicodedata.normalize("NFC", name)
    return fits and not device and not _FORBIDDEN.search(name) and name.rstrip(". ") == name


def wav(name: str, frames: int) -> bytes:
    """A song of that many frames in the format of its extension."""
    form = {"flac": "FLAC", "mp3": "MP3", "ogg": "OGG", "oga": "OGG"}.get(name.rpartition(".")[2].lower(), "WAV")
    data = io.BytesIO()
    soundfile.write(data, tones(frames, seed=frames), 44100, format=form)
    return data.getvalue()


def looks(path: Path) -> tuple[int, ...]:
    """What would show that an entry had been touched."""
    status = path.lstat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


class Outcome:
    """The inbox with everything in it, and what the daemon said of it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.spool = Spool(config.load(daemon.config))
        self.frames = {name: 4000 + number for number, (_, name) in enumerate(SONGS)}
        self.wholes = {name: wav(os.fsdecode(name), frames) for name, frames in self.frames.items()}
        self.before: dict[bytes, tuple[int, ...]] = {}
        self.told: set[tuple[bytes, str]] = set()
        self.unexplained: set[bytes] = set()

    def fill(self) -> None:
        (self.daemon.folder / "outside.wav").write_bytes(wav("outside.wav", 1000))
        (self.daemon.folder / "outside").mkdir()
        (self.daemon.folder / "outside" / "song.wav").write_bytes(wav("song.wav", 1000))
        (self.daemon.inbox / "walked" / "deep").mkdir(parents=True)
        for name, whole in self.wholes.items():
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).write_bytes(whole)
        for name, _, make in OTHERS:
            make(self.path(name))
        for name in CANCELS:
            file(self.path(name))
        self.before = {name: looks(self.path(name)) for name, _, _ in OTHERS if self.is_there(name)}

    def path(self, name: bytes) -> Path:
        return self.daemon.inbox / os.fsdecode(name)

    def is_there(self, name: bytes) -> bool:
        return os.path.lexists(self.path(name))

    def sidecar(self, name: bytes) -> dict[str, Any]:
        """The song's sidecar, where it is a job; else {}."""
        try:
            found: dict[str, Any] = json.loads(self.spool.sidecar(os.fsdecode(name)).read_bytes())
        except OSError:
            return {}
        return found if base64.b64decode(found["input"]["name_b64"]) == name else {}

    def entries(self) -> list[tuple[bytes, str, str]]:
        """Exact name, shown name and reason of what `_inbox.json` lists at this moment."""
        listed = self.daemon.read("_inbox.json").get("entries", [])
        found = [(base64.b64decode(each["name_b64"]), each["name"], each["reason"]) for each in listed]
        self.told |= {(name, reason) for name, _, reason in found}
        return found

    def look(self) -> None:
        """See what `_inbox.json` lists at this moment."""
        self.entries()

    def left_out(self) -> set[bytes]:
        """The entries that are neither a job nor listed, nor below a folder that is."""
        listed, left_out = {name for name, _, _ in self.entries()}, set()
        for root, folders, files in os.walk(self.daemon.inbox):
            names = {each: os.fsencode((Path(root) / each).relative_to(self.daemon.inbox)) for each in folders + files}
            left_out |= {names[each] for each in folders if (Path(root) / each).is_symlink()} - listed
            left_out |= {names[each] for each in files} - listed
            folders[:] = [each for each in folders if names[each] not in listed]
        return {name for name in left_out if not self.sidecar(name)}

    def is_over(self) -> bool:
        """Whether every song has ended and every stranger's cancel is gone."""
        self.entries()
        songs = all(self.sidecar(name).get("state") in ("done", "failed", "cancelled") for name in self.frames)
        gone = not any(self.is_there(name) for name in (*self.frames, *CANCELS))
        return songs and gone

    def outputs(self) -> list[str]:
        return [self.sidecar(name)["output"]["dir"] for name in self.frames if self.sidecar(name).get("output")]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Everything lies in one inbox before the daemon looks; no song ends before all of it is explained."""
    daemon = Daemon(tmp_path_factory.mktemp("names"), fake=True)
    found = Outcome(daemon)
    found.fill()
    daemon.hold.touch()
    try:
        # What is shown for two looks only is looked for from the first one on, which may be over before it is ready.
        with again_and_again(found.look) as raised:
            daemon.start().ready()
            try_until(daemon, lambda: not found.left_out())
        assert raised == []
        found.unexplained = found.left_out()
        daemon.hold.unlink()
        try_until(daemon, found.is_over)
        yield found
        assert daemon.stop() == 0
    finally:
        daemon.end()


def try_until(daemon: Daemon, condition: Callable[[], bool]) -> None:
    """Wait for it, but let the rows fail for which it does not come true, unless the daemon itself has ended."""
    with contextlib.suppress(AssertionError):
        daemon.until(condition, "the names")
    assert daemon.process is not None
    assert daemon.process.poll() is None, daemon.log.read_text(errors="replace")[-2000:]


def test_every_entry_is_a_job_or_listed(outcome: Outcome) -> None:
    """1.8 (f): nothing lies in the inbox that has neither a sidecar nor an entry in `_inbox.json`."""
    assert len(outcome.before) + len(SONGS) > 120
    assert outcome.unexplained == set()


@pytest.mark.parametrize("name", [pytest.param(name, id=what) for what, name in SONGS])
def test_a_song_may_have_this_name(outcome: Outcome, name: bytes) -> None:
    """The song is done; its sidecar, result and original are where its name says, and the name comes back exactly."""
    path = outcome.spool.sidecar(os.fsdecode(name))
    assert len(os.fsencode(path.name)) <= LONGEST + len(SIDECAR)
    sidecar = outcome.sidecar(name)
    assert sidecar.get("state") == "done", sidecar
    jsonschema.validate(sidecar, json.loads((ROOT / "config" / "status.schema.json").read_text()))
    assert sidecar["input"]["name"] == name.decode("utf-8", "replace")
    assert not any(0xD800 <= ord(each) < 0xE000 for each in json.dumps(sidecar, ensure_ascii=False))
    for file in sidecar["output"]["files"]:
        stem = outcome.daemon.outbox / sidecar["output"]["dir"] / file["name"]
        assert soundfile.info(str(stem)).frames == outcome.frames[name]
    manifest = json.loads((outcome.daemon.outbox / sidecar["output"]["dir"] / "stems.json").read_bytes())
    assert manifest["job_id"] == sidecar["job_id"]
    done = outcome.spool.done / os.fsdecode(name)
    assert done.read_bytes() == outcome.wholes[name]


@pytest.mark.parametrize("name", [pytest.param(name, id=what) for what, name in SONGS])
def test_a_result_is_named_after_its_song(outcome: Outcome, name: bytes) -> None:
    """Section 2: the song's name as every system can hold it, numbered only where another result has it."""
    leaf = result_names.folder_name(name.rpartition(b"/")[2].decode("utf-8", "replace"))
    where, _, given = outcome.sidecar(name)["output"]["dir"].rpartition("/")
    assert is_holdable(given)
    base, number = re.fullmatch(r"(.*?)(?: \((\d+)\))?", given, re.DOTALL).groups()  # type: ignore[union-attr]
    if given != leaf:
        beside = {each.name.casefold() for each in (outcome.daemon.outbox / where).iterdir()}
        assert number and int(number) > 1
        assert base == leaf or (len(f"{leaf} ({number})".encode()) > LONGEST and leaf.startswith(base))
        assert leaf.casefold() in beside
    folder = name.rpartition(b"/")[0].decode("utf-8", "replace")
    is_cut = len(folder.encode()) > 255 and where.startswith(folder[:40])
    assert where == folder or is_cut or (b"/" in name and is_holdable(where))


def test_results_are_apart(outcome: Outcome) -> None:
    """No two results have one name to a system without case, none lies in another, and none is anywhere else."""
    outputs, outbox = outcome.outputs(), outcome.daemon.outbox
    assert len(outputs) == len(SONGS)
    assert len({unicodedata.normalize("NFC", each).casefold() for each in outputs}) == len(SONGS)
    assert sorted(path.parent.relative_to(outbox).as_posix() for path in outbox.rglob("stems.json")) == sorted(outputs)
    results = {outbox / each for each in outputs}
    assert [path for path in results if results & set(path.parents)] == []
    assert {path.name for path in outbox.iterdir()} == {each.partition("/")[0] for each in outputs} | {".demixd"}
    assert {path.name for path in outcome.daemon.folder.iterdir()} <= KNOWN
    assert {path.name for path in outcome.daemon.spool.iterdir()} == {"inbox", "outbox", "status", "done", "failed"}


def test_every_sidecar_is_of_one_song(outcome: Outcome) -> None:
    """As many sidecars as songs: no two names share one, and nothing else has one."""
    told = [path for path in outcome.spool.status.rglob("*.json") if path.name not in ("_daemon.json", "_inbox.json")]
    names = [base64.b64decode(json.loads(path.read_bytes())["input"]["name_b64"]) for path in told]
    assert sorted(names) == sorted(outcome.frames)


@pytest.mark.parametrize(("name", "reason"), [pytest.param(*row[:2], id=f"{row[1]} {row[0]!r:.40}") for row in OTHERS])
def test_what_is_no_job_says_why(outcome: Outcome, name: bytes, reason: str) -> None:
    """The entry is listed once, with its reason and its exact name, has no sidecar, and lies there untouched."""
    if name not in outcome.before:
        pytest.skip("needs root, to make a device: sudo tests/run")
    assert [entry for entry in outcome.entries() if entry[0] == name] == [
        (name, name.decode("utf-8", "replace"), reason)
    ]
    assert {told for entry, told in outcome.told if entry == name} == {reason}
    assert looks(outcome.path(name)) == outcome.before[name]
    assert outcome.sidecar(name) == {}
    if stat.S_ISDIR(outcome.path(name).lstat().st_mode):
        assert [each.name for each in outcome.path(name).iterdir()] == ["hidden.wav"]


@pytest.mark.parametrize("name", CANCELS)
def test_a_cancel_for_nobody_says_so(outcome: Outcome, name: bytes) -> None:
    """It is listed as `no-such-job`, nothing else was ever said of it, and it is gone."""
    assert {told for entry, told in outcome.told if entry == name} == {"no-such-job"}
    assert not outcome.is_there(name)
    assert outcome.sidecar(name) == {}


def test_what_lies_behind_links_is_untouched(outcome: Outcome) -> None:
    """Songs that links point to stay where they are and are nobody's job."""
    assert (outcome.daemon.folder / "outside.wav").exists()
    assert [path.name for path in (outcome.daemon.folder / "outside").iterdir()] == ["song.wav"]
    assert not any(outcome.sidecar(name) for name in (b"link to a song.wav", b"link to a folder/song.wav"))


def test_the_listing_keeps_its_schema(outcome: Outcome) -> None:
    """`_inbox.json` is what the shipped schema says, and holds no lone surrogates."""
    schema = json.loads((ROOT / "config" / "schemas" / "inbox.schema.json").read_text())
    listing = outcome.daemon.read("_inbox.json")
    jsonschema.validate(listing, schema)
    assert not any(0xD800 <= ord(each) < 0xE000 for each in json.dumps(listing, ensure_ascii=False))
    assert len(listing["entries"]) == len(outcome.before)


def test_names_do_not_break_the_log(outcome: Outcome) -> None:
    """The log is a sentence a line whatever a song is called: no name in it ends a line or steers a terminal."""
    log = outcome.daemon.log.read_text(encoding="utf-8")
    assert "plain.wav: done" in log
    assert {each for each in log if unicodedata.category(each) == "Cc"} == {"\n"}
    assert [line for line in log.splitlines() if line.startswith(("line.wav", "turn.wav"))] == []


def test_folders_are_explained_where_they_are_not_walked(tmp_path: Path) -> None:
    """With `recursive = false` a sub-folder is listed as `not-walked`, and the songs in it wait for nobody."""
    with running(tmp_path, fake=True, inbox={"recursive": False}) as daemon:
        (daemon.inbox / "album").mkdir()
        (daemon.inbox / "album" / "inner.wav").write_bytes(wav("inner.wav", 2000))
        (daemon.inbox / "outer.wav").write_bytes(wav("outer.wav", 2001))
        assert daemon.final("outer.wav")["state"] == "done"
        told = daemon.until(lambda: daemon.read("_inbox.json").get("entries"), "the folder explained")
        assert [(entry["name"], entry["reason"]) for entry in told] == [("album", "not-walked")]
        assert daemon.song("album/inner.wav") == {}
        assert (daemon.inbox / "album" / "inner.wav").exists()


# ---- the pure part, on names that nobody thought of

COUNT = 3000
_PIECES = [
    "é",
    "日本",
    "🎉",
    "ß",
    "İ",
    "\u0301",
    "\u202e",
    "\x85",
    " ",
    ".",
    "..",
    "~",
    "$",
    "con",
    "nul",
    "(2)",
    "\\",
    ":",
]


def random_names(seed: int, count: int = COUNT) -> set[bytes]:
    """Names that a kernel can hold: of bytes, of characters, and some that differ only at their ends."""
    rng, names = random.Random(seed), set()
    for _ in range(count):
        length = rng.choice([1, 5, 80, 119, 120, 121, 122, 200, 255])
        match rng.randrange(5):
            case 0:
                raw = bytes(rng.randrange(1, 256) for _ in range(length))
            case 1:
                raw = "".join(rng.choices([*_PIECES, "a", "b", "Z"], k=length)).encode()
            case 2:
                raw = bytes([rng.choice([0x80, 0xE9, 0xFF, 0x61])]) * (length - 1) + bytes([rng.randrange(48, 58)])
            case 3:
                raw = f"{rng.choice(['con', 'AUX', 'com1', 'lpt²'])}{rng.choice(' .') * length}x".encode()
            case _:
                raw = "".join(chr(rng.choice([*range(33, 127), *range(0xA1, 0x250)])) for _ in range(length)).encode()
        raw = raw.replace(b"/", b"|").replace(b"\0", b"0")[:255]
        if raw not in (b".", b".."):
            names.add(raw)
    return names


@pytest.mark.parametrize("seed", range(3))
def test_short_names_are_short_and_apart(seed: int) -> None:
    """Never over 120 bytes, as long as they may be themselves, one for each name, and cut at a character."""
    names = random_names(seed)
    shortened = {name: os.fsencode(short(os.fsdecode(name))) for name in names}
    assert len(set(shortened.values())) == len(names)
    for name, told in shortened.items():
        assert len(told) <= LONGEST
        assert (told == name) is (len(name) <= LONGEST)
        if told != name:
            kept, mark, digest = told.rpartition(b"~")
            assert (name.startswith(kept), mark, len(digest)) == (True, b"~", 16)
            assert 76 < len(kept) <= 80
        if is_utf8(name):
            assert is_utf8(told)


def is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("suffix", [SIDECAR, CANCEL, OPTIONS])
def test_companions_are_apart(suffix: str) -> None:
    """A name's companion lies in its folder, fits everywhere, and is that of no other name."""
    names = [os.fsdecode(name) for name in random_names(10)]
    paths = [f"folder/{name}" for name in names] + names
    found = [companion(path, suffix) for path in paths]
    assert len(set(found)) == len(paths)
    for path, beside in zip(paths, found, strict=True):
        assert beside.endswith(suffix)
        assert beside.rpartition("/")[0] == path.rpartition("/")[0]
        assert len(os.fsencode(beside.rpartition("/")[2])) <= LONGEST + len(suffix)


@pytest.mark.parametrize("seed", range(3))
def test_every_name_can_be_made_holdable(seed: int) -> None:
    """Whatever a song is called, its folder can be held everywhere, is short enough, and is not changed by doing it twice."""
    for name in random_names(seed):
        for longest in (40, 60, LONGEST):
            given = result_names.holdable(name.decode("utf-8", "replace"), longest)
            assert is_holdable(given), name
            assert len(given.encode()) <= longest
            assert result_names.holdable(given, longest) == given


TEMPLATES = ["{stem}.{ext}", "{song}/{stem}.{ext}", "{song} - {stem} ({model}).{ext}", "{model}/{song}/{stem}.{ext}"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_name_gives_file_names(template: str) -> None:
    """Whatever a song is called, each stem has a file of its own, below the song's folder, and with its extension."""
    result_names.check(template)
    for name in random_names(20, COUNT // 3):
        leaf = name.decode("utf-8", "replace")
        model = "org/model" if name[0] % 2 else "htdemucs_ft"
        made = [
            result_names.file_name(template, stem=s, ext="flac", model=model, leaf=leaf)
            for s in ("vocals", "no_vocals")
        ]
        assert made[0] != made[1]
        for path in made:
            assert path.endswith(".flac")
            assert path.count("/") == template.count("/")
            assert all(is_holdable(part) and not part.startswith(".") for part in path.split("/")), name


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.daily) for seed in (1, 2))])
def test_every_name_is_of_one_kind(seed: int) -> None:
    """A name's end decides what it is, in either case, unless its beginning or a part's suffix has it ignored.

    One dot in front hides everything, several dots hide neither a song nor its companions.
    """
    for raw in random_names(seed, COUNT // 3):
        name = os.fsdecode(raw)
        is_dotted = re.match(r"\.\.+[^.]", name) is not None
        hides = (name.startswith(".") and not is_dotted) or name.startswith("~$")
        ignored = hides or name.lower().startswith("~syncthing~")
        assert kind_of_file(name) in Kind
        for extension in READABLE:
            for leaf in (f"{name}.{extension}", f"{name}.{extension.upper()}"):
                assert kind_of_file(leaf) is (Kind.IGNORED if ignored else Kind.SONG)
        for extension in UNREADABLE:
            is_told = not (ignored or name.startswith("."))
            assert kind_of_file(f"{name}.{extension}") is (Kind.UNSUPPORTED if is_told else Kind.IGNORED)
        for suffix in (".part", ".CRDOWNLOAD", ".!qB", "~"):
            assert kind_of_file(name + suffix) is Kind.IGNORED
            assert kind_of_folder(name + suffix) is Kind.IGNORED
        for suffix in (".json", ".cancel"):
            assert kind_of_folder(name + suffix) is (Kind.IGNORED if ignored else Kind.RESERVED)
        assert (kind_of_file(name + CANCEL) is Kind.CANCEL) is (is_dotted or not name.startswith("."))
