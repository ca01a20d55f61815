"""`unblend.Separator` as a contender, the fastest public Demucs.

It needs a newer torch than Demucs allows, and so an environment of its own, which is made from the package index, once.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.contenders.resident import Resident

from demixd.engine.models.store import Where
from demixd.errors import RefusedError

PACKAGE = "unblend==1.0.0"

ENVIRONMENT = Path(__file__).parents[1] / ".venv"
"""Git ignores it."""

MODELS = "unblend.json"
"""In the folder of models, where unblend can be given the model: `weights` writes it."""


def is_there() -> bool:
    """Whether it is installed."""
    return (ENVIRONMENT / PACKAGE).exists()


@contextlib.contextmanager
def running(folder: Path, where: Where, device: str, say: Callable[[str], None]) -> Iterator[Resident]:
    """Installed where it is not. Raises RefusedError, saying why, where it cannot be measured."""
    if not (Path(where.models) / MODELS).exists():
        raise RefusedError(f"it can be given models of one HTDemucs, and {where.name} is of another kind")
    python = str(ENVIRONMENT / "bin" / "python")
    if not is_there():
        say(f"Installing {PACKAGE} into tests/benchmarks/.venv, once: about 6 GB, most of it for GPUs ...")
        _run(sys.executable, "-I", "-m", "venv", "--clear", str(ENVIRONMENT))
        pip = ("pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--only-binary=:all:")
        _run(python, "-I", "-m", *pip, PACKAGE)
        (ENVIRONMENT / PACKAGE).touch()
    say("unblend.Separator loads.")
    words = [python, "-I", str(Path(__file__).with_name("unblend_separator.py"))]
    with Resident.running("unblend.Separator", words, folder, where, device) as resident:
        yield resident


def _run(*words: str) -> None:
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"{PACKAGE} cannot be installed: {(done.stderr.splitlines() or ['no reason'])[-1]}")
