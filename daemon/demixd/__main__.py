"""`stemd`, and `python -m stemd`."""

from stemd.cli import main

if __name__ == "__main__":
    main()
