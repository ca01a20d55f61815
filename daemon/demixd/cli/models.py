"""`demixd models`: list, fetch, verify and pin models."""

import os

import click

from demixd.cli.config_option import config_option, configured
from demixd.cli.console import refuse_to_be_led, refusing_os_errors, say
from demixd.config import Config
from demixd.errors import BadWordError, RefusedError


@click.group()
@config_option
def models() -> None:
    """List, fetch, verify and pin models."""


@models.command("list")
@configured
def list_models(config: Config) -> None:
    """List the models that are there or can be fetched."""
    from demixd.engine.models import listing

    with refusing_os_errors():
        rows = listing.rows(
            repo=config.repo, models=config.models, recorded=config.recorded, allow_pickle=config.model.allow_pickle
        )
    for row in rows:
        say(f"{row.name:24}{row.state:12}{row.trust:11}{row.about or row.folder}", hang=47)


@models.command(short_help="Fetch a model.")
@click.argument("name")
@configured
def fetch(config: Config, name: str) -> None:
    """Fetch the model NAME from the Hugging Face hub; where OpenVINO runs it, convert it too."""
    from demixd.cli.status import view
    from demixd.engine.models.configured import known
    from demixd.engine.models.fetch import fetch as fetch_model
    from demixd.engine.openvino import converter

    refuse_to_be_led(config.models, known(name, config))
    os.umask(0o022)  # the daemon, another user, reads what root fetches
    with view.bar(name) as change:
        files = fetch_model(
            name,
            config.models,
            progress=lambda at: change(
                description=at.file or "waiting", completed=at.bytes, total=at.total_bytes or None
            ),
        )
    say(f"{files.name}: in {files.folder}")
    if converter.serves(config):
        with view.bar("converting for OpenVINO"):
            told = converter.in_advance(config, files)
        say(f"{files.name}: {told}")


@models.command(short_help="Compare a model's files with the hashes on record.")
@click.argument("name", required=False)
@configured
def verify(config: Config, name: str | None) -> None:
    """Compare the hashes of the model NAME (default: the configured one) with those on record; without one, load it."""
    from demixd.engine.families import demucs
    from demixd.engine.models import store
    from demixd.engine.models.configured import known

    files = store.Where.of(config, known(name or config.model.name, config)).locate()
    say(f"{files.name}: good, {demucs.verify(files, allow_pickle=config.model.allow_pickle)}")


@models.command(short_help="Print what pins a model in the catalogue.")
@click.argument("name")
@configured
def pin(config: Config, name: str) -> None:
    """Print what pins the model NAME in demixd's catalogue: the commit that it was fetched from, and its files' hashes."""
    from demixd.engine.models import store
    from demixd.engine.models.catalog import PUBLISHED
    from demixd.engine.models.configured import known

    if known(name, config) not in PUBLISHED:
        raise BadWordError(f"{name} is no model that Demucs publishes: the catalogue, which pins, has no others")
    files = store.locate(name, repo=None, models=config.models, allow_pickle=False)
    commit, hashes = store.pins(files)
    if not commit:
        finds = f"`{store.command('fetch', name, config.models)}` finds it out"
        raise RefusedError(f"{files.folder} does not say which commit {name} is from: {finds}")
    pinned = (f'    "{file}": "{sha256}",' for file, sha256 in hashes.items())
    say("\n".join([f'commit="{commit}",', "sha256={", *pinned, "},"]))
