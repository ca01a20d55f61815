"""`python -m demixd.audio.tags < SONG`: a song's tags as msgpack on standard output. `sandbox` runs it and says why."""

import sys

import msgspec

from demixd.audio.tags.reading import tags_of
from demixd.audio.tags.sandbox import limit
from demixd.spool.child_process import end_with_parent


def main() -> None:
    limit()
    if not end_with_parent():
        sys.exit(1)
    sys.stdout.buffer.write(msgspec.msgpack.encode(tags_of(sys.stdin.buffer)))


if __name__ == "__main__":
    main()
