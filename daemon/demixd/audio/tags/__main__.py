"""`python -m stemd.tags < SONG`: a song's tags as msgpack on standard output. `apart` runs it, and says why."""

import sys

import msgspec

from stemd.parent import end_with_parent
from stemd.tags.apart import limit
from stemd.tags.reading import look


def main() -> None:
    limit()
    if not end_with_parent():
        sys.exit(1)
    sys.stdout.buffer.write(msgspec.msgpack.encode(look(sys.stdin.buffer)))


if __name__ == "__main__":
    main()
