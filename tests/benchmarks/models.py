"""The folder of models that all contenders read. Only the process that makes it loads torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.engine.models.store import Where
from demixd.errors import AudioProcessingError, Code, RefusedError

STAND_IN = "htdemucs"
"""The model that random weights can replace: a random model of its architecture is as fast."""
RANDOM = "htdemucs-random"


def prepare(config: Config, name: str, folder: Path, say: Callable[[str], None], *, may_be_random: bool) -> Where:
    """Make `folder` with the model `name`, or with random weights if that is not there and `may_be_random`.

    Raises RefusedError, and AudioProcessingError as `Where.locate` does.
    """
    folder.mkdir()
    there = Where(
        name=name,
        repo=config.model.repo or None,
        models=str(config.models),
        allow_pickle=config.model.allow_pickle,
    )
    words = [str(folder)]
    try:
        there.locate()
        words.append(msgspec.json.encode(there).decode())
    except AudioProcessingError as error:
        if not may_be_random or name != STAND_IN or error.code is not Code.MODEL_MISSING:
            raise
        say(f"{error.message} Measured instead: random weights of the same architecture, which are as fast.")
        name = RANDOM
    made = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.weights", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    if made.returncode:
        raise RefusedError((made.stderr.splitlines() or ["the model could not be prepared"])[-1])
    return Where(name=name, repo=None, models=str(folder), allow_pickle=there.allow_pickle)
