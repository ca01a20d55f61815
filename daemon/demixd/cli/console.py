"""What commands say to people, and how a command ends when it cannot go on."""

import errno
import io
import os
import re
import select
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demixd.client import text
from demixd.errors import RefusedError
from demixd.protocol.terminal import safe

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

INTERRUPTED = 130
TERMINATED = 143

NARROW, LEAST_HANG = 24, 4
"""A column of text that would be narrower begins farther to the left."""


def refuse_to_be_led(models: Path, name: str) -> None:
    """Raise RefusedError where root is to fetch the model `name` into a folder in which another user may have put links."""
    for folder in (models, models.parent) if os.geteuid() == 0 else ():
        if os.path.lexists(folder) and (owner := folder.lstat().st_uid) != 0:
            raise RefusedError(f"{folder} is another user's: run `sudo -u '#{owner}' demixd models fetch {name}`")


class OutputError(OSError):
    """Standard output cannot take what is written to it."""


class _Output(io.FileIO):
    """Standard output, whose errors can be told from those of other files."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # nobody reads it any more, which is no error: click ends the command
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let a program use standard input and output, and standard error, whatever it was started with.

    A stream that is closed is as good as /dev/null. It is opened, for the next file that the program opens would get its
    number, and what is written to the stream. An output that cannot be written (a full disk) is a sentence, with status 1.
    Characters that a terminal does not have are replaced: names are Unicode.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    output = io.BufferedWriter(_Output(1, "w", closefd=False))
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for good
    encoding = sys.stdout.encoding if sys.stdout else None
    sys.stdout = io.TextIOWrapper(output, encoding, errors="replace", line_buffering=os.isatty(1))
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the interpreter will write what is left
        complain(f"demixd: standard output cannot be written: {error.strerror}")
        sys.exit(1)


def say(line: str, hang: int | None = None) -> None:
    """A line on standard output. Characters in it that a terminal would obey are replaced.

    With `hang`, a terminal that is too narrow for it gets it cut at blanks, and its rest that many columns to the right.
    """
    plain = safe(line)
    if hang is not None and sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        indent = " " * (hang if columns - hang >= NARROW else LEAST_HANG)
        # A command that is to be copied, in backticks, stays whole.
        tied = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\0"), plain)
        cut = textwrap.wrap(tied, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        plain = "\n".join(cut).replace("\0", " ")
    click.echo(plain)


def require_reader() -> None:
    """Raise BrokenPipeError, as writing would, where nobody reads standard output any more."""
    output = select.poll()
    output.register(1, 0)  # what poll(2) tells unasked: POLLERR for a pipe, POLLHUP for a socket
    if output.poll(0):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


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
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        raise RefusedError(text.refusal(error)) from error
