"""What status/ shows, in sentences and plain lines: for `status`, and for everything that is no terminal. Pure."""

from datetime import datetime
from pathlib import PurePath

from demixd.cli import text
from demixd.cli.status.board import SILENCES, Health, Picture
from demixd.cli.text import safe
from demixd.protocol.job import State
from demixd.protocol.status import DaemonStatus, Sidecar


def sentence(shown: Picture, now: float) -> str:
    """How the daemon is; `now` is the time of day (UNIX seconds)."""
    daemon = shown.daemon
    if daemon is None or shown.health is Health.NEVER_RUN:
        return "The daemon has never run on this spool: start it with `demixd run`."
    who = f"demixd {daemon.version}"
    match shown.health:
        case Health.ALIVE:
            return f"{who} is {daemon.state}"
        case Health.STOPPED:
            return f"{who} has stopped: songs wait until it is started"
        case Health.SILENT:
            return f"{who} is not running: silent for {text.ago(shown.silence_s)}, and was {daemon.state} before"
    return f"{who} was {daemon.state} {_age(daemon, now)}".rstrip()


def running(shown: Picture) -> str:
    """What can be said of a song that runs: a daemon that is gone has left it like that."""
    return "Running" if shown.health in (Health.ALIVE, Health.LISTENING) else "Was running"


def _age(daemon: DaemonStatus, now: float) -> str:
    """How old the heartbeat is if both clocks are right; who looks twice knows better."""
    try:
        age = now - datetime.fromisoformat(daemon.updated_at).timestamp()
    except ValueError:
        return ""
    told = f"{text.ago(age)} ago"
    return told if age <= SILENCES * daemon.interval_s else f"{told}, and is probably not running any more"


def worker(daemon: DaemonStatus) -> str:
    """What the worker has warm, or why it has nothing."""
    worker = daemon.worker
    if worker.model is None:
        return f"worker {worker.state}: {worker.message}".rstrip(": ")
    where = f"{worker.device} ({worker.device_name})" if worker.device_name else f"{worker.device}"
    memory = f", {text.size(worker.memory_bytes)} of memory" if worker.memory_bytes else ""
    fallback = f"; {worker.fallback}" if worker.fallback else ""
    return f"{worker.model} on {where}, {worker.precision}{memory}{fallback}"


def line(shown: Picture, now: float) -> str:
    """The picture on one plain line."""
    parts = [sentence(shown, now)]
    for song in shown.running:
        at = song.progress
        facts = (text.percent(at.fraction), song.doing, text.speed(at.speed_x), text.clock(at.eta_s))
        parts.append(f"{running(shown).lower()} {song.input.name} {' '.join(fact for fact in facts if fact)}")
    parts.append(f"{len(shown.queue)} queued, {len(shown.waiting)} not ready")
    if shown.results:
        parts.append(f"last: {shown.results[0].input.name} {shown.results[0].state}")
    if shown.trouble:
        parts.append(shown.trouble)
    return safe("; ".join(parts))


def gist(shown: Picture) -> tuple[object, ...]:
    """What makes a new plain line: everything in it but speed, time left and the seconds of silence."""
    running = [(song.job_id, song.step, int(100 * song.progress.fraction)) for song in shown.running]
    state = shown.daemon.state if shown.daemon else None
    last = shown.results[0].job_id if shown.results else None
    return shown.health, state, running, len(shown.queue), len(shown.waiting), last, shown.trouble


def song_line(song: Sidecar, outbox: PurePath) -> str:
    """A song on one plain line."""
    what = [f"{song.state}" + (f" ({song.doing})" if song.doing else "")]
    if song.state is State.RUNNING:
        what.append(text.percent(song.progress.fraction))
    if song.output is not None:
        what.append(f"in {outbox / song.output.dir}")
    elif song.message:
        what.append(song.message)
    return safe(f"{song.input.name}: {', '.join(what)}")
