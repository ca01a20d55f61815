"""The commands. All but `run`, `bench` and `models` work by files alone, for any user who can read and write the spool."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from demixd import config as configuration
from demixd.cli import cancel as cancelling
from demixd.cli import client, text
from demixd.cli import submit as submitting
from demixd.cli.check import findings
from demixd.cli.check.finding import Level
from demixd.cli.client import RefusedError
from demixd.cli.status import watch
from demixd.cli.wait import Follower, Lookout
from demixd.config import Config
from demixd.engine.models import store
from demixd.errors import AudioProcessingError, ConfigError, StateError
from demixd.spool.tree import Spool
from demixd.supervisor import journal
from demixd.version import __version__

BAD_CONFIG = 78
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="demixd")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
@click.pass_context
def commands(context: click.Context, path: Path | None) -> None:
    """Drop a song into a folder, get its stems in another."""
    context.obj = configuration.load(path)


@commands.command()
@click.pass_context
def run(context: click.Context) -> None:
    """Watch the inbox and separate what is dropped there, until SIGTERM or Ctrl-C. SIGHUP reads the configuration again."""
    config: Config = context.obj
    journal.start(config.log.level)
    from demixd.supervisor.service import Service  # the other commands need no ledger and no threads

    path = context.find_root().params["path"]
    Service(config, lambda: configuration.load(path)).run()


@commands.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Look at the configuration, the folders, the filesystem, the device and the model."""
    path = context.find_root().params["path"]
    is_wrong = False
    for each in findings.findings(context.obj, path):
        is_wrong = is_wrong or each.level is Level.FAIL
        say(f"{each.level:6}{each.subject:9}{each.text}")
    if is_wrong:
        sys.exit(1)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: daemon, and songs.")
@click.option("--watch", "live", is_flag=True, help="Keep looking until Ctrl-C; no terminal: a line for each change.")
@click.pass_obj
def status(config: Config, as_json: bool, live: bool) -> None:
    """Show the daemon and what becomes of the songs."""
    spool = Spool(config)
    if as_json and live:
        raise click.UsageError("choose --json or --watch")
    with _files():
        if as_json:
            click.echo(text.as_json({"daemon": client.daemon(spool), "songs": list(client.sidecars(spool))}))
        elif live:
            with suppress(KeyboardInterrupt):
                watch.live(spool, say)
        else:
            watch.once(spool, say)


@commands.command()
@click.argument("songs", metavar="SONG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows.")
@click.option(
    "--stems", help="The model's own, instrumental, guide, or no_NAME for all but NAME; with commas between them."
)
@click.option("--format", help="source, wav, flac, mp3, ogg, opus, m4a or alac.")
@click.option("--bitrate", help="kbit/s of the lossy formats, V0 to V9, or source.")
@click.option("--bit-depth", help="source, 16, 24, 32 or float.")
@click.option("--rate", help="source, or Hz.")
@click.option("--naming", help="Names of the files, such as '{song}/{stem}.{ext}', or a preset.")
@click.option("--profile", help="A profile of the configuration.")
@click.option("--priority", help="Higher is earlier; 0 is usual.")
@click.option("--tag", help="Any text; it comes back in the status.")
@click.option("--force", is_flag=True, default=None, help="Compute it even if the same result is there.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any other option of a song.")
@click.option("--to", "folder", default="", metavar="FOLDER", help="A folder below the inbox.")
@click.option("--wait", is_flag=True, help="Show progress until every song has ended; 0 only if all are done.")
@click.option("--json", "as_json", is_flag=True, help="With --wait: print the final status of each song, one a line.")
@click.pass_obj
def submit(
    config: Config,
    /,
    songs: tuple[Path, ...],
    settings: tuple[str, ...],
    folder: str,
    wait: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Drop each SONG into the inbox, with these options if any are given."""
    if as_json and not wait:
        raise click.UsageError("--json needs --wait: a song has no final status before it has ended")
    spool = Spool(config)
    drops = submitting.plan(config, spool, songs, folder=folder, wishes=submitting.wanted(given, settings))
    with _interruptible("What has been dropped goes on: `demixd status` shows it, `demixd cancel NAME` stops it."):
        followed = _drop(spool, drops, quietly=wait)
        lookout = _lookout(config, spool)
        if wait and not watch.to_their_ends(spool, followed, lookout, as_json=as_json, say=say, complain=complain):
            sys.exit(1)


def _drop(spool: Spool, drops: list[submitting.Drop], *, quietly: bool) -> list[Follower]:
    """Drop them in turn. Raises RefusedError, which names those before the one that could not be."""
    followed: list[Follower] = []
    for each in drops:
        follower = Follower(spool, each.name)
        try:
            submitting.drop(spool, each)
        except RefusedError as error:
            before = f"; dropped before it: {', '.join(one.name for one in followed)}" if followed else ""
            raise RefusedError(f"{error}{before}") from error
        followed.append(follower)
        if not quietly:
            say(f"{each.name}: dropped; its status is {follower.path}")
    return followed


@commands.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="The running job and every waiting one.")
@click.option("--wait", is_flag=True, help="Until the daemon has answered; 0 only if all of them are cancelled.")
@click.pass_obj
def cancel(config: Config, names: tuple[str, ...], everything: bool, wait: bool) -> None:
    """Stop the jobs of the songs called NAME (their paths below the inbox)."""
    if bool(names) is everything:
        raise click.UsageError("give names of songs, or --all")
    spool = Spool(config)
    is_good = True
    with _files(), _interruptible("The songs that were asked to stop still will."):
        if everything:
            going = cancelling.ask_all(spool, say)
            is_good = not wait or cancelling.answer_all(spool, going, _lookout(config, spool), say, complain)
        else:
            asked = []
            for name in names:
                try:
                    asked.append(cancelling.ask(spool, name, say))
                except RefusedError as error:
                    is_good = False
                    complain(f"demixd: {error}")
            lookout = _lookout(config, spool)
            for each in asked:
                if wait and each is not None:
                    is_good = cancelling.answer(spool, each, lookout, say, complain) and is_good
    sys.exit(0 if is_good else 1)


def say(line: str) -> None:
    click.echo(text.safe(line))


def complain(line: str) -> None:
    click.echo(text.safe(line), err=True)


def _lookout(config: Config, spool: Spool) -> Lookout:
    return Lookout(spool, config.status.heartbeat_s, time.monotonic())


@contextmanager
def _interruptible(sentence: str) -> Iterator[None]:
    """Ctrl-C ends the waiting, not the work."""
    try:
        yield
    except KeyboardInterrupt:
        complain(sentence)
        sys.exit(INTERRUPTED)


@contextmanager
def _files() -> Iterator[None]:
    """A folder that cannot be used is the user's to mend, and no traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RefusedError(f"{error.filename}: {error.strerror}") from error


@commands.command()
@click.argument("songs", metavar="[SONG...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows; otherwise the configuration's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N; for all of them.")
@click.option("--precision", help="As in [model], for demixd alone; Demucs knows only float32.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=240, show_default=True, help="Of a song made here.")
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each with each song."
)
@click.option("--json", "path", metavar="FILE", type=click.Path(path_type=Path), help="Write everything into FILE.")
@click.option("--skip-command", is_flag=True, help="Leave out the demucs command, which loads the model each time.")
@click.option(
    "--references",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Stems that were mixed into each SONG: FOLDER/SONG/vocals.flac, or SONG.vocals.flac, or for one vocals.flac; adds SDR.",
)
@click.option(
    "--show", "as_text", is_flag=True, help="Measure nothing: the arguments are such FILEs, shown in Markdown."
)
@click.pass_obj
def bench(
    config: Config, /, songs: tuple[Path, ...], path: Path | None, skip_command: bool, as_text: bool, **wishes: Any
) -> None:
    """Measure demixd against Demucs' Separator and its command, on each SONG or on one made here."""
    from demixd.cli.bench import program, report, tables  # soundfile and numpy, which the other commands do not need

    if as_text:
        for each in songs:
            for line in tables.markdown(program.read(each)).splitlines():
                say(line)
        return
    if wishes["references"] is not None and not songs:
        raise click.UsageError("--references needs each SONG that they are of")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are stopped on the way out
    with _files(), _interruptible("Nothing was measured to its end."):
        found = program.bench(config, songs, program.Wishes(with_command=not skip_command, **wishes), say)
        program.show(found)
        if path is not None:
            path.write_bytes(report.encode(found))


@commands.group()
def models() -> None:
    """List, fetch and verify models."""


@models.command("list")
@click.pass_obj
def list_models(config: Config) -> None:
    """Every model that is there or can be fetched."""
    for row in store.listing(repo=config.repo, models=config.models, allow_pickle=config.model.allow_pickle):
        click.echo(f"{row.name:24}{row.state:12}{row.about or row.folder}")


@models.command()
@click.argument("name")
@click.pass_obj
def fetch(config: Config, name: str) -> None:
    """Fetch the model NAME from the Hugging Face hub; where OpenVINO runs it, convert it too."""
    from demixd.engine.models.fetch import fetch as fetch_model  # the hub's library is slow to load
    from demixd.engine.openvino import converter

    with Progress(transient=True) as bars:
        bar = bars.add_task(name, total=None)
        files = fetch_model(
            name,
            config.models,
            progress=lambda at: bars.update(
                bar, description=at.file or "waiting", completed=at.bytes, total=at.total_bytes or None
            ),
        )
    click.echo(f"{files.name}: in {files.folder}")
    if converter.serves(config):
        with Progress(transient=True) as bars:
            bars.add_task("converting for OpenVINO", total=None)
            told = converter.in_advance(config, files)
        click.echo(f"{files.name}: {told}")


@models.command()
@click.argument("name", required=False)
@click.pass_obj
def verify(config: Config, name: str | None) -> None:
    """Compare the hashes of the model NAME (the configured one) with those on record."""
    files = store.locate(
        name or config.model.name, repo=config.repo, models=config.models, allow_pickle=config.model.allow_pickle
    )
    click.echo(f"{files.name}: good, {store.verify(files)}")


def main() -> None:
    """Run a command; what goes wrong is one sentence on standard error. Exit status 1, 2 for usage, 78 configuration."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # names are Unicode, terminals not always
    try:
        commands()
    except ConfigError as error:
        complain(f"demixd: {error}")
        sys.exit(BAD_CONFIG)
    except AudioProcessingError as error:
        complain(f"demixd: {error.message}")
        sys.exit(1)
    except (RefusedError, StateError) as error:
        complain(f"demixd: {error}")
        sys.exit(1)
