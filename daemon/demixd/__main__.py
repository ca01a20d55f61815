"""`demixd`, and `python -m demixd`."""

from demixd.cli.app import main

if __name__ == "__main__":
    main()
