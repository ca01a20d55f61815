"""Who may import what: the rooms of the house, and the one rule between them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "demixd"
MODULES = {path.relative_to(ROOT / "daemon").with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

ORDER = (
    *("demixd/__main__", "demixd/__init__", "demixd/cli", "demixd/web"),
    *("demixd/api", "demixd/supervisor", "demixd/worker"),
    *(
        "demixd/pipeline",
        "demixd/engine",
        "demixd/audio",
        "demixd/client",
        "demixd/spool",
        "demixd/config",
        "demixd/protocol",
    ),
    *("demixd/errors", "demixd/version"),
)
"""Each imports only what stands to its right. Within `supervisor`, the same holds of SUPERVISOR."""

SUPERVISOR = tuple(
    f"demixd/supervisor/{name}"
    for name in (
        "service",
        "heartbeat",
        "page",
        "inbox",
        "runs",
        "jobs",
        "workers",
        "access",
        "folders",
        "locks",
        "ledger",
        "",
    )
)

LIBRARIES = {
    "torch": ("engine", "pipeline/separate", "audio/resample"),
    "demucs": ("engine",),
    "openvino": ("engine/openvino",),
    "safetensors": ("engine",),
    "huggingface_hub": ("engine/models",),
    "yaml": ("engine/models",),
    "numpy": ("engine", "pipeline", "audio"),
    "torchaudio": ("audio/resample",),
    "soundfile": ("audio",),
    "av": ("audio/ffmpeg",),
    "mutagen": ("audio/tags",),
    "watchdog": ("supervisor/inbox/watch",),
    "sqlite3": ("supervisor/ledger",),
    "systemd": ("supervisor/notify", "supervisor/journal"),
    "click": ("cli",),
    "rich": ("cli",),
    "tomli": ("config",),
    "starlette": ("web",),
    "uvicorn": ("web",),
    "segno": ("web",),
}
"""A library is imported only in these rooms."""

WORKING = ("demixd/worker", "demixd/pipeline", "demixd/audio")
"""What touches the files of a job."""

HEAVY = {"torch", "numpy", "soundfile", "av", "mutagen", "torchaudio", "demucs", "openvino", "safetensors"}


def place(module: str, order: tuple[str, ...]) -> int | None:
    """Where in `order` a module stands."""
    found = (n for n, room in enumerate(order) if module == room or module.startswith(room.rstrip("/") + "/"))
    return next(found, None)


def imports(path: Path) -> list[str]:
    """The modules that a file imports, with slashes; `from package import module` is that module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [each if each.replace(".", "/") in MODULES else str(node.module) for each in whole]
    return [name.replace(".", "/") for name in found]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_to_its_right(module: str) -> None:
    """cli -> web -> supervisor -> worker -> pipeline -> engine -> audio -> client -> spool -> config -> protocol -> errors."""
    mine = place(module, ORDER)
    assert mine is not None, "every module is in a room"
    for imported in imports(MODULES[module]):
        if not imported.startswith("demixd"):
            continue
        other = place(imported, ORDER)
        other = len(ORDER) - 1 if imported == "demixd" else other
        assert other is not None and mine <= other, f"{imported} stands to the left"
        if (within := place(module, SUPERVISOR)) is not None and imported.startswith("demixd/supervisor/"):
            inner = place(imported, SUPERVISOR)
            assert inner is not None and within <= inner, f"{imported} stands to the left"


def test_no_circle() -> None:
    """No module imports itself by way of others."""
    arrows = {name: {each for each in imports(path) if each in MODULES} for name, path in MODULES.items()}
    while leaves := {name for name, targets in arrows.items() if not targets}:
        arrows = {name: targets - leaves for name, targets in arrows.items() if name not in leaves}
    assert arrows == {}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_used_in_its_room(library: str) -> None:
    """Who wants what a library does asks the room that it belongs to."""
    allowed = tuple(f"demixd/{room}" for room in LIBRARIES[library])
    users = {name for name, path in MODULES.items() if library in {each.split("/")[0] for each in imports(path)}}
    assert {name for name in users if place(name, allowed) is None} == set()


@pytest.mark.parametrize("module", ["supervisor.service", "cli.app", "spool.documents", "config", "protocol.status"])
def test_the_light_rooms_load_nothing_heavy(module: str) -> None:
    """supervisor, cli, spool, config and protocol load neither torch nor numpy nor a codec."""
    code = f"import sys, demixd.{module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


def test_the_page_knows_only_the_files() -> None:
    """`demixd web`, all of it loaded, has nothing of the daemon in it, and no model, codec or database."""
    pytest.importorskip("uvicorn", reason="config/requirements-web.lock is not installed")
    code = "import sys, demixd.web.server, demixd.web.qr; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert (HEAVY | {"sqlite3"}) & loaded == set()
    rooms = {name.split(".")[1] for name in loaded if name.startswith("demixd.")}
    assert rooms == {"web", "client", "spool", "config", "protocol", "errors", "version"}


def test_the_page_imports_only_what_knows_the_files() -> None:
    """`web` stands beside `cli`: the daemon's rooms to its right are as far from it as those to its left."""
    allowed = tuple(f"demixd/{room}" for room in ("web", "client", "spool", "config", "protocol", "errors", "version"))
    for module in (name for name in MODULES if name.startswith("demixd/web/")):
        ours = [each for each in imports(MODULES[module]) if each.startswith("demixd")]
        assert [each for each in ours if place(each, allowed) is None] == [], module


def test_the_size_of_rooms_and_modules() -> None:
    """Rooms stay small enough to be taken in: at most 15 entries in a folder, 320 lines in a module."""
    for folder in (PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")):
        entries = [path for path in folder.iterdir() if path.name not in ("__pycache__", "__init__.py")]
        assert len(entries) <= 15, folder
    assert {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 320} == {}


READERS = {"open", "read_bytes", "write_bytes", "read_text", "write_text", "SoundFile", "memmap", "fromfile"}
"""What opens a file, given its name."""


def opens(path: Path) -> list[str]:
    """The calls in a module that open a file by its name; those of libraries get a file that is open."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    found = {ast.unparse(call): ast.unparse(call.func) for call in calls}
    library = ("Path(f'/proc/", "av.open(", "stream.codec_context.open(", "soundfile.SoundFile(file.fileno(), ")
    return [call for call, name in found.items() if name.split(".")[-1] in READERS and not call.startswith(library)]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if place(name, WORKING) is not None))
def test_a_worker_opens_no_file_by_its_name(module: str) -> None:
    """Others can put links in a share: files are opened by `spool.files.open_own` and `open_song`, which follow none."""
    assert opens(MODULES[module]) == []
