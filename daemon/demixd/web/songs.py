"""One song: its facts, its result, and what can be done with it, by the same files as any other program's.

Who may write to the share may have written its sidecar and its manifest: both are bounded and typed, the paths in them are
taken below their folders alone, and no link is followed.
"""

import os
import stat
from typing import Any, BinaryIO

import msgspec

from demixd.client import actions, names, words
from demixd.client.retry import AGAIN, bring_back
from demixd.errors import AudioProcessingError, RefusedError
from demixd.protocol.job import State as JobState
from demixd.protocol.result_names import MANIFEST
from demixd.protocol.status import Manifest, Sidecar
from demixd.protocol.typed import ended
from demixd.spool import documents, nofollow
from demixd.spool.tree import PRIVATE, Spool
from demixd.web import view
from demixd.web.problem import ProblemError, of_disk
from demixd.web.state import State

NOT_KNOWN = "There is no such song any more."
NO_RESULT = "The result of this song is not there any more."


class Songs:
    """Every method may wait for a disk, and raises ProblemError."""

    def __init__(self, spool: Spool, state: State) -> None:
        self._spool, self._state = spool, state

    def song(self, job_id: str) -> Sidecar:
        if (song := self._state.find(job_id)) is None:
            raise ProblemError(404, NOT_KNOWN)
        return song

    def detail(self, job_id: str) -> bytes:
        song = self.song(job_id)
        options: dict[str, Any] = {}
        if song.state is JobState.WAITING:
            try:
                options = actions.options_of(self._spool, self._name(song))
            except (OSError, AudioProcessingError):
                options = {}  # the daemon says what is wrong with them
        manifest = self._manifest(song) if song.output else None
        remedy = words.REMEDY.get(song.error.code, "") if song.error else ""
        return view.encode(view.detail(song, self._state.look()[0], manifest, options, remedy))

    def result(self, job_id: str) -> tuple[str, Manifest]:
        """The folder of a song's result, below the outbox, and its manifest."""
        song = self.song(job_id)
        manifest = self._manifest(song)
        if song.output is None or manifest is None:
            raise ProblemError(404, NO_RESULT)
        return song.output.dir, manifest

    def file(self, job_id: str, name: str) -> tuple[BinaryIO, str]:
        """A file of the song's result, open, and its type: one that the manifest lists, and no other."""
        folder, manifest = self.result(job_id)
        if name not in listed(manifest):
            raise ProblemError(404, "The result has no such file.")
        return self.open(folder, name), view.media_type(name, ((each.name, each.format) for each in manifest.files))

    def open(self, folder: str, name: str) -> BinaryIO:
        """A file of a result's folder. No link leads out of the outbox."""
        outbox = self._spool.outbox
        try:
            handle = nofollow.read_file(outbox, outbox / folder / name)
        except (OSError, ValueError) as error:
            raise ProblemError(404, NO_RESULT) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            nofollow.close(handle)
            raise ProblemError(404, NO_RESULT)
        return os.fdopen(handle, "rb")

    def _manifest(self, song: Sidecar) -> Manifest | None:
        """The manifest of a song that is done; None where its result has gone."""
        if song.state is not JobState.DONE or song.output is None or PRIVATE in song.output.dir.split("/"):
            return None
        try:
            with self.open(song.output.dir, MANIFEST) as file:
                data = file.read(documents.LARGEST + 1)
        except (ProblemError, OSError):
            return None
        if len(data) > documents.LARGEST:
            return None
        try:
            return msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _name(self, song: Sidecar) -> str:
        try:
            return names.below_inbox(self._spool, names.name_of(song))
        except RefusedError as error:
            raise ProblemError(404, NOT_KNOWN) from error

    def cancel(self, job_id: str) -> str:
        song = self.song(job_id)
        if song.ended:
            raise ProblemError(409, "It is over already: there is nothing to stop.")
        try:
            actions.cancel(self._spool, self._name(song))
        except OSError as error:
            raise of_disk(error, song.input.name) from error
        return "asked to stop"

    def again(self, job_id: str) -> str:
        song = self.song(job_id)
        if song.state not in AGAIN:
            raise ProblemError(409, "It has neither failed nor been cancelled.")
        try:
            return bring_back(self._spool, self._name(song), song)
        except RefusedError as error:
            raise ProblemError(409, _sentence(str(error))) from error
        except OSError as error:
            raise of_disk(error, song.input.name) from error

    def set_priority(self, job_id: str, priority: int) -> str:
        song = self.song(job_id)
        if song.state is not JobState.WAITING:
            raise ProblemError(409, "It does not wait any more.")
        try:
            actions.set_options(self._spool, self._name(song), {"priority": priority})
        except RefusedError as error:
            raise ProblemError(409, _sentence(str(error))) from error
        except AudioProcessingError as error:
            raise ProblemError(409, error.message) from error
        except OSError as error:
            raise of_disk(error, song.input.name) from error
        return "asked for another place in the queue"

    def pause(self, *, now: bool) -> str:
        try:
            actions.pause(self._spool, now=now)
        except OSError as error:
            raise of_disk(error, "the inbox") from error
        return "paused"

    def go_on(self) -> str:
        try:
            actions.go_on(self._spool)
        except OSError as error:
            raise of_disk(error, "the inbox") from error
        return "goes on"


def listed(manifest: Manifest) -> list[str]:
    """The names of the files that a result has, but those that no daemon gives: they would lead elsewhere, here or in a ZIP."""
    names = dict.fromkeys([*(each.name for each in manifest.files), *(each.name for each in manifest.extras)])
    return [name for name in names if not name.startswith("/") and ".." not in name.split("/") and "\\" not in name]


def _sentence(text: str) -> str:
    return ended(f"{text[:1].upper()}{text[1:]}")
