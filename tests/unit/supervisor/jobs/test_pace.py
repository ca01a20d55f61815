"""How long songs take, and when each is done: measures by step and format, and what comes of them."""

from typing import Any

import msgspec
import pytest

from demixd.config import Config
from demixd.protocol.job import EngineFacts, Job, Reason, State, Step
from demixd.protocol.progress import Progress, Tick
from demixd.protocol.track import Track
from demixd.supervisor.jobs import pace
from demixd.supervisor.jobs.pace import Pace
from jobs import identity, job, running

SPENT = {"snapshot_s": 1.0, "decode_s": 2.0, "separate_s": 50.0, "mix_s": 1.0, "encode_s": 20.0, "publish_s": 1.0}
"""Of a song of 100 s."""


def track(seconds: float) -> Track:
    facts = {"format": "mp3", "subtype": "", "rate": 1000, "channels": 2, "song_channels": 2, "bitrate": None}
    return Track(frames=int(1000 * seconds), **facts)


def done(name: str = "song.mp3", seconds: float = 100.0, size: int = 1_000_000, **facts: Any) -> Job:
    usual = {"state": State.DONE, "reason": None, "identity": identity(size=size), "track": track(seconds)}
    return job(name, **{**usual, "timing": SPENT, **facts})


def queued(name: str = "next.mp3", size: int = 1_000_000, **facts: Any) -> Job:
    return job(name, identity=identity(size=size), **facts)


def taught(*jobs: Job) -> Pace:
    found = Pace()
    for each in jobs or (done(),):
        found.learn(each, "cpu")
    return found


def at(step: Step, fraction: float, eta_s: float | None = None) -> Tick:
    return Tick(step=step, progress=Progress(step_fraction=fraction, eta_s=eta_s), message="")


def test_the_time_is_that_of_the_whole_song() -> None:
    """What is left of the step by its worker, or by what it took before, and all steps behind it."""
    song = running("other.mp3", track=track(200.0))
    left = [
        (at(Step.DECODE, 0.5), 2.0 + 100.0 + 2.0 + 40.0 + 2.0),
        (at(Step.SEPARATE, 0.25, eta_s=35.0), 0.25 * 35.0 + 0.75 * 75.0 + 2.0 + 40.0 + 2.0),
        (at(Step.SEPARATE, 1.0, eta_s=0.0), 2.0 + 40.0 + 2.0),
        (at(Step.MIX, 0.0), 2.0 + 40.0 + 2.0),
        (at(Step.ENCODE, 0.25), 30.0 + 2.0),
        (at(Step.PUBLISH, 0.0), 2.0),
    ]
    assert [taught().left(song, tick, "cpu").eta_s for tick, _ in left] == [seconds for _, seconds in left]


def test_what_was_never_measured_is_not_known() -> None:
    """Another format, another device, another model, or no song yet: null, and no guess."""
    known = taught()
    assert Pace().left(running("a.mp3", track=track(9.0)), at(Step.SEPARATE, 0.5, 3.0), "cpu").eta_s is None
    assert known.song_s(queued("a.flac")) is None
    assert known.step_s(Step.SEPARATE, queued(), "cuda:0") is None
    other = msgspec.structs.replace(Config().options, model="other")
    assert known.step_s(Step.SEPARATE, queued(options=other), "cpu") is None
    assert known.step_s(Step.DECODE, queued(options=other), "cpu") == 2.0
    mp3 = msgspec.structs.replace(Config().options, format="mp3", quality=0)
    assert known.step_s(Step.ENCODE, queued(options=mp3), "cpu") is None


def test_a_length_comes_from_the_size() -> None:
    """Until a song is decoded, by the bytes that a second took in songs of its format."""
    known = taught(done("a.mp3"), done("b.FLAC", size=9_000_000))
    assert known.song_s(queued("c.mp3", size=500_000)) == 50.0
    assert known.song_s(queued("c.flac", size=900_000)) == pytest.approx(10.0)
    assert known.song_s(queued("c.mp3", size=500_000, track=track(7.0))) == 7.0


def test_only_songs_that_were_computed_are_measured() -> None:
    """A failed song, and one whose result was there, say nothing of the pace."""
    for facts in ({"state": State.FAILED}, {"duplicate_of": "x"}, {"track": None}):
        found = Pace()
        assert not found.learn(done(**facts), "cpu")
        assert found.measures == {}


def test_the_queue_in_a_row() -> None:
    """Each is decoded beside the one before, and separated while that is written; two are in flight at most."""
    jobs = [queued(f"{number}.mp3") for number in range(3)]
    assert list(taught().queue([], jobs, ["cpu"])) == [3 + 50 + 22, 3 + 50 + 50 + 22, 3 + 50 + 50 + 50 + 22]
    slow = taught(done(timing={**SPENT, "encode_s": 80.0}))
    assert list(slow.queue([], [*jobs, *jobs], ["cpu"])) == [3 + 50 + 82 + 82 * number for number in range(6)]


def test_the_queue_behind_songs_in_flight() -> None:
    """What they still take is counted: the model is free before the first of them is done."""
    finishing = running("a.mp3", job_id="a", step=Step.ENCODE, progress=Progress(eta_s=10.0), track=track(100.0))
    separated = running("b.mp3", job_id="b", progress=Progress(eta_s=40.0), track=track(100.0))
    assert list(taught().queue([finishing, separated], [queued()], ["cpu"])) == [40 - 22 + 50 + 22]
    begun = running("c.mp3", job_id="c", step=Step.SNAPSHOT, track=track(100.0))
    assert list(taught().queue([begun], [queued()], ["cpu"])) == [75 - 22 + 50 + 22]


def test_the_queue_of_several_workers() -> None:
    """Each song goes to the worker whose model is free first; whose song is in flight is told by the song."""
    jobs = [queued(f"{number}.mp3") for number in range(4)]
    assert list(taught().queue([], jobs, ["cpu", "cpu"])) == [75.0, 75.0, 125.0, 125.0]
    engine = EngineFacts(model="x", model_sha256="0", device="cpu", device_name="x", precision="float32", worker="2")
    other = running("b.mp3", job_id="b", progress=Progress(eta_s=40.0), track=track(100.0), engine=engine)
    assert list(taught().queue([other], jobs[:2], ["cpu", "cpu"])) == [75.0, 40 - 22 + 50 + 22]


def test_a_twin_is_done_with_the_song_in_flight() -> None:
    """It takes the result of that one, and nobody's time; with `force` it is separated like any other."""
    song = running("a.mp3", job_id="a", progress=Progress(eta_s=40.0), track=track(100.0), result_key="k")
    twin, forced = (queued(f"{force}.mp3", result_key="k", force=force) for force in (False, True))
    assert list(taught().queue([song], [twin, queued()], ["cpu"])) == [40.0, 40 - 22 + 50 + 22]
    assert list(taught().queue([song], [forced], ["cpu"])) == [40 - 22 + 50 + 22]


def test_a_place_behind_an_unknown_one_is_unknown() -> None:
    """And a song that waits for something else than its turn has none, and holds up nobody."""
    waits = queued("full.mp3", reason=Reason.NO_SPACE)
    jobs = [waits, queued("a.mp3"), queued("b.ogg"), queued("c.mp3")]
    assert list(taught().queue([], jobs, ["cpu"])) == [None, 75.0, None, None]


def test_measures_are_remembered_and_bounded() -> None:
    """A daemon that starts has those of the one before; what no daemon measures is none; a hundred are kept."""
    known = taught()
    again = Pace(dict(known.measures))
    assert again.step_s(Step.ENCODE, queued(), "cpu") == 20.0
    for noted in ("[]", '{"x": {"amount": -1, "song_s": 1}}', '{"x": {"amount": 1e300, "song_s": 1}}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(noted, type=dict[str, pace.Measure])
    for number in range(300):
        again.learn(done(f"song.{number}"), "cpu")
    assert len(again.measures) == pace.MOST
    assert again.step_s(Step.MIX, queued("x.299"), "cpu") == pytest.approx(1.0)


def test_the_latest_songs_count_most() -> None:
    """A machine that has become faster is believed after some songs; small changes are not worth noting."""
    known = taught()
    assert not known.learn(done(), "cpu")
    fast = {step: seconds / 2 for step, seconds in SPENT.items()}
    noted = [known.learn(done(timing=fast), "cpu") for _ in range(10)]
    assert noted[0] and not noted[-1]
    assert known.step_s(Step.SEPARATE, queued(), "cpu") == pytest.approx(25.0, rel=0.1)
