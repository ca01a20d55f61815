"""Every check in order. None loads torch, and none leaves a file behind."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from demixd.cli.check import cluster, folders, machine
from demixd.cli.check.finding import Finding, Level
from demixd.client import text
from demixd.client.liveness import Health, Liveness
from demixd.client.reader import CachedDocument
from demixd.config import Config, chosen
from demixd.engine.models import listing, records, store
from demixd.engine.models.catalog import AUTO, DEFAULT, NEEDS_MIB, PUBLISHED
from demixd.engine.models.configured import doubts, faults, lacks
from demixd.errors import AudioProcessingError
from demixd.protocol import devices
from demixd.protocol.status import DaemonStatus
from demixd.spool.tree import DAEMON, Spool

PATIENCE_S = 6.0
"""The longest wait for the next heartbeat."""

HERE = (listing.State.RECORDED, listing.State.UNRECORDED, listing.State.HIDDEN)
"""The states of the models that the folder of models has."""


def findings(config: Config, file: Path | None) -> Iterator[Finding]:
    """The finding of each check; `file` is the configuration file that the command line gives."""
    spool = Spool(config)
    parts = {part: config.folder(part) for part in ("inbox", "outbox", "status", "done", "failed")}
    if spool.own_work:
        parts["work"] = spool.scratch
    root = Path(config.paths.spool)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("config", partial(_configuration, file)),
        *folders.checks(root, parts, config),
        ("state", partial(folders.state, config.state)),
        ("work", partial(folders.work, spool)),
        ("rename", partial(folders.rename, spool.outbox)),
        ("lease", partial(folders.lease, spool.inbox)),
        ("pause", partial(folders.pause, config, spool.inbox)),
        ("watch", partial(machine.watch, config, spool.inbox)),
        ("memory", partial(machine.memory, config, spool.scratch)),
        ("space", partial(folders.space, spool.outbox, folders.SONG_BYTES, "songs may wait as no-space")),
        ("space", partial(folders.space, config.state, folders.LEDGER_BYTES, "the ledger may not be written")),
        *(cluster.checks(config, file) if config.ray.address else ()),
        *(_of_workers(config) if not config.ray.is_elsewhere else ()),
        *(("model", partial(Finding, Level.FAIL, "model", wrong)) for wrong in faults(config)),
        *(("options", partial(Finding, Level.NOTE, "options", doubt)) for doubt in doubts(config)),
        ("systemd", machine.systemd),
        ("daemon", partial(_daemon, spool)),
    ]
    for subject, check in checks:
        yield _guarded(subject, check)


def _of_workers(config: Config) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """The checks of what the worker's machine has to have: those of a cluster's other machines nobody sees from here."""
    wanted, ray = devices.all_of(config.model.device), config.ray
    each_has = ray.workers if ray.address and ray.workers != "gpus" else 1
    yield from (("device", partial(machine.device, *each)) for each in Counter(wanted * each_has).items())
    yield "models", partial(_models, config)
    yield from (
        ("model", partial(_model, config, name)) for name in sorted(config.named_models) if not lacks(name, config)
    )


def _guarded(subject: str, check: Callable[[], Finding]) -> Finding:
    """The finding of a check. A file or folder that this user may not look at is a finding too."""
    try:
        return check()
    except OSError as error:
        return Finding(Level.FAIL, subject, text.refusal(error))


def _configuration(file: Path | None) -> Finding:
    found, why = chosen(file)
    return Finding(Level.OK if found is not None else Level.NOTE, "config", why)


def _models(config: Config) -> Finding:
    folder = config.repo or config.models
    if folders.is_hidden(folder):
        return Finding(Level.NOTE, "models", f"{folder} is not visible to you")
    if not folder.is_dir():
        if config.model.name == store.DEMO:
            return Finding(Level.OK, "models", f"{folder} is not there; the demo model needs none")
        remedy = (
            f"run `{store.command('fetch', config.model.name, config.models)}`"
            if config.model.name in PUBLISHED
            else "mount it, or make it"
        )
        return Finding(Level.FAIL, "models", f"{folder} is not there: {remedy}")
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding(Level.FAIL, "models", f"{folder} cannot be read by this user: change its owner or mode")
    rows = listing.rows(
        repo=config.repo, models=config.models, recorded=config.recorded, allow_pickle=config.model.allow_pickle
    )
    here = [row.name for row in rows if row.state in HERE]
    limit = "" if config.repo or os.access(folder, os.W_OK) else "; this user cannot fetch into it"
    return Finding(Level.OK, "models", f"{folder} has {', '.join(here) or 'none'}{limit}")


def _model(config: Config, name: str) -> Finding:
    if name == AUTO:
        return _auto(config)
    if folders.is_hidden(store.folder_of(name, repo=config.repo, models=config.models)):
        return Finding(Level.NOTE, "model", f"{name}: whether it is there is not visible to you")
    try:
        files = store.Where.of(config, name).locate()
        store.check_headers(files)
        is_recorded = store.is_recorded(files)
    except records.HiddenError as error:
        return Finding(Level.NOTE, "model", f"{name} in {files.folder}: {error.message}")
    except AudioProcessingError as error:
        return Finding(Level.FAIL, "model", error.message)
    if not is_recorded:
        remedy = f"run `{store.command('verify', name, config.models)}`"
        return Finding(Level.NOTE, "model", f"{name} has no record of its hash yet: {remedy}")
    return Finding(Level.OK, "model", f"{name} in {files.folder}")


def _auto(config: Config) -> Finding:
    """Whether any of the models is there from which `auto` takes the best."""
    usual, *others = (_model(config, each) for each in (DEFAULT, *NEEDS_MIB))
    if all(each.level is Level.FAIL for each in (usual, *others)):
        return usual
    best = ", ".join(f"{each} from {mib} MiB of free GPU memory on" for each, mib in NEEDS_MIB.items())
    return Finding(Level.OK, "model", f"auto takes the best that fits: {best}; without a GPU {DEFAULT}")


def _daemon(spool: Spool) -> Finding:
    """Whether a daemon runs on this spool: wait a little longer than its interval for the next heartbeat."""
    if folders.is_hidden(spool.status / DAEMON):
        return Finding(
            Level.NOTE, "daemon", f"whether one runs is not visible to you: it would say so in {spool.status}"
        )
    heartbeat, liveness = CachedDocument(spool.status / DAEMON, DaemonStatus), Liveness(time.monotonic())
    began = time.monotonic()
    while True:
        health = liveness.update(heartbeat.refresh(), time.monotonic())
        is_over = time.monotonic() > began + min(1.5 * liveness.interval_s, PATIENCE_S)
        if health is not Health.LISTENING or is_over:
            break
        time.sleep(0.05)
    daemon = heartbeat.value
    if daemon is None or health is Health.NEVER_RUN:
        return Finding(Level.OK, "daemon", "none has run on this spool")
    who = f"demixd {daemon.version}, process {daemon.pid} on {daemon.process.host or 'some machine'}"
    if health is Health.ALIVE:
        return Finding(Level.OK, "daemon", f"{who}, is {daemon.state} on this spool; a second one would be refused")
    if health is Health.STOPPED:
        return Finding(Level.OK, "daemon", f"{who}, stopped at {daemon.updated_at}")
    if health is Health.GONE:
        return Finding(Level.NOTE, "daemon", f"{who}, has ended after {daemon.updated_at}: start it again")
    every = f"one is due every {daemon.interval_s:g} s"
    silent = f"no sign of life in {time.monotonic() - began:.0f} s, the last one at {daemon.updated_at}; {every}"
    return Finding(Level.NOTE, "daemon", f"{who}: {silent}")
