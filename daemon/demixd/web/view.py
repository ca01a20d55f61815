"""What the page is told, as JSON: every text in it is harmless on a page and in a terminal alike. Pure.

Names, messages and tags are what others have written. Characters in them that would change the direction of what follows, or
that nobody sees, are U+FFFD, as the command line shows them; the page puts texts where no markup is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from demixd.client import text, words
from demixd.client.liveness import RUNNING
from demixd.client.overview import Overview
from demixd.client.retry import AGAIN
from demixd.protocol.job import State
from demixd.protocol.pages.player import TYPES
from demixd.protocol.result_names import PEAKS
from demixd.protocol.status import Manifest, Sidecar
from demixd.protocol.terminal import safe

MOST = 100
"""Rows of a list that are told at once: there may be 10,000 songs."""

LAST = 5
"""Results that are shown beside what goes on."""

ANY = "application/octet-stream"


def encode(document: Any) -> bytes:
    """`document` as JSON, with every text in it made harmless."""
    return msgspec.json.encode(_harmless(msgspec.to_builtins(document)))


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return "\n".join(map(safe, value.split("\n")))
    if isinstance(value, dict):
        return {key: _harmless(each) for key, each in value.items()}
    return [_harmless(each) for each in value] if isinstance(value, list) else value


def now(shown: Overview, *, is_paused: bool) -> dict[str, Any]:
    """The daemon, the songs that run, and the last results. `is_paused`: whether the inbox has the file for it."""
    daemon = shown.daemon if shown.health in RUNNING else None
    paused = daemon.paused if daemon else None
    return {
        "health": {
            "sentence": words.sentence(shown).rstrip(".") + ".",
            "mood": mood(shown, is_paused=is_paused or paused is not None),
            "trouble": [each.rstrip(".") + "." for each in words.trouble(shown)],
            "workers": words.workers(daemon, is_able=True) if daemon else [],
        },
        "pause": {
            "file": is_paused,
            "by": paused.by if paused else None,
            "until": text.hour(paused.until or "") if paused else "",
            "now": paused.now if paused else False,
        },
        "running": [row(song, shown) for song in shown.running],
        "last": [row(song, shown) for song in shown.results[:LAST]],
        "counts": shown.counts,
        "no_songs": [
            {"name": each.name, "why": words.NO_SONG.get(each.reason, "a newer demixd knows why")}
            for each in shown.not_songs[:MOST]
        ],
        "no_songs_total": len(shown.not_songs),
    }


def mood(shown: Overview, *, is_paused: bool) -> str:
    """The daemon's health in a word: `well`, `paused`, `busy` (it gets ready), or `ill`."""
    if not shown.is_well:
        return "ill"
    if is_paused:
        return "paused"
    is_warming = shown.daemon is not None and shown.daemon.worker.state in words.WARMING
    return "busy" if is_warming else "well"


def queue(shown: Overview) -> dict[str, Any]:
    """The songs that wait, those in the queue first, and those that no daemon has seen."""
    return {
        "queue": [row(song, shown) for song in shown.queue[:MOST]],
        "queue_total": len(shown.queue),
        "waiting": [row(song, shown) for song in shown.waiting[:MOST]],
        "waiting_total": len(shown.waiting),
        "unseen": list(shown.unseen[:MOST]),
        "unseen_total": len(shown.unseen),
    }


def row(song: Sidecar, shown: Overview) -> dict[str, Any]:
    """One song in a list."""
    is_left = words.is_left(song, shown)
    runs = song.state is State.RUNNING and not is_left
    return {
        "id": song.job_id,
        "name": song.input.name,
        "state": song.state,
        "step": song.step if runs else None,
        "reason": song.reason,
        "message": words.AGAIN if is_left else words.message(song, shown),
        "fraction": song.progress.fraction if runs else None,
        "eta_s": song.progress.eta_s if runs else shown.etas.get(song.job_id),
        "speed": text.speed(song.progress.speed_x) if runs else "",
        "duration_s": song.input.duration_s,
        "tag": song.tag,
        "since": song.state_since,
        "code": song.error.code if song.error else None,
        "warnings": len(song.warnings),
        "made_before": song.duplicate_of is not None,
        "can_cancel": not song.ended,
        "can_come_back": song.state in AGAIN,
    }


def found(songs: Sequence[Sidecar], shown: Overview, start: int) -> dict[str, Any]:
    """A page of the songs that a search has found."""
    rows = [row(song, shown) for song in songs[start : start + MOST]]
    return {"songs": rows, "total": len(songs), "start": start, "counts": shown.counts}


def detail(
    song: Sidecar, shown: Overview, manifest: Manifest | None, options: Mapping[str, Any], remedy: str
) -> dict[str, Any]:
    """All that is told of one song; `options` are those of its option file, where it waits."""
    facts = row(song, shown)
    facts["error"] = song.error and {"message": song.error.message, "detail": song.error.detail, "remedy": remedy}
    facts["warning_texts"] = list(song.warnings)
    profile, chosen = song.options.get("profile"), song.options.get("stems")
    facts["profile"] = profile if isinstance(profile, str) else None
    facts["stems"] = [each for each in chosen if isinstance(each, str)] if isinstance(chosen, list) else None
    facts["priority"] = options.get("priority", 0) if song.state is State.WAITING else None
    facts["engine"] = song.engine and f"{song.engine.model} on {song.engine.device_name or song.engine.device}"
    facts["fallback"] = song.engine.fallback if song.engine else None
    facts["result"] = result(song.job_id, manifest) if manifest else None
    return facts


def result(job_id: str, manifest: Manifest) -> dict[str, Any]:
    """A result as the player takes it, and what else lies beside the stems."""
    stems = [
        {
            "name": each.stem,
            "label": each.stem,
            "file": each.name,
            "url": url(job_id, each.name),
            "type": TYPES.get(each.format, ANY),
            "bytes": each.bytes,
            "silent": bool(each.sound and each.sound.silent),
        }
        for each in manifest.files
    ]
    extras = [
        {"kind": each.kind, "file": each.name, "url": url(job_id, each.name), "bytes": each.bytes}
        for each in manifest.extras
    ]
    peaks = next((each["url"] for each in extras if each["kind"] == "peaks"), None)
    return {
        "stems": stems,
        "extras": extras,
        "peaks": peaks,
        "zip": f"/songs/{job_id}/all.zip",
        "rate": manifest.rate,
        "frames": manifest.frames,
        "channels": manifest.channels,
    }


def url(job_id: str, name: str) -> str:
    """Where a file of the song's result is had; in ASCII, so that the name is exact."""
    return f"/songs/{job_id}/files/{quote(name)}"


def media_type(name: str, formats: Iterable[tuple[str, str]]) -> str:
    """The type of a result's file; `formats` are those of the stems, by name. Anything that is no sound is only to be kept."""
    if name.rpartition("/")[2] == PEAKS:
        return "application/json"
    return TYPES.get(dict(formats).get(name, ""), ANY)
