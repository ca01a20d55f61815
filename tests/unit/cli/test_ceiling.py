"""The benchmark of the pipeline alone: what the kernel tells of processes, and the table."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from benchmarks.ceiling import instant, report
from benchmarks.ceiling.messages import Cost
from benchmarks.ceiling.report import OLDER, PRESENT, Ceiling, Round
from benchmarks.program import markdown

from demixd.cli.bench.report import encode
from reports import example


def test_the_bytes_that_a_process_has_written() -> None:
    """`write_bytes` is what is read, and neither what calls wrote nor what was cancelled."""
    names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
    assert instant.written_bytes("".join(f"{name}: {n}\n" for n, name in enumerate(names))) == 5


def test_a_process_has_any_name() -> None:
    """A process's parent and time are read behind a name that looks like them."""
    ticks = os.sysconf("SC_CLK_TCK")
    rest = f"7 7 7 0 -1 0 1 2 3 4 {2 * ticks} {ticks} 99 99"
    assert instant.parent_and_time(f"8 (a) S 1 (b)) R {rest}\n") == (7, 3.0)


def test_children_count_while_they_live_and_afterwards() -> None:
    """The processor's time of a child is in what was spent, and stays there once it has ended."""
    busy = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
    before, _ = instant.spent()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        living, _ = instant.spent()
    assert living > before + 0.25
    assert instant.spent()[0] > before + 0.25


def rounds(*seconds: float) -> tuple[Round, ...]:
    costs = (Cost(seconds=s, cpu_s=2 * s, written_bytes=1_000_000, timing={"decode_s": s / 4}) for s in seconds)
    return tuple(Round(format="wav", stems=("vocals", "instrumental"), cost=cost) for cost in costs)


def found(**sides: tuple[Round, ...]) -> Ceiling:
    return Ceiling(
        date="2026-01-31",
        machine=example().machine,
        song_s=120.0,
        repeat=3,
        commits=dict.fromkeys(sides, "abc"),
        rounds=sides,
    )


def test_costs_are_of_four_minutes() -> None:
    """Seconds, processors' time and bytes are scaled to four minutes of song; a median is over the rounds."""
    table = report.table(found(**{PRESENT: rounds(2.0, 1.0, 9.0)}))
    assert table.head == ("", "decode", "song to stems", "x real time", "CPU seconds", "MB written")
    assert table.rows == (("wav, 2 stems", "1.00", "4.00", "60.00", "8.00", "2.00"),)


def test_the_ratio_of_two_commits_is_of_pairs() -> None:
    """A slow round slows both sides, and does not move how many times the present's cost the older one's is."""
    table = report.table(found(**{OLDER: rounds(3.0, 30.0, 6.0), PRESENT: rounds(2.0, 20.0, 4.0)}))
    assert [row[0].removeprefix("wav, 2 stems: ") for row in table.rows] == [OLDER, PRESENT, "older / present"]
    assert table.rows[-1][1:] == ("1.50", "1.50", "", "1.50", "")


def test_a_step_that_is_gone_keeps_its_column() -> None:
    """What the older commit took for a step that the present one has no more is in the table, and has no ratio."""
    older, present = rounds(3.0), rounds(2.0)
    timing = {**older[0].cost.timing, "mix_s": 0.5}
    older = (msgspec.structs.replace(older[0], cost=msgspec.structs.replace(older[0].cost, timing=timing)),)
    table = report.table(found(**{OLDER: older, PRESENT: present}))
    assert table.head == ("", "decode", "mix", "song to stems", "x real time", "CPU seconds", "MB written")
    assert [row[2] for row in table.rows] == ["1.00", "", ""]


@pytest.mark.parametrize("of", [found(**{PRESENT: rounds(1.0)}), example()], ids=["ceiling", "demucs"])
def test_both_kinds_of_report_are_shown(of: msgspec.Struct, tmp_path: Path) -> None:
    """A file of either benchmark becomes a section of RESULTS.md."""
    (tmp_path / "found.json").write_bytes(encode(of))
    assert markdown(tmp_path / "found.json").startswith("## A | B, 1 core, 8.0 GB, no GPU\n\n- 2026-01-31; ")
