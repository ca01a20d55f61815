"""What `daemon/try` shows: a daemon on a throw-away spool, songs dropped as any program would, their stems listed."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from demixd import config as configuration
from demixd.audio import sndfile
from demixd.audio.ffmpeg import reader
from demixd.cli import client
from demixd.cli.follow import POLL_S, Follower
from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.protocol.result_names import numbered
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool
from demixd.terminal import safe

START_S = 180.0
"""A cold disk can take this long to bring up torch."""


def main() -> int:
    """Show it; 0 only if every song is done."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemon is stopped on the way out
    folder = Path(tempfile.mkdtemp(prefix="demixd-try-"))
    settings = folder / "demixd.toml"
    settings.write_text(
        f'[paths]\nspool = "{folder}/spool"\nstate = "{folder}/state"\n[model]\nname = "demo"\n'
        "[inbox]\nsettle = 1.0\n[status]\nheartbeat_s = 1.0\n",
        encoding="utf-8",
    )
    (folder / "spool").mkdir()
    spool = Spool(configuration.load(settings))
    songs = [Path(argument) for argument in sys.argv[1:]] or [_make_song(folder)]
    print(
        "The demo model proves that everything works. It is not for music: real models come with `demixd models fetch`."
    )
    log = folder / "daemon.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "demixd", "--config", str(settings), "run"], stdout=output, stderr=output
        )
        try:
            _await_ready(spool, daemon, log)
            done = [_separate(spool, song, daemon) for song in songs]
        except KeyboardInterrupt:
            return 130
        finally:
            daemon.terminate()
            daemon.wait(timeout=20)
    print(f"Everything is in {folder}; delete it when you have seen enough.")
    return 0 if all(done) else 1


def _make_song(folder: Path) -> Path:
    """Ten seconds of synthetic music."""
    from demixd.engine.models.demo.songs import make_song

    print("No song was given, so a synthetic one is made: drums, bass, keys and something like a voice.")
    stems = make_song(seed=7, seconds=10.0)
    path = folder / "Synthetic Song.wav"
    soundfile.write(path, np.sum(list(stems.values()), axis=0).T, 44100, subtype="PCM_16")
    return path


def _await_ready(spool: Spool, daemon: subprocess.Popen[bytes], log: Path) -> None:
    print("Starting the daemon and warming up the model ...", flush=True)
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        if daemon.poll() is not None:
            break
        state = client.daemon(spool)
        if state and state["state"] == "ready":
            return
        time.sleep(0.2)
    sys.exit("The daemon did not start:\n" + log.read_text(errors="replace")[-2000:])


def _separate(spool: Spool, song: Path, daemon: subprocess.Popen[bytes]) -> bool:
    """Drop one song, follow its sidecar, list its stems; whether it is done."""
    if (kind := kind_of_file(song.name)) is not Kind.SONG:
        print(f"  {song.name}: {kind}: the daemon would leave it where it is")
        return False
    name, number = song.name, 1
    while spool.sidecar(name).exists():
        number += 1
        name = numbered(song.name, number)
    follower = Follower(spool, name)
    client.drop(spool, song, name)
    shown = ("", "")
    while not follower.ended:
        if daemon.poll() is not None:
            sys.exit("The daemon stopped.")
        if follower.refresh() and (last := follower.song) is not None:
            line = safe(f"  {name}: {last.state}, {last.message or last.doing}")
            if sys.stdout.isatty():
                print(f"\r{line:<100.100}", end="", flush=True)
            elif (last.state, last.doing) != shown:
                print(line, flush=True)
            shown = (last.state, last.doing)
        time.sleep(POLL_S)
    print()
    if follower.song is None or follower.song.output is None:
        print(safe(f"  {follower.result(spool)}"))
        return False
    return _list(spool, follower.song)


def _list(spool: Spool, sidecar: Sidecar) -> bool:
    """Every stem with its format and frames, read from the files themselves; whether the frames are the song's."""
    assert sidecar.output is not None
    folder = spool.outbox / sidecar.output.dir
    song = sidecar.input
    assert song.frames is not None
    assert song.rate is not None
    print(safe(f"{song.name}: {song.frames} frames, {song.format}"))
    right = True
    for file in sidecar.output.files:
        path = folder / file.name
        found = reader.glance(path) if path.suffix in (".m4a", ".mp4") else sndfile.glance(path)
        wanted = -(-song.frames * found.rate // song.rate)
        right = right and found.frames == wanted
        same = "the song's" if found.frames == wanted else f"NOT the song's {wanted}"
        kind = path.suffix.removeprefix(".").upper()
        print(f"  {file.stem:14}{kind} {found.subtype}, {found.rate} Hz, {found.frames} frames ({same})")
        print(f"  {'':14}{path}")
    return right


if __name__ == "__main__":
    sys.exit(main())
