"""The commands. All but `run` and `models` work by files alone, for any user who can read and write the spool."""

import logging
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from stemd import __version__, checks, client
from stemd import config as configuration
from stemd.config import Config
from stemd.errors import AudioProcessingError, ConfigError
from stemd.models import store
from stemd.spool import Spool

BAD_CONFIG = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stemd")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
@click.pass_context
def commands(context: click.Context, path: Path | None) -> None:
    """Drop a song into a folder, get its stems in another."""
    context.obj = configuration.load(path)


@commands.command()
@click.pass_obj
def run(config: Config) -> None:
    """Watch the inbox and separate what is dropped there, until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=config.log.level.upper(), format="%(message)s", stream=sys.stderr)
    # watchdog logs every inotify event at debug level, which hides everything else.
    logging.getLogger("watchdog").setLevel(logging.WARNING)
    from stemd.service import Service  # the other commands need no ledger and no threads

    Service(config).run()


@commands.command()
@click.pass_obj
def check(config: Config) -> None:
    """Look at the configuration, the folders, the filesystem and the model."""
    found = list(checks.findings(config))
    for each in found:
        click.echo(f"{'ok  ' if each.ok else 'FAIL'}  {each.subject:8}{each.text}")
    if not all(each.ok for each in found):
        sys.exit(1)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: daemon, and songs.")
@click.pass_obj
def status(config: Config, as_json: bool) -> None:
    """Show the daemon and every song it knows."""
    spool = Spool(config)
    daemon, songs = client.daemon(spool), list(client.sidecars(spool))
    if as_json:
        click.echo(msgspec.json.encode({"daemon": daemon, "songs": songs}))
        return
    console = Console()
    console.print(_summary(daemon))
    table = Table("song", "state", "progress", "message", "result")
    for song in songs:
        reason = song["reason"] or song["step"]
        table.add_row(
            escape(song["input"]["name"]),
            f"{song['state']} ({reason})" if reason else song["state"],
            f"{100 * song['progress']['fraction']:.0f} %",
            escape(song["message"]),
            escape(song["output"]["dir"]) if song["output"] else "",
        )
    console.print(table)


def _summary(daemon: dict[str, Any] | None) -> str:
    if daemon is None:
        return "The daemon has never run on this spool: start it with `stemd run`."
    worker = daemon["worker"]
    return escape(f"daemon {daemon['state']} at {daemon['updated_at']}, worker {worker['state']}: {worker['message']}")


@commands.command()
@click.argument("songs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", is_flag=True, help="Show progress until every song has ended; 0 only if all are done.")
@click.pass_obj
def submit(config: Config, songs: tuple[Path, ...], wait: bool) -> None:
    """Drop SONGS into the inbox."""
    spool = Spool(config)
    if not spool.inbox.is_dir():
        raise click.ClickException(
            f"{spool.inbox} is not there: is the spool mounted, and has `stemd run` been started?"
        )
    dropped = {}
    for song in songs:
        before = client.last_seq(spool, song.name)
        try:
            dropped[client.drop(spool, song)] = before
        except OSError as error:
            raise click.ClickException(f"{song}: {error.strerror}") from error
        if not wait:
            click.echo(f"{song.name}: dropped; its status is {spool.sidecar(song.name)}")
    if wait and not all([_wait(spool, name, before) for name, before in dropped.items()]):  # noqa: C419 - wait for all
        sys.exit(1)


def _wait(spool: Spool, name: str, before: int) -> bool:
    """Follow one song to its end, with a bar on a terminal; whether it is done."""
    last: dict[str, Any] = {}
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")) as bars:
        bar: TaskID = bars.add_task(escape(name), total=1.0, text="")
        for last in client.follow(spool, name, before):
            text = last["message"] or last["reason"] or last["state"]
            bars.update(bar, completed=last["progress"]["fraction"], text=escape(text))
    if last["state"] == "done":
        click.echo(f"{name}: done, in {spool.outbox / last['output']['dir']}")
    else:
        click.echo(f"{name}: {last['state']}: {last['message']}", err=True)
    return bool(last["state"] == "done")


@commands.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="The running job and every waiting one.")
@click.pass_obj
def cancel(config: Config, name: str | None, everything: bool) -> None:
    """Stop the job of the song NAME (its path below the inbox)."""
    spool = Spool(config)
    if (name is None) is not everything:
        raise click.UsageError("give the name of a song, or --all")
    try:
        if name is None:
            spool.cancel_all.touch()
        else:
            client.cancel(spool, name)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


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
    """Fetch the model NAME from the Hugging Face hub."""
    from stemd.models.fetch import fetch as fetch_model  # the hub's library is slow to load

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
    try:
        commands()
    except ConfigError as error:
        click.echo(f"stemd: {error}", err=True)
        sys.exit(BAD_CONFIG)
    except AudioProcessingError as error:
        click.echo(f"stemd: {error.message}", err=True)
        sys.exit(1)
