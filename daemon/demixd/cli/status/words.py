"""An overview in sentences and plain lines. Pure."""

from datetime import datetime
from pathlib import PurePath

from demixd.cli import text
from demixd.cli.status.liveness import SILENT_INTERVALS, Health
from demixd.cli.status.overview import Overview
from demixd.protocol.job import State
from demixd.protocol.status import DaemonStatus, Sidecar
from demixd.terminal import safe


def sentence(shown: Overview, now: float) -> str:
    """The daemon's health. `now` is UNIX time."""
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


def running(shown: Overview) -> str:
    """The title of the running songs: a daemon that is gone has left their sidecars behind."""
    return "Running" if shown.health in (Health.ALIVE, Health.LISTENING) else "Was running"


def _age(daemon: DaemonStatus, now: float) -> str:
    """The heartbeat's age, if both clocks are right."""
    try:
        age = now - datetime.fromisoformat(daemon.updated_at).timestamp()
    except ValueError:
        return ""
    told = f"{text.ago(age)} ago"
    return told if age <= SILENT_INTERVALS * daemon.interval_s else f"{told}, and is probably not running any more"


def worker(daemon: DaemonStatus) -> str:
    """The model that the worker has warm, or why it has none."""
    worker = daemon.worker
    if worker.model is None:
        return f"worker {worker.state}: {worker.message}".rstrip(": ")
    where = f"{worker.device} ({worker.device_name})" if worker.device_name else f"{worker.device}"
    memory = f", {text.size(worker.memory_bytes)} of memory" if worker.memory_bytes else ""
    fallback = f"; {worker.fallback}" if worker.fallback else ""
    return f"{worker.model} on {where}, {worker.precision}{memory}{fallback}"


def line(shown: Overview, now: float) -> str:
    """The overview on one plain line."""
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


def change_key(shown: Overview) -> tuple[object, ...]:
    """Everything in the plain line but speed, time left and silence: it is printed again when this has changed."""
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
