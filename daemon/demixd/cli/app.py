"""The commands as they are typed. Each loads its own modules when it is called, so that `demixd status` starts fast.

All but `run`, `separate`, `bench` and `models` work by files alone, for any user who can read and write the spool.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from demixd import config as configuration
from demixd.cli import queue
from demixd.cli.config_option import chosen_file, config_option, configured, mistake, source, with_folders
from demixd.cli.console import complain, exit_on_sigterm, interruptible, refusing_os_errors, say, standard_streams
from demixd.cli.models import models
from demixd.config import Config
from demixd.errors import AudioProcessingError, BadWordError, Code, ConfigError, RefusedError, StateError
from demixd.spool.tree import Spool
from demixd.version import __version__

BAD_WORD = 2
BAD_CONFIG = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="demixd")
@config_option
def commands() -> None:
    """Drop a song into a folder, get its stems in another."""
    if click.get_current_context().invoked_subcommand != "run":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `__main__` keeps it where the daemon may be meant


@commands.command()
@configured
def run(config: Config) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP has it read the configuration again."""
    from demixd.engine.models.configured import checked
    from demixd.supervisor import journal
    from demixd.supervisor.service import Service

    journal.start(config.log.level)
    path, why = configuration.chosen(chosen_file())
    file = os.path.realpath(path) if path else ""
    logging.getLogger(__name__).info("the configuration: %s", why)
    Service(checked(config, source()), lambda: checked(configuration.load(path), source()), file=file).run()


@commands.command(short_help="Check whether all is ready for the daemon.")
@click.option(
    "--configuration", "only_configuration", is_flag=True, help="Check nothing else, and say nothing if all is well."
)
@configured
def check(config: Config, only_configuration: bool) -> None:
    """Check the configuration (status 78 if it is wrong), the folders, the filesystem, the device and the model (else 1)."""
    from demixd.engine.models.configured import checked, faults

    if only_configuration:
        checked(config, source())
        return
    from demixd.cli.check.finding import Level
    from demixd.cli.check.findings import findings

    is_wrong = False
    for each in findings(config, chosen_file()):
        is_wrong = is_wrong or each.level is Level.FAIL
        say(f"{each.level:6}{each.subject:9}{each.text}", hang=15)
    sys.exit(BAD_CONFIG if any(faults(config)) else 1 if is_wrong else 0)


@commands.command(short_help="Show the daemon and the songs.")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="A line for every song, of long ago too, and for what is no song."
)
@click.option("--json", "as_json", is_flag=True, help="Print the status files in one JSON object: daemon, and songs.")
@click.option("--watch", "live", is_flag=True, help="Keep showing until Ctrl-C; without a terminal a line per change.")
@with_folders
def status(config: Config, names: tuple[str, ...], everything: bool, as_json: bool, live: bool) -> None:
    """Show the daemon and the songs: those that run, the queue in its order, those not ready, the last results (newest first).

    While no daemon runs, also the songs in the inbox that none has seen yet. With NAME, as `cancel` takes it, or what several
    names begin with, show these songs alone, with --json too; without that, NAME can also be a file of the inbox that is no
    song. Status 1 if no song can be separated now, or none is called NAME.
    """
    from demixd.cli.status import watch

    if [bool(names) and not as_json, everything, as_json, live].count(True) > 1:
        raise click.UsageError(
            "NAME (but with --json), --all, --json and --watch exclude each other: give one of them."
        )
    with refusing_os_errors():
        if live:
            with suppress(KeyboardInterrupt):
                watch.keep_showing(config)
            return
        is_well = (
            watch.show_json(config, names)
            if as_json
            else watch.show_once(config, names, everything=everything, told=mistake())
        )
    sys.exit(0 if is_well else 1)


@commands.command(short_help="Drop songs into the inbox.")
@click.argument("songs", metavar="SONG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows.")
@click.option("--stems", help="Names with commas between them: the model's own, instrumental, guide, or no_NAME.")
@click.option("--format", help="source, wav, flac, mp3, ogg, opus, m4a or alac.")
@click.option("--bitrate", help="kbit/s of the lossy formats, V0 to V9, or source.")
@click.option("--bit-depth", help="source, 16, 24, 32 or float.")
@click.option("--rate", help="source, or Hz.")
@click.option("--naming", help="Names of the files, such as '{song} - {stem}.{ext}', or a preset.")
@click.option("--profile", help="A profile of the configuration.")
@click.option("--priority", help="Songs of higher priority come first; the default is 0.")
@click.option("--tag", help="Any text; the status files repeat it.")
@click.option("--force", is_flag=True, default=None, help="Separate the song even if the same result exists.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any other option of a song.")
@click.option("--to", "folder", default="", metavar="FOLDER", help="A folder below the inbox.")
@click.option("--wait", is_flag=True, help="Show progress until every song has ended; status 0 only if all are done.")
@click.option("--json", "as_json", is_flag=True, help="With --wait: print each song's final status, one a line.")
@with_folders
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
    """Drop each SONG into the inbox, with the options that are given."""
    from demixd.cli.songs import submit as submitting
    from demixd.cli.songs.follow import follow_to_end
    from demixd.cli.status.notice import SilenceNotice, complain_if_absent

    if as_json and not wait:
        raise click.UsageError("--json needs --wait: a song has no final status before it has ended.")
    spool = Spool(config)
    chosen = submitting.song_options(given, settings)
    with refusing_os_errors():
        drops = submitting.plan(None if mistake() else config, spool, songs, folder=folder, chosen=chosen)
    with interruptible("The songs go on: `demixd status` shows them, `demixd cancel NAME` stops one."):
        followers = []
        for each in submitting.drop(spool, drops):
            followers.append(each)
            if not wait:
                say(f"{each.name}: dropped; its status will be in {each.path}")
        if not wait:
            complain_if_absent(spool)
        if wait and not follow_to_end(spool, followers, SilenceNotice.of(config, spool).due, as_json=as_json):
            sys.exit(1)


@commands.command(short_help="Print each song's end as it comes.")
@click.option(
    "--since",
    metavar="END",
    type=click.IntRange(0),
    help="Begin after the end of this number; 0: with the first.",
)
@click.option("--all", "everything", is_flag=True, help="Also print other states, as far as they are seen.")
@with_folders
def follow(config: Config, since: int | None, everything: bool) -> None:
    """Print each song's end as it comes, a line of JSON: its final status, with a number (`end`) that grows.

    Without --since from now on. Who keeps the last number can go on from it and misses none.
    """
    from demixd.cli.songs import ends

    with refusing_os_errors(), suppress(KeyboardInterrupt):
        ends.follow(Spool(config), since, everything=everything)


@commands.command(short_help="Run programs of yours for each song's end.")
@with_folders
def hooks(config: Config) -> None:
    """Run every executable in [hooks] folder for each song's end, until SIGTERM or Ctrl-C."""
    from demixd.cli.hooks import service

    with refusing_os_errors():
        service.run(config)


@commands.command(short_help="Separate one song here, without a daemon.")
@click.argument("song", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows; default: the configuration's.")
@click.option("--stems", help="Names with commas between them: the model's own, instrumental, guide, or no_NAME.")
@click.option("--format", help="source, wav, flac, mp3, ogg, opus, m4a or alac.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any other option of a song.")
@configured
def separate(config: Config, /, song: Path, folder: Path, settings: tuple[str, ...], **given: Any) -> None:
    """Separate SONG in this process, and put its stems into FOLDER, which is made where it is missing.

    Neither daemon nor inbox has a part in it. FOLDER gets the stems alone, without stems.json and peaks.json; files with
    their names are replaced. The model is loaded anew each time.
    """
    from demixd.cli.songs import separate as separating

    exit_on_sigterm()
    with refusing_os_errors(), interruptible("Interrupted: no stem was written."):
        separating.separate(config, song, folder, given, settings)


@commands.command(short_help="Measure how fast this machine is.")
@click.argument("songs", metavar="[SONG...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows; default: the configuration's.")
@click.option("--device", help="auto, cpu, cuda or cuda:N; default: the configuration's.")
@click.option("--precision", help="auto, float32, float16 or bfloat16; default: the configuration's.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=240, show_default=True, help="Length of a made song."
)
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each song.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Also write everything to FILE.")
@configured
def bench(config: Config, /, songs: tuple[Path, ...], file: Path | None, **options: Any) -> None:
    """Measure how fast this machine separates each SONG, or a synthetic one, and what it takes."""
    from demixd.cli.bench import measure, report

    exit_on_sigterm()
    with refusing_os_errors(), interruptible("Interrupted: there is no result."):
        found = measure.bench(config, songs, measure.BenchOptions(**options))
        for line in ["", *report.lines(found)]:
            say(line, hang=4)
        if file is not None:
            file.write_bytes(report.encode(found))


@commands.command(short_help="Serve the page for browsers.")
@click.option("--token", "only_link", is_flag=True, help="Print the link that lets a browser in, and its QR code.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to listen; default: the configuration's [web] listen.")
@configured
def web(config: Config, only_link: bool, listen: str | None) -> None:
    """Serve a page on which songs are seen, heard and dropped, until SIGTERM or Ctrl-C. It knows only the files of the spool."""
    from demixd.cli import page

    with refusing_os_errors():
        if only_link:
            page.show_link(config)
        else:
            page.serve(config, listen)


for each in (models, *queue.COMMANDS):
    commands.add_command(each)


def main() -> None:
    """Run a command. An error is one sentence on standard error, with status 1, 2 for usage or 78 for the configuration."""
    with standard_streams():
        try:
            commands()
        except ConfigError as error:
            complain(f"demixd: {error}")
            sys.exit(BAD_CONFIG)
        except AudioProcessingError as error:
            complain(f"demixd: {error.message}")
            sys.exit(BAD_WORD if error.code is Code.BAD_OPTIONS else 1)
        except (RefusedError, StateError) as error:
            complain(f"demixd: {error}")
            sys.exit(BAD_WORD if isinstance(error, BadWordError) else 1)
