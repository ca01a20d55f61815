"""failed/NAME.txt: why a song lies there, for whoever has nothing but the folder."""

from pathlib import Path

import pytest

from demixd.errors import Code
from demixd.supervisor.jobs.reasons import REMEDIES
from simulated import Simulated, simulated
from simulated_songs import make_song


def test_a_reason_lies_beside_its_song_and_goes_with_it(tmp_path: Path) -> None:
    """A failed and a cancelled song have a text that says so and what to do; it goes when the song is dropped again."""
    with simulated(tmp_path, inbox={"reasons": True}) as daemon:
        failed = daemon.spool / "failed"
        daemon.script.put("bad.wav", Code.BAD_AUDIO)
        make_song(daemon.inbox / "bad.wav", 0.3)
        daemon.final("bad.wav")
        daemon.hold.touch()
        (daemon.inbox / "box").mkdir()
        make_song(daemon.inbox / "box" / "long.wav", 0.3)
        daemon.until(lambda: daemon.song("box/long.wav").get("step") == "separate", "it runs")
        (daemon.inbox / "box" / "long.wav.cancel").touch()
        daemon.final("box/long.wav")
        daemon.hold.unlink()
        daemon.quiet()
        first, last = (failed / "bad.wav.txt").read_text().splitlines()
        assert first == "demixd: failed (bad-audio). The worker was told to say bad-audio."
        assert last.startswith("As it is it fails again: drop a better copy of the song, ")
        first, last = (failed / "box" / "long.wav.txt").read_text().splitlines()
        assert first == "demixd: cancelled."
        assert last == "To have the song separated after all, move it back into the inbox."
        (failed / "bad.wav").rename(daemon.inbox / "bad.wav")
        daemon.state("bad.wav", "done")
        daemon.quiet()
        assert sorted(path.name for path in failed.iterdir()) == ["box"]


@pytest.mark.parametrize("code", Code)
def test_every_error_has_a_remedy(code: Code) -> None:
    """It is one line; where the song itself is at fault it is not to be moved back as it is."""
    assert "\n" not in REMEDIES[code]
    assert ("{it} back" not in REMEDIES[code]) == (code in (Code.BAD_AUDIO, Code.NOT_FINITE, Code.TRUNCATED))


def test_a_reason_names_the_option_file(tmp_path: Path) -> None:
    """Where that is wrong it is to be corrected; else it is to be moved back with its song, whose name may be anything."""
    with simulated(tmp_path, inbox={"reasons": True}) as daemon:
        (daemon.inbox / "wrong.wav.job.json").write_text('{"format": "mpx"}')
        make_song(daemon.inbox / "wrong.wav", 0.3)
        name = "weak {it}\n\udcff.wav"
        daemon.script.put(name.replace("\udcff", "\ufffd"), Code.INTERNAL_ERROR)
        (daemon.inbox / f"{name}.job.json").write_text('{"tag": "x"}')
        make_song(daemon.inbox / name, 0.3)
        failed = daemon.spool / "failed"
        daemon.until(lambda: (failed / "wrong.wav.txt").exists() and (failed / f"{name}.txt").exists(), "both failed")
        told = (failed / "wrong.wav.txt").read_text().splitlines()
        assert told[0].startswith("demixd: failed (bad-options). The song's options cannot be used: ")
        assert told[1:] == [
            "Correct wrong.wav.job.json, which lies here too, then move it back into the inbox, and the song after it."
        ]
        told = (failed / f"{name}.txt").read_text().splitlines()
        assert len(told) == 2 and told[1].endswith(
            "move weak {it}\ufffd\ufffd.wav.job.json and it back into the inbox."
        )
        daemon.quiet()


FIRST = "move both back into the inbox, the option file first."


@pytest.mark.parametrize(
    ("after", "own", "remedy"),
    [
        (
            "move",
            True,
            f"Correct the song's option file, which lies beside it in failed/, then `demixd retry NAME`, or {FIRST}",
        ),
        (
            "keep",
            True,
            "Correct the song's option file, which lies beside it in the inbox, then `demixd retry NAME`, or touch the song.",
        ),
        (
            "move",
            False,
            "These options come from the configuration: once that is corrected, `demixd retry NAME`, or move the song back",
        ),
        (
            "keep",
            False,
            "These options come from the configuration: once that is corrected, `demixd retry NAME`, or touch the song.",
        ),
    ],
)
def test_bad_options_have_a_remedy(tmp_path: Path, after: str, own: bool, remedy: str) -> None:
    """Status, error and log say after what is wrong where to mend it, and how the song comes back."""
    with simulated(tmp_path, inbox={"after": after}) as daemon:
        if own:
            (daemon.inbox / "a.wav.job.json").write_text('{"format": "vorbis"}')
        else:
            daemon.script.put("a.wav", Code.BAD_OPTIONS)
        make_song(daemon.inbox / "a.wav", 0.3)
        song = daemon.final("a.wav")
        wrong = 'did you mean "ogg"?' if own else "The worker was told to say bad-options."
        assert f"{wrong} {remedy}" in song["message"]
        assert song["error"]["message"] == song["message"]
        assert song["message"] in daemon.log.read_text()
        if own:
            where = daemon.inbox if after == "keep" else daemon.spool / "failed"
            daemon.until(lambda: (where / "a.wav.job.json").exists() and (where / "a.wav").exists(), "it lies there")
        daemon.quiet()


def test_a_song_that_fails_again_keeps_its_options_beside_it(tmp_path: Path) -> None:
    """Where it takes its twin's place in failed/, its option file takes that of the twin's; done/ gets no pile either."""
    with simulated(tmp_path, inbox={"reasons": True}) as daemon:

        def drop(name: str, options: str, folder: str) -> list[str]:
            (daemon.inbox / f"{name}.job.json").write_text(options)
            make_song(daemon.inbox / name, 0.3)
            daemon.until(lambda: not list(daemon.inbox.iterdir()), "it is put away")
            assert (daemon.spool / folder / f"{name}.job.json").read_text() == options
            return sorted(path.name for path in (daemon.spool / folder).iterdir())

        for wrong in ('{"format": "mpx"}', '{"rate": "much"}'):
            assert drop("a.wav", wrong, "failed") == ["a.wav", "a.wav.job.json", "a.wav.txt"]
            told = (daemon.spool / "failed" / "a.wav.txt").read_text()
            assert wrong.split('"')[3] in told and "Correct a.wav.job.json, which lies here too" in told
        for tag in ("one", "two"):
            assert drop("good.wav", f'{{"tag": "{tag}"}}', "done") == ["good.wav", "good.wav.job.json"]
        daemon.quiet()


def test_reasons_of_songs_that_are_gone(tmp_path: Path) -> None:
    """Hourly those go whose song was deleted; a text of somebody else's stays, and is not written over."""
    daemon = Simulated(tmp_path, inbox={"reasons": True})
    daemon.constants["demixd.supervisor.jobs.retention:EVERY_S"] = 5.0
    try:
        daemon.start().ready()
        failed = daemon.spool / "failed"
        (failed / "mine.wav.txt").write_text("notes of mine")
        for name in ("mine.wav", "other.wav"):
            daemon.script.put(name, Code.BAD_AUDIO)
            make_song(daemon.inbox / name, 0.3)
        daemon.final("mine.wav")
        daemon.final("other.wav")
        daemon.quiet()
        assert (failed / "mine.wav.txt").read_text() == "notes of mine"
        assert (failed / "other.wav.txt").exists()
        for path in failed.glob("*.wav"):
            path.unlink()
        daemon.until(lambda: not (failed / "other.wav.txt").exists(), "the reason goes", within_s=20)
        assert [path.name for path in failed.iterdir()] == ["mine.wav.txt"]
    finally:
        daemon.end()


def test_by_default_there_are_none(tmp_path: Path) -> None:
    """Without `[inbox] reasons` failed/ holds what was dropped, and nothing else."""
    with simulated(tmp_path) as daemon:
        daemon.script.put("bad.wav", Code.BAD_AUDIO)
        make_song(daemon.inbox / "bad.wav", 0.3)
        daemon.final("bad.wav")
        daemon.quiet()
        assert [path.name for path in (daemon.spool / "failed").iterdir()] == ["bad.wav"]
