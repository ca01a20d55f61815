"""The commands that change what the daemon does next: cancel, retry, pause and resume. They work by files alone."""

import sys

import click

from demixd.cli.config_option import with_folders
from demixd.cli.console import interruptible, refusing_os_errors
from demixd.config import Config
from demixd.spool.tree import Spool


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Stop the running job and every waiting one.")
@click.option("--wait", is_flag=True, help="Wait for the daemon's answer; status 0 only if all are cancelled.")
@with_folders
def cancel(config: Config, names: tuple[str, ...], everything: bool, wait: bool) -> None:
    """Stop the jobs of the songs called NAME.

    NAME is a song's path below the inbox, or the beginning of its file name where no other song's begins so, or a pattern
    such as '04*', or a folder. A song that is over is no error without --wait: the status is 0 once the daemon is asked, or has
    nothing to stop, and 1 if no song of a name is known.
    """
    from demixd.cli.songs import cancel as cancelling
    from demixd.cli.status.notice import SilenceNotice

    if bool(names) is everything:
        raise click.UsageError("Give names of songs, or --all.")
    spool = Spool(config)
    notice = SilenceNotice.of(config, spool) if wait else None
    with refusing_os_errors(), interruptible("The songs that were asked to stop still will."):
        is_good = cancelling.cancel_all(spool, notice) if everything else cancelling.cancel(config, names, notice)
    sys.exit(0 if is_good else 1)


@click.command(short_help="Bring songs back that failed or were cancelled.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@with_folders
def retry(config: Config, names: tuple[str, ...]) -> None:
    """Bring the songs called NAME, which have failed or were cancelled, back into the inbox with their options.

    NAME is as `cancel` takes it. A song that was left in the inbox is touched there. The status is 1 if one of them cannot
    come back, or no such song is known.
    """
    from demixd.cli.songs import retry as retrying

    with refusing_os_errors():
        is_good = retrying.retry(Spool(config), names)
    sys.exit(0 if is_good else 1)


@click.command(short_help="Hold all songs up.")
@click.option("--now", is_flag=True, help="Have the running songs wait too; they begin anew afterwards.")
@with_folders
def pause(config: Config, now: bool) -> None:
    """Have nothing new begun until `demixd resume`; the running songs go on to their end.

    It makes the file .pause in the inbox. Songs can be dropped all the while, and wait.
    """
    from demixd.cli.songs import pause as pausing

    with refusing_os_errors():
        pausing.pause(Spool(config), now=now)


@click.command(short_help="End a pause.")
@with_folders
def resume(config: Config) -> None:
    """End the pause that `demixd pause` began: the file .pause is removed from the inbox.

    Where there is none, nothing is done. A pause by [schedule] hours ends by the clock alone.
    """
    from demixd.cli.songs import pause as pausing

    with refusing_os_errors():
        pausing.resume(config)


COMMANDS = (cancel, retry, pause, resume)
