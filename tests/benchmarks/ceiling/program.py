"""The pipeline's own speed, with a network that answers at once: tests/benchmarks/run --ceiling.

instant    a process with the pipeline of the present package, or of an older commit's; `messages` go to it and come from it
report     the result, its JSON and its table
"""

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import soundfile
from benchmarks import measure
from benchmarks.ceiling import report
from benchmarks.ceiling.messages import Cost, Ready, Work
from benchmarks.ceiling.report import OLDER, PRESENT, Ceiling, Round
from benchmarks.contenders.resident import PYTHON
from benchmarks.program import run

from demixd.cli.bench.measure import WARM_UP_S, machine, today, warn_if_busy
from demixd.cli.bench.report import encode
from demixd.cli.console import exit_on_sigterm, interruptible, refusing_os_errors, say
from demixd.cli.throwaway import child, last_line
from demixd.engine.models.demo.recording import record
from demixd.errors import RefusedError

ROOT = Path(__file__).parents[3]

FORMATS = ("wav", "flac", "mp3")
STEMS = (("vocals", "instrumental"), ("drums", "bass", "other", "vocals"))


class Side:
    """A process that separates, and is asked for one song after the other."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._name, self._process, self._log = name, process, log
        self.package = Path(msgspec.json.decode(self._hear(), type=Ready).package)

    @classmethod
    @contextlib.contextmanager
    def running(cls, name: str, root: Path, folder: Path) -> Iterator["Side"]:
        """With the package in `root`. Raises RefusedError where its pipeline cannot be measured."""
        (folder / name).mkdir()
        log = folder / f"{name}.log"
        path = f"PYTHONPATH={root / 'daemon'}:{ROOT / 'tests'}"
        with child(
            ["env", path, *PYTHON, "benchmarks.ceiling.instant", str(folder / name)], log, talks=True
        ) as process:
            side = cls(name, process, log)
            if side.package != root / "daemon" / "demixd":
                raise RefusedError(f"{side.package} would be measured, and not {root}")
            yield side

    def separated(self, work: Work) -> Round:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(work) + b"\n")
        self._process.stdin.flush()
        return Round(format=work.format, stems=work.stems, cost=msgspec.json.decode(self._hear(), type=Cost))

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RefusedError(f"the pipeline ({self._name}) has ended: {last_line(self._log)}")
        return line


def bench(against: str | None, seconds: float, repeat: int) -> Ceiling:
    """Measure, in a temporary folder that is gone afterwards. Raises RefusedError where something cannot be done."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary).resolve()
        load = warn_if_busy()
        roots, commits = {PRESENT: ROOT}, {PRESENT: _present()}
        if against is not None:
            roots, commits = (
                {OLDER: folder / "commit", **roots},
                {OLDER: _unpacked(against, folder / "commit"), **commits},
            )
        works, warm_up = _works(folder / "song", seconds), _works(folder / "warm-up", min(WARM_UP_S, seconds))
        sides = {name: stack.enter_context(Side.running(name, root, folder)) for name, root in roots.items()}
        contenders = {name: side.separated for name, side in sides.items()}
        say("Each separates short songs that do not count.")
        measure.alternate(contenders, warm_up, 1, lambda *_: None)
        rounds = measure.alternate(contenders, works, repeat, _tell)
        return Ceiling(
            date=today(),
            machine=machine(folder, None, load),
            song_s=seconds,
            repeat=repeat,
            commits=commits,
            rounds={name: tuple(each) for name, each in rounds.items()},
        )


def _works(folder: Path, seconds: float) -> list[Work]:
    """The same song in each format, once for each choice of stems, in a new folder."""
    folder.mkdir()
    record(folder / "song.wav", seconds)
    sound, rate = soundfile.read(folder / "song.wav", dtype="int16")
    for each in FORMATS[1:]:
        soundfile.write(folder / f"song.{each}", sound, rate)
    return [Work(song=str(folder / f"song.{each}"), format=each, stems=stems) for each in FORMATS for stems in STEMS]


def _tell(name: str, number: int, done: Round) -> None:
    say(f"{number}. {name}, {done.title}: {done.cost.seconds:.2f} s")


def _present() -> str:
    """The commit that is checked out, and whether it was changed since; the words of git where it can be asked."""
    try:
        return _git("describe", "--always", "--dirty", "--exclude=*").decode().strip()
    except RefusedError:
        return "no commit"


def _unpacked(commit: str, folder: Path) -> str:
    """Write the package as it was at `commit` below `folder`; the commit's short hash."""
    found = _git("rev-parse", "--verify", "--short", f"{commit}^{{commit}}").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", found, "daemon"))) as archive:
        archive.extractall(folder, filter="data")
    return found


def _git(*words: str) -> bytes:
    """What git says. Raises RefusedError with its complaint."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True)
    except FileNotFoundError as error:
        raise RefusedError("there is no git on this machine: install it") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise RefusedError(f"`git {' '.join(words)}` has failed: {reason}") from error
    return done.stdout


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--against", metavar="COMMIT", help="Measure the package of an older commit too, song by song in turn.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=240, show_default=True, help="Length of the song.")
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Rounds.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write everything to FILE.")
def command(against: str | None, seconds: float, repeat: int, file: Path | None) -> None:
    """Measure what demixd takes for a song beside the model: WAV, FLAC and MP3, with two and with four stems."""
    exit_on_sigterm()
    with refusing_os_errors(), interruptible("Interrupted: there is no result."):
        found = bench(against, seconds, repeat)
        for line in report.markdown(found).splitlines():
            say(line)
        if file is not None:
            file.write_bytes(encode(found))


if __name__ == "__main__":
    run(command, "tests/benchmarks/run --ceiling NAME")
