"""Who may import what: the rooms of the house, held as a table."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "demixd"
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

LIBRARIES = {
    "av": ("ffmpeg/",),
    "watchdog": ("inbox/wake",),
    "soundfile": ("sndfile", "tour", "bench/songs"),
    "torchaudio": ("engine/resample",),
    "torch": ("engine/", "steps/separate", "models/demo/", "bench/separator", "bench/weights"),
    "demucs": ("engine/", "models/demo/", "bench/separator", "bench/weights"),
    "safetensors": ("engine/model", "models/demo/", "bench/weights"),
    "openvino": ("engine/openvino",),
    "huggingface_hub": ("models/hub",),
    "yaml": ("models/bag", "models/demo/", "bench/weights"),
    "sqlite3": ("ledger",),
    "click": ("cli",),
    "rich": ("cli", "commands/view", "bench/program"),
    "systemd": ("notify", "journal"),
    "tomli": ("config",),
    "mutagen": ("tags/",),
}
"""A library is imported only in these rooms."""

PURE = (
    "job",
    "line",
    "naming",
    "obstacles",
    "options",
    "terminal",
    "typed",
    "status",
    "inbox/names",
    "steps/mix",
    "engine/segments",
    "formats",
    "dither",
    "downmix",
    "levels",
    "tags/keys",
    "tags/values",
    "truepeak",
    "errors",
    "worker/messages",
    "worker/sense",
    "commands/text",
    "commands/words",
    "commands/finding",
    "bench/measure",
    "bench/report",
    "bench/sdr",
    "bench/tables",
)
IMPURE = {"os", "time", "subprocess", "threading", "socket", "shutil", "tempfile"}
"""Files marked pure read no clock and touch no disk."""

LAYERS = (
    ("__main__", "tour"),
    ("cli", "__init__"),
    ("bench/",),
    ("service", "inprocess", "client", "checks", "commands/", "unit"),
    ("intake", "turns", "cancels", "leftovers", "recovery", "rebuild", "retention", "locks"),
    ("runner",),
    ("flight",),
    ("ahead", "landing"),
    ("ground",),
    ("capture", "publishing"),
    ("ending", "places", "snapshot", "inbox/", "worker/"),
    ("pipeline", "jobs", "results"),
    ("stems", "dress", "listening"),
    ("ledger", "line", "steps/", "status", "notify", "journal"),
    ("documents", "tags/"),
    ("engine/", "models/", "ffmpeg/", "sndfile", "spool", "trace", "parent"),
    ("below",),
    ("options",),
    (
        "sink",
        "formats",
        "containers",
        "signatures",
        "boxes",
        "mpeg",
        "ogg",
        "downmix",
        "reading",
        "levels",
        "dither",
        "truepeak",
        "config",
    ),
    ("obstacles",),
    ("job", "naming", "typed", "terminal"),
    ("track", "identity"),
    ("errors",),
)
"""Every module has a room; a module imports only from its own row and those below it."""

TORCHLESS = (
    "service",
    "cli",
    "client",
    "checks",
    "bench/program",
    "commands/watch",
    "intake",
    "runner",
    "worker/orders",
    "recovery",
    "worker/keeper",
    "worker/handle",
    "models/store",
    "engine/conversions",
    "engine/improver",
)


def imports(path: Path, *, lazily: bool = True) -> set[str]:
    """Every module that a file imports; without `lazily` only at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if lazily else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_its_doors(library: str) -> None:
    """A library is imported only where the table names it."""
    users = {name for name, path in MODULES.items() if library in {each.partition(".")[0] for each in imports(path)}}
    assert [name for name in users if not name.startswith(LIBRARIES[library])] == []


def layer(name: str) -> int | None:
    """The row of a module, or None where it has no room."""
    rows = (
        row
        for row, rooms in enumerate(LAYERS)
        for room in rooms
        if name == room or (room[-1] == "/" and name.startswith(room))
    )
    return next(rows, None)


def ours(path: Path) -> set[str]:
    """The modules of ours that a file imports."""
    names = {each.removeprefix("demixd.").replace(".", "/") for each in imports(path) if each.startswith("demixd.")}
    return {name for name in names if name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_down(name: str) -> None:
    """A module has a room, and imports nothing from above it; the package's face may show `separate_audio`."""
    row = layer(name)
    assert row is not None, f"{name} is in no row of LAYERS"
    above = {each for each in ours(MODULES[name]) if (layer(each) or 0) < row}
    assert above == set(), name


@pytest.mark.parametrize("name", PURE)
def test_pure_is_pure(name: str) -> None:
    """A pure file imports nothing that reads a clock or touches a disk."""
    assert {each.partition(".")[0] for each in imports(MODULES[name])} & IMPURE == set()


def test_a_step_imports_no_other_step() -> None:
    """Steps know nothing of each other."""
    for name, path in MODULES.items():
        if name.startswith("steps/"):
            assert [each for each in imports(path) if each.startswith("demixd.steps.")] == [], name


def reached(name: str, seen: set[str]) -> set[str]:
    """Every module of ours that is loaded when `name` is."""
    if name in seen or name not in MODULES:
        return seen
    seen.add(name)
    for each in imports(MODULES[name], lazily=False):
        if each.startswith("demixd"):
            path = each.removeprefix("demixd").removeprefix(".").replace(".", "/")
            # A package's own __init__ runs before anything in it.
            for loaded in (
                path,
                f"{path}/__init__".removeprefix("/"),
                f"{path.rpartition('/')[0]}/__init__".removeprefix("/"),
            ):
                reached(loaded, seen)
    return seen


@pytest.mark.parametrize("name", TORCHLESS)
def test_the_supervisor_never_loads_torch(name: str) -> None:
    """Nothing that these modules load loads torch, or the libraries that meet a song's bytes."""
    for each in reached(name, set()):
        loaded = {module.partition(".")[0] for module in imports(MODULES[each], lazily=False)}
        assert loaded & {"torch", "av", "mutagen"} == set(), each


def test_the_top_level_holds_what_it_should() -> None:
    """The repository's top level, and no package in systemd/."""
    known = {"README.md", "LICENSE", "pyproject.toml", "config", "daemon", "systemd", "tests"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} <= known
    assert not (ROOT / "systemd" / "__init__.py").exists()
