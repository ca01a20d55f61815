"""`separate_audio`: one song in the caller's process, by the same functions as in the daemon's worker."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from demixd import config
from demixd.audio.budget import Budget
from demixd.audio.pcm import Shelf
from demixd.engine import host
from demixd.engine.engine import Engine
from demixd.engine.models import records
from demixd.engine.models.catalog import Demand
from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.pipeline import decoder
from demixd.pipeline.song import Observer, Order, run
from demixd.protocol import devices
from demixd.protocol.options import Options
from demixd.protocol.progress import Throttle
from demixd.spool.files import HIDDEN, sha256_of
from demixd.spool.tree import OUT, TMP
from demixd.worker.messages import Warm
from demixd.worker.warm import warm

STATUS_S = 0.5
"""Seconds between two status strings, at least."""


def separate_audio(
    input_path: str | Path,
    song_dir: str | Path,
    status_callback: Callable[[str], None] | None = None,
    stop_event: threading.Event | None = None,
) -> bool:
    """Separate the song at `input_path`; its stems go directly into `song_dir`, which is made where it is missing.

    `status_callback` gets strings such as `Separating: Model 1/1 (Overall 42.0%)`, at most two a second. The configuration
    is the daemon's; the model stays loaded between calls. Returns True; raises `StopProcessingError` once `stop_event`
    is set, `AudioProcessingError` where the song cannot be separated, `ConfigError` for a bad configuration.
    """
    settings = config.load()
    throttle = Throttle(STATUS_S)

    def tell(text: str, _fraction: float) -> None:
        if status_callback is not None and throttle.passes(time.monotonic()):
            status_callback(text)

    def check() -> None:
        if stop_event is not None and stop_event.is_set():
            raise StopProcessingError("stopped by stop_event")

    separate(settings, settings.options, Path(input_path), Path(song_dir), tell, check)
    return True


def separate(
    settings: config.Config,
    options: Options,
    song: Path,
    folder: Path,
    tell: Callable[[str, float], None],
    check: Callable[[], None],
) -> list[Path]:
    """The files that `song` becomes, in `folder`, by `options`; `tell` gets what is done, and the share of it, 0 to 1.

    `check` raises to stop, in which case nothing is in `folder`. Raises as `separate_audio` does.
    """
    check()
    try:
        seed = _seed(song)
    except OSError as error:
        raise _refused(error) from error
    tell("Loading the model", 0.0)
    demand = Demand.of(options.model, options.stems)
    engine = _engine(
        _with_own_folders(Warm.of(settings, demand, devices.all_of(settings.model.device)[0]), settings.state)
    )
    observer = Observer(
        check=check, decoded=lambda _: None, progressed=lambda tick: tell(tick.message, tick.progress.fraction)
    )
    made = []
    with _made(folder), tempfile.TemporaryDirectory(prefix=HIDDEN, dir=folder) as work:
        order = _order(song, Path(work), options, settings.limits.max_duration_s, seed)
        budget = Budget(host.sound_bytes(settings.limits.memory_bytes))
        try:
            with Shelf(budget, (order.tmp,)) as shelf:
                result = run(order, engine, shelf, observer, {})
        finally:
            decoder.close()
        check()
        for file in result.files:
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            made.append((order.out / file.name).replace(target))
    return made


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, and those that it lies in, are made where they are missing; they go again where the block fails."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        what = f"{file} is no folder: name one for the stems, or a path where one can be made."
        raise AudioProcessingError(Code.IO_ERROR, what, repr(error)) from error
    except OSError as error:
        raise _refused(error) from error
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # it is not empty, or somebody was faster
                each.rmdir()
        raise


def _refused(error: OSError) -> AudioProcessingError:
    return AudioProcessingError(Code.IO_ERROR, f"{error.filename}: {error.strerror}.", repr(error))


def _order(song: Path, work: Path, options: Options, max_duration_s: float, seed: int) -> Order:
    """The order for `song`, to be carried out in the empty folder `work`."""
    out, tmp = work / OUT, work / TMP
    out.mkdir()
    tmp.mkdir()
    return Order(
        song=song.resolve(),
        name=os.fsencode(song.name).decode("utf-8", "replace"),
        tmp=tmp,
        out=out,
        options=msgspec.structs.replace(options, peaks=False, page=False),  # who calls this expects stems alone
        max_duration_s=max_duration_s,
        seed=seed,
    )


def _with_own_folders(order: Warm, state: Path) -> Warm:
    """The order, with folders of this user's own for models where the daemon's are not there, and for what is kept of them.

    A folder that root, say, had made in the daemon's place could not be used by the daemon, which is another user.
    """
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "demixd"
    if not (state.is_dir() and records.is_own(state)):
        order = msgspec.structs.replace(order, recorded=str(own / "recorded"), compiled=str(own / "compiled"))
    if order.repo is None and not os.access(order.models, os.R_OK | os.X_OK):
        order = msgspec.structs.replace(order, models=str(own / "models"))
    return order


@lru_cache(maxsize=1)
def _engine(order: Warm) -> Engine:
    return warm(order, lambda _: None)


def _seed(song: Path) -> int:
    with song.open("rb") as file:
        return int(sha256_of(file)[:15], 16)
