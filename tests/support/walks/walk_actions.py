"""What can happen in a random walk: the ways in which a song comes, and all else that is done. Each says what it did."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demixd.spool.tree import CANCEL, companion

if TYPE_CHECKING:
    from walk import Walk

NAMES = (
    *("one.wav", "two.wav", "three.flac", "four.mp3", "five.ogg", "Six (2).wav", "Ünï çødé ♫.wav", "a.b.c.flac"),
    *(
        "karaoke/one.wav",
        "karaoke/deep/er/two.flac",
        "one/one.wav",
        os.fsdecode(b"stray \xff byte.wav"),
        "x" * 150 + ".wav",
    ),
)

OTHERS = ("notes.txt", "film.mid", "half.wav.part", ".hidden.wav", "folder.json/", "@eaDir/", "lonely.wav.job.json")

# ---- ways for a song to come: each gives what the file is in the end


def by_rename(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    part = path.with_name(f".{walk.steps}.part")
    part.write_bytes(data)
    found = part.stat()
    part.rename(path)
    return found


def moved(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    """From elsewhere, with a time of long ago."""
    source = walk.folder / "moved"
    source.write_bytes(data)
    ago = time.time_ns() - walk.random.randrange(10**9, 10**17)
    os.utime(source, ns=(ago, ago))
    found = source.stat()
    source.rename(path)
    return found


def linked(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    source = walk.folder / f"linked-{walk.steps}"
    source.write_bytes(data)
    found = source.stat()
    path.unlink(missing_ok=True)
    os.link(source, path)
    source.unlink()
    return found


def copied(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        return os.fstat(file.fileno())


def slowly(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    """Written in place, with a pause that is longer than the settle time."""
    with path.open("wb") as file:
        for start in range(0, len(data), len(data) // 2 + 1):
            file.write(data[start : start + len(data) // 2 + 1])
            file.flush()
            walk.sleep(0.3)
        return os.fstat(file.fileno())


def downloaded(walk: "Walk", data: bytes, path: Path) -> os.stat_result:
    """As browsers do: an empty file has the name until another one, which grows beside it, is renamed to it."""
    path.touch()
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data[: len(data) // 2])
    walk.sleep(0.3)
    part.write_bytes(data)
    found = part.stat()
    part.rename(path)
    return found


WAYS: dict[str, Callable[["Walk", bytes, Path], os.stat_result]] = {
    "by rename": by_rename,
    "moved": moved,
    "linked": linked,
    "copied": copied,
    "slowly": slowly,
    "downloaded": downloaded,
}
IN_PLACE = ("copied", "slowly")


# ---- what else happens; "" where it cannot happen just now


def drop(walk: "Walk") -> str:
    if not walk.inbox_is_there:
        return ""
    name = walk.random.choice(NAMES)
    song, kind = walk.new_song(name), "good"
    if walk.random.random() < 0.2:
        kind = walk.spoiled(song)
    else:
        walk.bank.append(song)
    return walk.arrive(song, name, kind)


def drop_duplicate(walk: "Walk") -> str:
    """What was dropped before, under the same name or another."""
    if not (walk.inbox_is_there and walk.bank):
        return ""
    song = walk.random.choice(walk.bank[-8:])
    name = walk.random.choice([name for name in NAMES if name.endswith(song.suffix)])
    return walk.arrive(song, name, "good")


def drop_again(walk: "Walk") -> str:
    """A new song under a name that is in use."""
    names = [drop.name for drop in walk.model.open]
    if not (walk.inbox_is_there and names):
        return ""
    name = walk.random.choice(names)
    song = walk.new_song(name)
    walk.bank.append(song)
    return walk.arrive(song, name, "good")


def delete(walk: "Walk") -> str:
    names = list(walk.model.current)
    if not (walk.inbox_is_there and names):
        return ""
    name = walk.random.choice(names)
    try:
        (walk.daemon.inbox / name).unlink()
    except FileNotFoundError:
        return ""  # it is done, and its original has been put away: it is not the user's to delete
    walk.model.delete(name)
    return f"{name!r} is deleted"


def cancel(walk: "Walk") -> str:
    if not walk.inbox_is_there:
        return ""
    names = [drop.name for drop in walk.model.open] or NAMES
    name = walk.random.choice(names if walk.random.random() < 0.8 else NAMES)
    path = walk.daemon.inbox / companion(name, CANCEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    sidecar = walk.daemon.song(name)
    path.touch()
    walk.model.cancel(name, sidecar)
    return f"a cancel for {name!r}, which is {sidecar.get('state')}, {sidecar.get('job_id')}"


def cancel_all(walk: "Walk") -> str:
    if not walk.inbox_is_there:
        return ""
    (walk.daemon.inbox / CANCEL).touch()
    walk.model.cancel_all()
    return "a bare cancel"


def clutter(walk: "Walk") -> str:
    """Something that is no song, or no more."""
    name = walk.random.choice(OTHERS)
    path = walk.daemon.inbox / name
    if not walk.inbox_is_there:
        return ""
    if path.exists():
        path.rmdir() if name.endswith("/") else path.unlink()
        return f"{name} goes"
    path.mkdir() if name.endswith("/") else path.write_text("{}")
    return f"{name} comes"


def take(walk: "Walk") -> str:
    """The consumer takes a result away."""
    with walk.eyes.lock:
        if not walk.eyes.results or walk.daemon.outbox in walk.away:
            return ""
        place = walk.random.choice(sorted(walk.eyes.results))
        walk.eyes.take(place)
    return f"{place.name!r} is taken away"


def send_away(walk: "Walk") -> str:
    folder = walk.random.choice(walk.may_go)
    if folder in walk.away:
        return ""
    with walk.eyes.lock:
        folder.rename(walk.away_from(folder))
    walk.away[folder] = walk.random.randint(2, 5)
    return f"{folder.name} goes away"


def fill(walk: "Walk") -> str:
    return walk.fill()


def hold(walk: "Walk") -> str:
    """The fake worker stays where it is, or goes on."""
    path = walk.folder / walk.random.choice(("hold", "hold", "hold-encode", "hold-ahead", "deaf"))
    if path.exists():
        path.unlink()
        return f"no {path.name} any more"
    path.touch()
    return path.name


def kill_worker(walk: "Walk") -> str:
    if not (walk.is_up and walk.kill_worker()):
        return ""
    walk.model.kill()
    return "the worker is killed"


def end_daemon(walk: "Walk") -> str:
    """Killed, or stopped; and started at once, or later."""
    if not walk.is_up:
        walk.daemon.start()
        return "the daemon is started"
    if walk.random.random() < 0.6:
        walk.daemon.end()
        walk.model.kill()
        told = "the daemon is killed"
    else:
        walk.stop()
        told = "the daemon is stopped"
    if walk.random.random() < 0.5:
        walk.daemon.start()
        told += " and started"
    return told


def reload(walk: "Walk") -> str:
    """Another configuration."""
    if walk.is_up and not walk.is_listening():
        return ""  # which one it has read nobody knows, and a signal might end it
    walk.model.go_by(walk.random.choice(("move", "keep", "delete")))
    walk.stems = walk.random.choice((["vocals"], ["vocals", "instrumental"], ["drums", "no_drums"]))
    walk.configured()
    if walk.is_up:
        walk.reload()
    return f"after = {walk.model.after}, stems = {walk.stems}"


def pause(walk: "Walk") -> str:
    walk.sleep(walk.random.choice((0.3, 0.6, 1.2)))
    return "nothing"


ACTIONS: tuple[tuple[int, Callable[["Walk"], str]], ...] = (
    (30, drop),
    (8, drop_duplicate),
    (8, drop_again),
    (7, delete),
    (10, cancel),
    (2, cancel_all),
    (4, clutter),
    (5, take),
    (3, send_away),
    (3, fill),
    (8, hold),
    (3, kill_worker),
    (4, end_daemon),
    (3, reload),
    (8, pause),
)
