"""Reference stems: what was mixed into the songs, and how near the contenders come to it.

    tests/benchmarks/run NAME SONG.flac ... --references FOLDER

    FOLDER/SONG/vocals.wav  instrumental.flac       any format that a song may have
    FOLDER/SONG.vocals.flac
    FOLDER/vocals.flac                              where there is one song

What is wrong with them is said before anything is measured, and nothing is resampled, cut, mixed down or turned up to
make it fit.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import measure, report, songs
from benchmarks.quality.sdr import sdr
from benchmarks.report import MIXTURE, SongSdr

from demixd.cli.bench.daemon import SongFile
from demixd.client.text import some
from demixd.errors import RefusedError
from demixd.protocol.inbox_names import Kind, kind_of_file

SUM_DB = 20.0
"""A mix is nearer than this to the sum of its stems; one that a limiter has been over, by little."""


def find(folder: Path, playlist: Sequence[SongFile], stems: Sequence[str]) -> dict[Path, dict[str, Path]]:
    """The references of each song by stem.

    Raises RefusedError where a song has none, a stem has two, or one is not of the song's rate, length and channels.
    """
    if not folder.is_dir():
        raise RefusedError(f"{folder} is no folder of reference stems")
    references = {}
    for path, song in playlist:
        there = {stem: _in(folder, path, stem, is_alone=len(playlist) == 1) for stem in stems}
        references[path] = {stem: reference for stem, reference in there.items() if reference is not None}
        if not references[path]:
            layouts = [f"{path.stem}/{stems[0]}.flac", f"{path.stem}.{stems[0]}.flac"]
            layouts += [f"{stems[0]}.flac"] if len(playlist) == 1 else []
            raise RefusedError(f"{folder} has no reference stem of {song.name}: name them such as {', '.join(layouts)}")
        for reference in references[path].values():
            _check(reference, path)
    return references


def _in(folder: Path, song: Path, stem: str, *, is_alone: bool) -> Path | None:
    places = [(folder / song.stem, stem), (folder, f"{song.stem}.{stem}"), *([(folder, stem)] if is_alone else [])]
    found = [
        path
        for place, name in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.stem == name and kind_of_file(path.name) is Kind.SONG and path.absolute() != song
    ]
    if len(found) > 1:
        raise RefusedError(f"{song.name} has more than one reference for {stem}, {found[0]} and {found[1]}: leave one")
    return found[0] if found else None


def _check(reference: Path, song: Path) -> None:
    theirs, its = songs.sound(reference), songs.sound(song)
    if its.channels > 2:
        raise RefusedError(f"{song} has {its.channels} channels: SDR is measured of songs in mono or stereo")
    for one, other, remedy in (
        (f"{theirs.rate} Hz", f"{its.rate} Hz", "take references of the song's rate"),
        (some(theirs.frames, "frame"), some(its.frames, "frame"), "take references that begin and end with the song"),
        (some(theirs.channels, "channel"), some(its.channels, "channel"), "take references in the song's channels"),
    ):
        if one != other:
            raise RefusedError(f"{reference} has {one}, and {song} {other}: {remedy}")


class Judge:
    """Hears what each contender has made of a song, once: it makes the same of it the next time.

    `notes` are what is to be known of the figures; each is said at once too.
    """

    def __init__(self, references: Mapping[Path, Mapping[str, Path]], say: Callable[[str], None]) -> None:
        self._references, self._say = references, say
        self._found: dict[str, dict[Path, SongSdr]] = {}
        self.notes: list[str] = []

    def hear_songs(self, playlist: Sequence[SongFile], stems: Sequence[str]) -> None:
        """The songs themselves, as if each were any of its `stems`, which add up to it.

        Raises RefusedError where a file holds other than its header says.
        """
        for path, song in playlist:
            references = self._references.get(path, {})
            for stem, reference in references.items():
                try:
                    self._put(MIXTURE, (path, song), stem, _sdr(reference, path))
                except ValueError as error:
                    raise RefusedError(f"{reference} cannot be compared with {path}: {error}") from error
            if missing := [stem for stem in stems if references and stem not in references]:
                self._note(f"{song.name}: there is no reference for {' and '.join(missing)}, and so no SDR")
            elif references:
                self._add_up(path, song.name, list(references.values()))

    def _add_up(self, path: Path, name: str, references: Sequence[Path]) -> None:
        together = (sum(blocks) for blocks in zip(*map(songs.blocks, references), strict=True))
        near = sdr(songs.blocks(path), together)
        if near is not None and near < SUM_DB:
            self._note(
                f"{name}: its references do not add up to it ({near:.1f} dB): they were made louder or softer, or are of "
                "another mix, and so what is right counts as an error"
            )

    def hear(self, name: str, piece: SongFile, stems: Mapping[str, Path]) -> None:
        """What cannot be compared, since Demucs has its own rate, is noted and has no SDR."""
        path, song = piece
        if path in self._found.get(name, {}):
            return
        for stem, reference in self._references.get(path, {}).items():
            try:
                value = _sdr(reference, stems[stem])
            except ValueError as error:
                self._note(f"{song.name}: {name}: no SDR of {stem}, which is not like its reference: {error}")
                value = None
            self._put(name, piece, stem, value)

    def _put(self, name: str, piece: SongFile, stem: str, value: float | None) -> None:
        path, song = piece
        found = self._found.setdefault(name, {}).setdefault(path, SongSdr(song=song, stems={}))
        found.stems[stem] = value

    def _note(self, sentence: str) -> None:
        self.notes.append(sentence)
        self._say(f"{sentence}.")

    def verdict(self) -> dict[str, report.Sdr]:
        return {name: measure.sdr(list(found.values())) for name, found in self._found.items()}


def _sdr(reference: Path, estimate: Path) -> float | None:
    """To the thousandth of a dB. Raises ValueError where they cannot be compared."""
    one, other = songs.sound(reference).rate, songs.sound(estimate).rate
    if one != other:
        raise ValueError(f"{other} Hz, not {one}")
    found = sdr(songs.blocks(reference), songs.blocks(estimate))
    return None if found is None else round(found, 3)
