"""Whatever others write, what reads it says what is wrong with it: by hypothesis, and by atheris, which looks for new ways."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as some
from msgspec import inspect

from daemons import ROOT
from demixd import config
from demixd.config.sections import Inbox, Limits, Model, Paths
from demixd.protocol.options import Defaults, Own
from demixd.worker import messages
from fuzzing import TARGETS
from mutants import originals

TRIES = 60
"""By hypothesis, for each target, every day."""

RUNS = {"options": 60_000, "config": 8_000, "messages": 60_000, "names": 15_000}
"""By atheris, for each target, every day; what is not named has 15,000."""

LIBRARY = "atheris has wheels for Linux on x86-64 only: pip install atheris"

# ---- what has the right shape, more or less

VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(max_size=20)
    | some.sampled_from(["source", "demo", "{stem}.{ext}", "../{stem}.{ext}", "vocals", 1e400, 2**63, "\ud800"]),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def keys_of(*kinds: type[msgspec.Struct]) -> list[str]:
    return [field.name for kind in kinds for field in msgspec.structs.fields(kind)]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def as_toml(sections: dict[str, dict[str, Any]]) -> bytes:
    """TOML has no null, and spells strings, lists and tables much as JSON does."""
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines).encode("utf-8", "replace")


OPTIONS = some.dictionaries(some.sampled_from(keys_of(Own, Defaults)) | some.text(max_size=5), VALUES, max_size=6)
SECTIONS = some.dictionaries(
    some.sampled_from([*keys_of(config.Config), "profiles.sub"]),
    some.dictionaries(
        some.sampled_from(keys_of(Paths, Inbox, Model, Defaults, Limits)),
        VALUES,
        max_size=5,
    ),
    max_size=4,
)


def spoken(kind: inspect.Type) -> some.SearchStrategy[Any]:
    """What a message's field can hold, and at times cannot."""
    match kind:
        case inspect.StructType(cls=cls, fields=fields, tag=tag):
            made = {field.encode_name: spoken(field.type) for field in fields}
            extra = {"type": some.just(tag)} if tag is not None else {}
            return some.fixed_dictionaries(made | extra) | (VALUES if cls is None else some.nothing())
        case inspect.UnionType(types=types):
            return some.one_of(*map(spoken, types))
        case inspect.EnumType(cls=cls):
            return some.sampled_from([each.value for each in cls])
        case inspect.IntType():
            return some.integers() | some.integers(0, 96_000)
        case inspect.FloatType():
            return some.floats(0, 1) | some.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            return some.text(max_size=10)
        case inspect.VarTupleType(item_type=item):
            return some.lists(spoken(item), max_size=3)
        case inspect.DictType(value_type=value):
            return some.dictionaries(some.text(max_size=5), spoken(value), max_size=3)
        case inspect.BoolType():
            return some.booleans()
    return some.none()


def shaped() -> dict[str, some.SearchStrategy[bytes]]:
    return {
        "options": OPTIONS.map(as_json),
        "config": SECTIONS.map(as_toml),
        "messages": spoken(inspect.type_info(messages.FromWorker)).map(lambda value: as_json(value) + b"\n"),
    }


@pytest.mark.parametrize("target", TARGETS)
def test_anything_has_an_answer(target: str, day: int, record_property: Callable[[str, object], None]) -> None:
    """What has the right shape and wrong values in it, and any bytes at all, are taken or refused in the way that is said."""
    count = 0

    def attempt(data: bytes) -> None:
        nonlocal count
        count += 1
        TARGETS[target](data)

    strategy = shaped().get(target, some.nothing()) | some.binary(max_size=400)
    tried = given(strategy)(attempt)
    seeded(day)(settings(max_examples=TRIES, deadline=None, database=None)(tried))()
    assert count >= TRIES // 2
    record_property("fuzz executions", count)


# ---- guided by what is reached


def corpus(folder: Path, target: str) -> Path:
    """What to begin with: something good of each kind."""
    begin = folder / "corpus"
    begin.mkdir()
    audio = {"containers", "edges", "mpeg", "ogg"}
    if target in audio:
        for name, data in originals(folder).items():
            (begin / name).write_bytes(data[:4000])
    elif target == "config":
        (begin / "demixd.toml").write_bytes((ROOT / "config" / "demixd.toml").read_bytes())
    elif target == "options":
        (begin / "all.json").write_bytes(as_json(msgspec.to_builtins(Defaults())))
    elif target == "messages":
        (begin / "fetching").write_bytes(b'{"type":"fetching","message":"x"}')
        (begin / "began").write_bytes(b'{"type":"began","job_id":"x","step":"mix"}')
    else:
        (begin / "name").write_bytes("Söng (2).flac".encode())
    return begin


def guided(folder: Path, target: str, seed: int, runs: int) -> int:
    """Runs of a target by atheris, in a process of its own; none of them found a fault."""
    if find_spec("atheris") is None:
        pytest.skip(f"{LIBRARY} (this is {platform.machine()}, Python {platform.python_version()})")
    program = [sys.executable, str(ROOT / "tests" / "support" / "sounds" / "guided.py"), target]
    limits = [f"-runs={runs}", f"-seed={seed}", "-timeout=60", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/"]
    done = subprocess.run(
        [*program, *limits, str(corpus(folder, target))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    for fault in folder.glob("*-*"):
        if fault.is_file():
            said += (
                f"\nrepeat with: tests/support/sounds/guided.py {target} FILE, where FILE holds {fault.read_bytes()!r}"
            )
    assert done.returncode == 0, said[-6000:] + done.stdout.decode(errors="replace")[-3000:]
    reached = re.findall(r"cov: (\d+)", said)
    assert reached, said[-2000:]
    assert int(reached[-1]) > 12, said[-2000:]  # it sees the code that it is to go through
    return runs


@pytest.mark.parametrize("target", TARGETS)
def test_a_guided_search(target: str, tmp_path: Path, day: int, record_property: Callable[[str, object], None]) -> None:
    """Thousands of inputs, each made of one that has reached something new, find nothing that is not answered."""
    record_property("fuzz executions", guided(tmp_path, target, day, RUNS.get(target, 15_000) // 8))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_long_guided_search(
    target: str, tmp_path: Path, day: int, record_property: Callable[[str, object], None]
) -> None:
    """The same, a hundred times as long."""
    record_property("fuzz executions", guided(tmp_path, target, day + 1, RUNS.get(target, 15_000) * 30))


# ---- what they have found


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": ' + b"[" * 100_000,
        b'{"type": "fetching", "message": "\xff"}',
        b'{"type":"decoded","job_id":"x","track":{"format":"wav","subtype":"","rate":0,"channels":2,"song_channels":2,'
        b'"frames":9,"bitrate":null}}',
    ],
    ids=["deep", "no-text", "rate-of-nothing"],
)
def test_a_line_that_once_was_believed(line: bytes) -> None:
    """Lines that ended the thread that listens, or the daemon, are refused."""
    TARGETS["messages"](line)
