"""`daemon/try`: a daemon on a throw-away spool with the demo model separates songs; their stems are listed."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demixd.audio import sndfile
from demixd.audio.ffmpeg import reader
from demixd.cli.console import complain, exit_on_sigterm, interruptible, say, standard_streams
from demixd.cli.songs import submit
from demixd.cli.songs.follow import follow_to_end
from demixd.cli.throwaway import ThrowawayDaemon
from demixd.engine.models.demo.recording import record
from demixd.errors import AudioProcessingError, RefusedError
from demixd.protocol.job import State
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool

SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"name": "demo"},
    "inbox": {"settle": 1.0},
    "status": {"heartbeat_s": 1.0},
}


def main() -> int:
    """0 only if every song is done, and its stems have the song's number of frames."""
    exit_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="demixd-try-"))
    try:
        with interruptible("Stopped."):
            return 0 if show(folder, [Path(word) for word in sys.argv[1:]]) else 1
    except (RefusedError, AudioProcessingError) as error:
        complain(f"daemon/try: {error}")
        return 1
    finally:
        say(f"Everything is in {folder}; delete it when you have seen enough.")


def show(folder: Path, songs: Sequence[Path]) -> bool:
    """Drop the songs, follow them, list their stems; whether all is well. Raises RefusedError."""
    daemon = ThrowawayDaemon(folder, SETTINGS)
    say(
        "The demo model proves that everything works. It is not for music: real models come with `demixd models fetch`."
    )
    if not songs:
        say("No song was given, so a synthetic one is made: drums, bass, keys and something like a voice.")
        songs = [folder / "Synthetic Song.wav"]
        record(songs[0], 10.0)
    drops = submit.plan(daemon.config, daemon.spool, songs, chosen={})
    say("Starting the daemon and warming up the model ...")
    with daemon.running():
        say(f"Dropping into {daemon.spool.inbox}")
        followers = list(submit.drop(daemon.spool, drops))
        is_good = follow_to_end(daemon.spool, followers, daemon.check)
    for each in followers:
        if each.song is not None and each.song.state is State.DONE:
            is_good = list_stems(daemon.spool, each.song) and is_good
    return is_good


def list_stems(spool: Spool, song: Sidecar) -> bool:
    """Say each stem's format and frames, read from the files themselves; whether the frames are the song's."""
    assert song.output is not None and song.input.frames is not None and song.input.rate is not None
    say(f"{song.input.name}: {song.input.frames} frames, {song.input.format}")
    is_right = True
    for file in song.output.files:
        path = spool.outbox / song.output.dir / file.name
        found = reader.probe(path) if path.suffix in (".m4a", ".mp4") else sndfile.probe(path)
        wanted = -(-song.input.frames * found.rate // song.input.rate)
        is_right = is_right and found.frames == wanted
        same = "the song's" if found.frames == wanted else f"NOT the song's {wanted}"
        kind = path.suffix.removeprefix(".").upper()
        say(f"  {file.stem:14}{kind} {found.subtype}, {found.rate} Hz, {found.frames} frames ({same})")
        say(f"  {'':14}{path}")
    return is_right


if __name__ == "__main__":
    with standard_streams():
        sys.exit(main())
