"""The companion's life: it looks which executables there are, and has a thread run each of them for every end.

Each executable goes its own way through the list: one that fails is tried again after 10 s, 1 min and 10 min, and then
passed over, while the others go on. Its place is kept after each end. Where we are stopped in between the last run may be
made again: at least once for every end, in their order.
"""

import contextlib
import signal
import threading
from pathlib import Path

from demixd.cli.console import complain, say
from demixd.cli.hooks import executables, execution
from demixd.cli.hooks.places import Places, state_folder
from demixd.client.ends import EndReader, last_end
from demixd.config import Config
from demixd.errors import RefusedError
from demixd.protocol.status import End
from demixd.spool.tree import Spool

AGAIN_S = (10.0, 60.0, 600.0)
"""How long after a run that failed it is made again."""

LOOK_S = 1.0
"""How often the list is looked at for new ends."""

RESCAN_S = 5.0
"""How often the folder is looked at for new executables."""


class Hooks:
    """Those of one folder, for one spool."""

    def __init__(self, config: Config, *, state: Path | None = None, again_s: tuple[float, ...] = AGAIN_S) -> None:
        """Raises RefusedError where there is no folder, or others run the same hooks; OSError where places cannot be kept."""
        self._spool = Spool(config)
        self._folder = Path(config.hooks.folder)
        if not self._folder.is_dir():
            raise RefusedError(f"{self._folder} is no folder: make it, and put executables there ([hooks] folder)")
        self._places = Places(state or state_folder(), self._spool)
        self._stop = threading.Event()
        self._limits = execution.Limits(config.hooks.limit_s, self._stop)
        self._again_s = again_s
        self._threads: dict[str, threading.Thread] = {}
        self._told: dict[str, str] = {}
        """Why each executable that is not run is not, as last told."""

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Until `stop`. A run that is made then is ended, and made again the next time."""
        say(f"running what is in {self._folder} for each end of {self._spool.named['status']}")
        try:
            while not self._stop.is_set():
                self._rescan()
                self._stop.wait(RESCAN_S)
        finally:
            self._stop.set()
            for thread in self._threads.values():
                thread.join()

    def _rescan(self) -> None:
        """Begin with the executables that are new."""
        try:
            found = executables.listed(self._folder)
        except OSError as error:
            self._tell_once("", f"{self._folder} cannot be listed: {error.strerror}")
            return
        for path in found:
            thread = self._threads.get(path.name)
            if (thread is None or not thread.is_alive()) and self._is_trusted(path):
                self._begin(path)

    def _begin(self, path: Path) -> None:
        """Follow the list for an executable from its place on; one that is new begins after what is there."""
        try:
            begins = self._places.of(path.name)
            if begins is None:
                begins = last_end(self._spool)
                self._places.keep(path.name, begins)
        except OSError as error:
            self._tell_once(path.name, f"{path.name}: {error.filename or 'its place'}: {error.strerror}")
            return
        self._threads[path.name] = threading.Thread(target=self._follow, args=(path, begins), name=path.name)
        self._threads[path.name].start()

    def _is_trusted(self, path: Path) -> bool:
        try:
            executables.check(path)
        except executables.NotTrustedError as error:
            self._tell_once(path.name, str(error))
            return False
        self._told.pop(path.name, None)
        return True

    def _tell_once(self, name: str, sentence: str) -> None:
        if self._told.get(name) != sentence:
            self._told[name] = sentence
            complain(f"demixd: {sentence}")

    def _follow(self, path: Path, begins: int) -> None:
        """Run an executable for each end after `begins`, as long as it may be run."""
        reader = EndReader(self._spool, begins)
        with contextlib.closing(reader), contextlib.suppress(execution.StoppedError):
            while not self._stop.wait(LOOK_S):
                try:
                    for end, line in reader.read():
                        if not self._is_trusted(path):
                            return
                        self._run(path, end, line)
                        self._places.keep(path.name, end.end)
                except OSError as error:
                    self._tell_once(path.name, f"{path.name}: {error.filename or 'its place'}: {error.strerror}")
                    return  # with its place as it was; the next look begins anew

    def _run(self, path: Path, end: End, line: bytes) -> None:
        """Run an executable for an end until it succeeds, or is passed over. Raises StoppedError."""
        about = f"{path.name}: {end.input.name} ({end.state})"
        for wait_s in (*self._again_s, None):
            wrong = execution.run(path, end, line, self._spool, self._limits, lambda text: say(f"{path.name}: {text}"))
            if wrong is None:
                return
            after = "passed over" if wait_s is None else f"again in {wait_s:g} s"
            complain(f"{about}: {wrong}; {after}")
            if wait_s is not None and self._stop.wait(wait_s):
                raise execution.StoppedError


def run(config: Config) -> None:
    """Run hooks until SIGTERM or Ctrl-C. Raises RefusedError, OSError."""
    hooks = Hooks(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hooks.stop())
    hooks.run()
