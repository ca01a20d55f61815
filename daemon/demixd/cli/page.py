"""`demixd web`: serves the page, or prints the link to it."""

import logging
import sys

from demixd.cli.config_option import start_command
from demixd.cli.console import say
from demixd.config import Config
from demixd.config.sections import address_of
from demixd.errors import BadWordError, RefusedError

MISSING = (
    "the page needs packages that are not here ({name}): `sudo systemd/install --web` installs them for the service, "
    "`.venv/bin/python -m pip install --require-hashes --no-deps -r config/requirements-web.lock` into .venv"
)


def serve(config: Config, listen: str | None) -> None:
    """Serve the page until a signal comes. Raises RefusedError, BadWordError."""
    if listen is not None:
        try:
            address_of(listen)
        except ValueError as error:
            raise BadWordError(f"--{error}") from error
    try:
        from demixd.web import server
    except ModuleNotFoundError as error:
        raise RefusedError(MISSING.format(name=error.name)) from error
    logging.basicConfig(level=config.log.level.upper(), format="%(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each request that is none
    if not server.run(config, listen or config.web.listen, start_command()):
        sys.exit(1)


def show_link(config: Config) -> None:
    """Print the link with the token, and the same as a QR code. Raises RefusedError, OSError."""
    from demixd.web import token

    folder = token.folder_to_show()
    secret = token.read(folder) if config.web.allow == "token" else None
    if secret is None and config.web.allow == "token":
        raise RefusedError(f"there is no token in {folder} yet: `demixd web` makes it when it starts")
    link = token.link(token.address(folder, config.web.listen), secret)
    say(link)
    try:
        from demixd.web import qr
    except ModuleNotFoundError as error:
        raise RefusedError(MISSING.format(name=error.name)) from error
    for line in qr.lines(link):
        say(line)
