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


class BadWordError(RefusedError):
    """A word of the command line is wrong whatever the files are like. Exit status 2."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let a program use standard input and output, and standard error, whatever it was started with.

    A stream that is closed is as good as /dev/null. It is opened, for the next file that the program opens would get its
    number, and what is written to the stream. An output that cannot be written (a full disk) is a sentence, with status 1;
    a closed pipe is click's affair.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+" if number == 0 else "w"))  # noqa: PTH123, SIM115 - for good
    try:
        yield
    except OSError as error:
        if not output_fails():
            raise
        # What could not be written is still in the buffer: the interpreter would try, and fail, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complain(f"demixd: standard output cannot be written: {error.strerror}")
        sys.exit(1)


def output_fails() -> bool:
    """Whether standard output cannot take what was written to it."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


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
        if output_fails():
            raise
        raise RefusedError(f"{error.filename}: {error.strerror}") from error
