"""What a worker says of its files is not believed where it cannot be true."""

import msgspec
import pytest

from demixd.protocol.job import EngineFacts, ExtraFile, StemFile
from demixd.protocol.track import Track
from demixd.supervisor.workers.validate import doubt, doubt_of
from demixd.worker.messages import Finished
from jobs import job

ENGINE = EngineFacts(model="demo", model_sha256="0" * 64, device="cpu", device_name="", precision="float32")
FACTS = {"format": "wav", "subtype": "PCM_16", "rate": 44100, "channels": 2, "frames": 1, "peak": 0.0, "gain_db": 0.0}
PEAKS = ExtraFile(kind="peaks", name="peaks.json", bytes=3, sha256="0" * 64)


def finished(*names: str, extra: str = "peaks.json") -> Finished:
    """Vocals and instrumental under these names, and one file beside them."""
    stems = zip(("vocals", "instrumental"), names, strict=True)
    files = tuple(StemFile(stem=stem, name=name, bytes=1, sha256="0" * 64, **FACTS) for stem, name in stems)
    extras = (msgspec.structs.replace(PEAKS, name=extra),)
    return Finished(job_id="1" * 32, files=files, extras=extras, gain_db=0.0, engine=ENGINE, timing={}, warnings=())


@pytest.mark.parametrize("extra", ["../peaks.json", "/peaks.json", "", "a/../../b", "stems.json", "a//b", "a\0b"])
def test_a_file_beside_the_stems_lies_in_the_folder(extra: str) -> None:
    """Neither does it lead out of it, nor is it the manifest."""
    assert doubt(finished("a.wav", "b.wav", extra=extra)) == "a file that does not lie in its folder"
    assert doubt(finished("a.wav", "b.wav")) is None


def test_no_two_files_have_one_name() -> None:
    """A stem and what lies beside it have names of their own."""
    track = Track(
        format="wav", codec="", subtype="PCM_16", rate=44100, channels=2, song_channels=2, frames=1, bitrate=None
    )
    its = msgspec.structs.replace(job(), track=track)
    assert doubt_of(finished("a.wav", "b.wav"), its, is_stopped=False) is None
    wrong = finished("a.wav", "peaks.json")
    assert doubt_of(wrong, its, is_stopped=False) == "it gave two files one name"
