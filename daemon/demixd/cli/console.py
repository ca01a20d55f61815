"""What commands say to people, and how a command ends when it cannot go on."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from demixd.terminal import safe

INTERRUPTED = 130
TERMINATED = 143


class RefusedError(Exception):
    """A command cannot do what it was asked for. The message is a sentence that names the thing and the remedy."""


def open_closed_streams() -> None:
    """Have standard streams that are closed (`demixd status >&-`) lead to /dev/null.

    The next file that is opened would get the number of one, and what is said would be written into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - it stays open, as the others do


def say(line: str) -> None:
    """A line on standard output. Characters in it that a terminal would obey are replaced."""
    click.echo(safe(line))


def complain(line: str) -> None:
    """The same on standard error."""
    click.echo(safe(line), err=True)


def exit_on_sigterm() -> None:
    """Let SIGTERM leave every `with` block on the way out, so that terminals are restored and children stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """Ctrl-C ends the command with status 130 and `sentence`."""
    try:
        yield
    except KeyboardInterrupt:
        complain(sentence)
        sys.exit(INTERRUPTED)


@contextmanager
def refusing_os_errors() -> Iterator[None]:
    """A file or folder that cannot be used is a sentence and no traceback. Raises RefusedError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RefusedError(f"{error.filename}: {error.strerror}") from error
