"""`demixd`, and `python -m demixd`."""

import os
import signal
import sys


def main() -> None:
    """Run a command. A SIGHUP that comes before the daemon can hear it waits until it can, and does not end it."""
    if "run" in sys.argv and not os.isatty(0):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from demixd.cli.app import main as commands  # this takes a while

    commands()


if __name__ == "__main__":
    main()
