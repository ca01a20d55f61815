"""An overview in sentences and plain lines. Pure."""

from collections.abc import Iterable
from pathlib import PurePath

from demixd.client import text
from demixd.client.liveness import RUNNING, Health
from demixd.client.overview import CANNOT_SEPARATE, Overview
from demixd.errors import Code
from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.protocol.job import Reason, State
from demixd.protocol.status import DaemonStatus, InboxEntry, Paused, Sidecar, WorkerStatus
from demixd.protocol.terminal import safe
from demixd.spool.tree import OPTIONS, PAUSE, companion

FIRST = 3
"""How many of the entries that are no songs, or of alike workers, are named."""

LISTED = "`demixd status --all` lists them"

NO_SONG: dict[str, str] = {
    Kind.IGNORED: "by such a name programs and systems mark files of their own",
    Kind.NOT_AUDIO: "its name has no extension of audio: rename or convert it, if it is some",
    Kind.UNSUPPORTED: "nothing here can decode this kind of music: convert it",
    Kind.NOT_A_FILE: "it is a link, FIFO, socket or device, which is never followed or read: put the file itself there",
    Kind.RESERVED: "a folder with such a name is not looked into: rename it",
    Kind.PAUSE: "as long as it is there nothing new is begun: remove it, and the songs go on",
    Kind.MISPLACED: "only at the top of the inbox does it mean anything: put it there, or remove it",
    Kind.NO_SUCH_JOB: "it is a cancel file, and there is no song of that name",
    Kind.EXPIRED: "it is a cancel file that came before its song was made",
    Kind.ANSWERED: "it is a cancel file that was obeyed, and cannot be removed",
    Kind.LONELY_OPTIONS: "it is an option file, and its song is not there; it has to be called like the song, extension and all",
    Kind.LATE_OPTIONS: "it is an option file that came after its song was taken: it is not used",
    Kind.NOT_WALKED: "it is a folder, and [inbox] recursive is false",
    Kind.UNREADABLE_FOLDER: "it is a folder that the daemon may not list: change its owner or mode",
    Kind.OTHER_VERSION: "a newer demixd has begun with it, and this one leaves it alone",
}
"""Why an entry of the inbox is no song, by its reason."""

REMEDY: dict[str, str] = {
    Code.BAD_AUDIO: "It is not audio that can be read: convert it, and drop that.",
    Code.TRUNCATED: "It ends too early, and the rest did not come: copy it again.",
    Code.NOT_FINITE: "It holds samples that are no numbers, or beyond all measure: export it again.",
    Code.TOO_LONG: "Cut it, or have [limits] raised.",
    Code.TOO_LARGE: "Cut it, ask for fewer stems, or have [limits] raised.",
    Code.BAD_OPTIONS: "The message names the option and what it must be: drop the song again with other options.",
    Code.NO_SPACE: "Make room on the disk, then try it again.",
    Code.OUTBOX_MISSING: "Mount the outbox, then try it again.",
    Code.MODEL_MISSING: "Have the model fetched (`demixd models fetch`), then try it again.",
    Code.BAD_MODEL: "The model's files are not what was recorded: have them fetched again, then try it again.",
    Code.IO_ERROR: "Reading or writing failed in every attempt: look after the disk and the memory, then try it again.",
    Code.GAVE_UP: "The worker died over it each time: try it again when the machine has less to do.",
    Code.BAD_OUTPUT: "The stems did not pass their checks, which is a mistake of demixd's: please report it.",
    Code.INTERNAL_ERROR: "That is a mistake of demixd's, and its log has the details: please report it.",
}
"""What to do about a song that has failed, by its code."""

HELD = "If one has been started, its log says what it waits for"
"""Of a daemon that nobody hears of: it writes no heartbeat as long as its folders are missing or may be another daemon's."""

AGAIN = "begins again once a daemon runs"
"""Of a song that a daemon has left when it ended."""

WARMING = {
    "starting": "loading its model",
    "fetching": "fetching its model",
    "tuning": "looking for the fastest way to run its model, once on this machine",
}
"""What a worker is at that is not ready yet, by its state."""


def sentence(shown: Overview) -> str:
    """The daemon's health and what to do, in sentences of which the last has no full stop: facts may follow."""
    daemon = shown.daemon
    if daemon is None and shown.is_hidden:
        return "whether demixd runs on this spool is not visible to you"
    if daemon is None or shown.health is Health.NEVER_RUN:
        return f"demixd has not run on this spool yet: start it with `{shown.start}`. {HELD}"
    who = f"demixd {daemon.version}"
    match shown.health:
        case Health.ALIVE:
            return f"{who} {_doing(daemon)}"
        case Health.STOPPED:
            return f"{who} has stopped: songs wait until it is started with `{shown.start}`"
        case Health.GONE:
            # Only one that was started later can be held, and was not where this one was heard just now.
            held = f". {HELD}" if shown.is_overdue else ""
            return f"{who} is not running: its process has ended, last heard of{_age(shown)}. Start it with `{shown.start}`{held}"
        case Health.SILENT:
            return f"{who} is not running: silent for {text.ago(shown.silence_s)}. Start it. {HELD}"
    if shown.age_s is not None and shown.age_s <= daemon.interval_s:
        return f"{who} {_doing(daemon)} (last heard{_age(shown)})"
    return f"{who} was {daemon.state}{_age(shown)}{_next_sign(shown)}"


def _doing(daemon: DaemonStatus) -> str:
    """What a daemon that runs is at, and what that means for songs."""
    if daemon.paused is not None and daemon.state in ("warming", "ready"):
        return _paused(daemon.paused)
    if daemon.state == "warming" or (daemon.state == "ready" and daemon.worker.state in WARMING):
        doing = WARMING.get(daemon.worker.state, WARMING["starting"])
        return f"is {doing}: songs can be dropped, and wait for it"
    if daemon.state == "ready" and daemon.worker.state in CANNOT_SEPARATE:
        return "is running, but can separate nothing yet: songs can be dropped, and wait"
    return f"is {daemon.state}"


def _paused(paused: Paused) -> str:
    if paused.by == "file":
        running = ", and the running songs wait, too" if paused.now else ""
        return f"is paused{running}: songs can be dropped, and wait until {PAUSE} is removed from the inbox"
    until = text.hour(paused.until or "")
    return f"is paused by [schedule] hours{until and f' until {until}'}: songs can be dropped, and wait"


def is_left(song: Sidecar, shown: Overview) -> bool:
    """Whether the song's sidecar says that it runs, and nobody works at it: its daemon has ended."""
    return song.state is State.RUNNING and shown.health not in RUNNING


def _age(shown: Overview) -> str:
    return "" if shown.age_s is None else f" {text.ago(shown.age_s)} ago"


def _next_sign(shown: Overview) -> str:
    """When the next sign of life is due of a daemon that another machine may have."""
    if shown.daemon is None or shown.age_s is None:
        return ""
    due_s = shown.daemon.interval_s - shown.age_s
    doubt = f", and it probably does not run any more. {HELD}" if shown.is_overdue else ""
    return f", its next sign of life was due {text.ago(-due_s)} ago{doubt}"


def workers(daemon: DaemonStatus, *, is_able: bool) -> list[str]:
    """A sentence for each worker that can separate songs (`is_able`), or for each that cannot.

    Where there are several workers it has the number of the worker, or of all those of which the same is true.
    """
    alike: dict[str, list[WorkerStatus]] = {}
    for each in daemon.workers if len(daemon.workers) > 1 else (daemon.worker,):
        if (each.state not in CANNOT_SEPARATE) is is_able:
            alike.setdefault(_host(each) + worker(each), []).append(each)
    if len(daemon.workers) < 2:
        return [worker(each) for (each,) in alike.values()]
    return [worker(each[0], f" {_numbers(each)}{_host(each[0])}") for each in alike.values()]


def _numbers(workers: list[WorkerStatus]) -> str:
    more = f" and {len(workers) - FIRST} more" if len(workers) > FIRST else ""
    return ", ".join(each.id for each in workers[:FIRST]) + more


def _host(worker: WorkerStatus) -> str:
    """The machine of a worker that is in a cluster: there it has no process here."""
    return f" on {worker.host}" if worker.pid is None and worker.host and worker.model else ""


def worker(worker: WorkerStatus, who: str = "") -> str:
    """The model that a worker has warm, or why it has none; `who`: its number and machine, after a blank."""
    if worker.model is None:
        return f"worker{who} {worker.state}: {worker.message}".rstrip(": ")
    where = f"{worker.device} ({worker.device_name})" if worker.device_name else f"{worker.device}"
    memory = f", {text.size(worker.memory_bytes)} of memory" if worker.memory_bytes else ""
    fallback = f"; {worker.fallback}" if worker.fallback else ""
    return f"{who and f'worker{who}: '}{worker.model} on {where}, {worker.precision}{memory}{fallback}"


def trouble(shown: Overview) -> list[str]:
    """Sentences on what keeps songs from being separated, and on what else the administrator should know."""
    daemon = shown.daemon
    told = [shown.trouble] if shown.trouble else []
    if daemon is not None and shown.health in RUNNING:
        told += workers(daemon, is_able=False)
        told += [each for each in daemon.warnings if not shown.told or shown.told not in each]
    return told


def not_songs(shown: Overview) -> str:
    """How many entries of the inbox are no songs, and the first of them; empty where there are none."""
    first = ", ".join(f"{each.name} ({each.reason})" for each in shown.not_songs[:FIRST])
    more = f" and {len(shown.not_songs) - FIRST} more ({LISTED})" if len(shown.not_songs) > FIRST else ""
    return f"{_no_songs(len(shown.not_songs))}: {first}{more}" if shown.not_songs else ""


def _no_songs(count: int) -> str:
    return f"{text.some(count, 'entry')} of the inbox {'is no song' if count == 1 else 'are no songs'}"


def entry_line(entry: InboxEntry, songs: Iterable[str] = ()) -> str:
    """An entry of the inbox that is no song, and why, on one plain line; `songs` are those that there are, by name."""
    why = _misnamed(entry, songs) or NO_SONG.get(entry.reason, "a newer demixd knows why")
    return safe(f"{entry.name}: no song ({entry.reason}): {why}")


def _misnamed(entry: InboxEntry, songs: Iterable[str]) -> str:
    """What an option file that has none of their names must be called; empty for any other entry."""
    stem = entry.name.removesuffix(OPTIONS)
    if entry.reason == Kind.LONELY_OPTIONS:
        song = next((each for each in songs if each.rpartition(".")[0] == stem), "")
        return f"for {song} it must be called {companion(song, OPTIONS)}" if song else ""
    if entry.reason != Kind.NOT_AUDIO or not entry.name.lower().endswith(".json"):
        return ""
    song = entry.name[: -len(".json")]
    if kind_of_file(song.rpartition("/")[2]) is not Kind.SONG:
        return "it is no audio; an option file is called like its song, and then .job.json, such as Song.mp3.job.json"
    return f"as an option file for {song} it must be called {companion(song, OPTIONS)}"


def line(shown: Overview) -> str:
    """The overview on one plain line."""
    parts = [sentence(shown), *trouble(shown)]
    for song in shown.running:
        if is_left(song, shown):
            parts.append(f"{song.input.name} {AGAIN}")
            continue
        at = song.progress
        left = text.left(at.eta_s)
        doing = f"{text.percent(at.fraction)} {song.doing}{who(song, shown)}"
        told = (doing, text.speed(at.speed_x), left, _tag(song))
        parts.append(f"running {song.input.name} {', '.join(fact for fact in told if fact)}")
    unseen = f", {len(shown.unseen)} not seen yet" if shown.unseen else ""
    parts.append(f"{len(shown.queue)} queued, {len(shown.waiting)} not ready{unseen}")
    if shown.not_songs:
        parts.append(f"{_no_songs(len(shown.not_songs))} ({LISTED})")
    if shown.results:
        last = shown.results[0]
        parts.append(f"last: {last.input.name} {last.state}{marks(last)}")
    return safe("; ".join(part.rstrip(".") for part in parts))


def who(song: Sidecar, shown: Overview) -> str:
    """The worker that has a song, where there are several, and its machine, where that is one of a cluster."""
    if song.engine is None:
        return ""
    number = f" by worker {song.engine.worker}" if shown.daemon and len(shown.daemon.workers) > 1 else ""
    return number + (f" on {song.engine.host}" if song.engine.host else "")


def change_key(shown: Overview) -> tuple[object, ...]:
    """Everything in the plain line but speed, time left and silence: it is printed again when this has changed."""
    running = [(song.job_id, song.step, int(100 * song.progress.fraction)) for song in shown.running]
    state = (shown.daemon.state, shown.daemon.worker.state) if shown.daemon else None
    last = shown.results[0].job_id if shown.results else None
    lists = (len(shown.queue), len(shown.waiting), len(shown.unseen), len(shown.not_songs))
    return shown.health, state, running, lists, last, trouble(shown)


def song_line(song: Sidecar, shown: Overview, outbox: PurePath) -> str:
    """A song on one plain line."""
    if is_left(song, shown):
        return safe(f"{song.input.name}: {AGAIN}{facts(song)}")
    what, eta_s = [f"{song.state}" + (f" ({song.doing})" if song.doing else "")], shown.etas.get(song.job_id)
    if song.state is State.RUNNING:
        what.append(text.percent(song.progress.fraction))
        eta_s = song.progress.eta_s
    what += [text.left(eta_s), result(song, outbox) or message(song, shown)]
    return safe(f"{song.input.name}: {', '.join(filter(None, what))}{facts(song)}")


def warning_lines(song: Sidecar) -> list[str]:
    """What is to be known of the song's stems, a plain line each."""
    return [safe(f"  warning: {warning}") for warning in song.warnings]


def unseen_line(name: str) -> str:
    """A song of which there is nothing but its file, on one plain line."""
    return safe(f"{name}: waiting in the inbox, not seen yet")


def result(song: Sidecar, outbox: PurePath) -> str:
    """Where the song's result lies, and whether it was there already; empty where there is none."""
    return f"in {outbox / song.output.dir}{marks(song)}" if song.output else ""


def marks(song: Sidecar) -> str:
    """Marks, after a blank, for a song whose result is that of an earlier one, or has warnings; empty for any other."""
    told = ["made before"] if song.duplicate_of else []
    told += [text.some(len(song.warnings), "warning")] if song.warnings else []
    return f" ({', '.join(told)})" if told else ""


def facts(song: Sidecar, *, has_length: bool = True) -> str:
    """The song's length, if it is asked for, and tag, each after two blanks; empty where there is neither."""
    length = "" if song.input.duration_s is None or not has_length else f"{text.clock(song.input.duration_s)} long"
    return "".join(f"  {fact}" for fact in (length, _tag(song)) if fact)


def _tag(song: Sidecar) -> str:
    """The song's tag, told apart from our own words; empty where it has none."""
    return f"tag: {song.tag}" if song.tag else ""


def message(song: Sidecar, shown: Overview) -> str:
    """The song's message, where it says more than its state and what is said of the worker, for all songs."""
    is_of_model = shown.says_worker and song.reason in (Reason.MODEL_MISSING, Reason.NO_WORKER) and bool(song.message)
    is_said = is_of_model and any(song.message in each for each in trouble(shown))
    return "" if is_said or song.message.lower() == song.state else song.message
