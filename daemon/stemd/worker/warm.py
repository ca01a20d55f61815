"""From a model's name to an engine that has run: find it, fetch it where it may be fetched, load it, warm it up."""

from collections.abc import Callable
from pathlib import Path

from stemd.engine.engine import Engine
from stemd.engine.model import load
from stemd.errors import AudioProcessingError, Code
from stemd.models import store
from stemd.models.fetch import fetch
from stemd.models.names import PUBLISHED
from stemd.worker.messages import Warm


def warm(order: Warm, tell: Callable[[str], None]) -> Engine:
    """The engine that `order` asks for. Raises `AudioProcessingError` (MODEL_MISSING, BAD_MODEL ...)."""
    repo = Path(order.repo) if order.repo else None
    models = Path(order.models)
    try:
        files = store.locate(order.model, repo=repo, models=models, allow_pickle=order.allow_pickle)
    except AudioProcessingError as error:
        if error.code is not Code.MODEL_MISSING or repo is not None or order.model not in PUBLISHED:
            raise
        files = fetch(order.model, models, progress=lambda at: tell(str(at)))
    loaded = load(files, allow_pickle=order.allow_pickle)
    return Engine.warm(loaded.model, name=order.model, sha256=loaded.sha256, device=order.device)
