"""A whole worker without a model: it speaks the worker's language, reads and writes songs as the worker does, and
"separates" by turning the volume down. It is warm at once, and waits where a test wants it to.

While a file `hold` lies in $FAKE_FOLDER, a song that has begun to be separated stays there, and can be stopped; while
`deaf` lies there, it cannot.
While `missing-MODEL` lies there, that model cannot be had; `weights-MODEL` says what its hash is. What it was ordered to
do is in `orders`, a line each.
"""

import os
import queue
import sys
import threading
import time
from pathlib import Path

import msgspec

from stemd.errors import Code, StopProcessingError
from stemd.formats import choose_target
from stemd.job import EngineFacts, Error, StemFile, Step, Tick
from stemd.naming import file_name
from stemd.spool import make_below
from stemd.steps import encode, mix
from stemd.steps.decode import decode
from stemd.track import SpoolReader
from stemd.worker.__main__ import described
from stemd.worker.messages import (
    Began,
    Decoded,
    Failed,
    Finished,
    FromWorker,
    Progressed,
    Ready,
    Separate,
    Stop,
    Stopped,
    ToWorker,
    Unready,
    Warm,
)

FOLDER = Path(os.environ["FAKE_FOLDER"])
SOURCES = ("drums", "bass", "other", "vocals")
stopped: set[str] = set()


def say(message: FromWorker) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def warm(order: Warm) -> EngineFacts | None:
    if (FOLDER / f"missing-{order.model}").exists():
        say(Unready(error=Error(code=Code.MODEL_MISSING, message=f"The model {order.model} is not here.")))
        return None
    weights = FOLDER / f"weights-{order.model}"
    sha256 = weights.read_text() if weights.exists() else order.model
    facts = EngineFacts(model=order.model, model_sha256=sha256, device="cpu", device_name="none", precision="float32")
    say(Ready(engine=facts, sources=SOURCES, seconds=0.0))
    return facts


def check(job_id: str) -> None:
    if job_id in stopped and not (FOLDER / "deaf").exists():
        raise StopProcessingError


def separate(order: Separate, facts: EngineFacts) -> Finished:
    """Every stem is a quarter of the song."""
    options, tmp, out = order.options, Path(order.tmp), Path(order.out)
    say(Began(job_id=order.job_id, step=Step.DECODE))
    track = decode(
        Path(order.song),
        tmp / "song.f32",
        max_duration_s=order.max_duration_s,
        check=lambda: check(order.job_id),
        progress=lambda _: None,
    )
    say(Decoded(job_id=order.job_id, track=track))
    how = {name: getattr(options, name) for name in ("format", "bitrate", "bit_depth", "rate", "clip")}
    target, warnings = choose_target(track, **how)
    mix.recipe(options.stems, SOURCES)  # knows what no stem is
    say(Began(job_id=order.job_id, step=Step.SEPARATE))
    fraction = 0.04
    while True:
        check(order.job_id)
        tick = Tick(step=Step.SEPARATE, fraction=fraction, step_fraction=fraction, message="Separating", segment_s=0.01)
        say(Progressed(job_id=order.job_id, at=tick))
        fraction = min(0.9, fraction + 0.01)
        if not (FOLDER / "hold").exists():
            break
        time.sleep(0.02)
    files = []
    for stem in options.stems:
        name = file_name(options.naming, stem=stem, ext=target.suffix, model=options.model, leaf=order.name)
        path = out / name
        make_below(out, path.parent)
        with SpoolReader(tmp / "song.f32", track.channels) as reader:
            written = encode.write(
                (block / 4 for block in reader.blocks()),
                path,
                target,
                frames=track.frames,
                check=lambda: check(order.job_id),
            )
        fields = {**msgspec.structs.asdict(written), "name": name}
        files.append(StemFile(stem=stem, **fields))
    return Finished(
        job_id=order.job_id,
        files=tuple(files),
        gain_db=0.0,
        engine=facts,
        timing={},
        warnings=(*track.warnings, *warnings),
    )


def listen(work: "queue.SimpleQueue[Warm | Separate]") -> None:
    decoder = msgspec.json.Decoder(ToWorker)
    for line in sys.stdin.buffer:
        order = decoder.decode(line)
        with (FOLDER / "orders").open("ab") as log:
            log.write(line)
        if isinstance(order, Stop):
            stopped.add(order.job_id)
        else:
            work.put(order)
    os._exit(0)


def main() -> None:
    work: queue.SimpleQueue[Warm | Separate] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(work,), daemon=True).start()
    facts: EngineFacts | None = None
    while True:
        order = work.get()
        if isinstance(order, Warm):
            facts = warm(order) or facts
            continue
        assert facts is not None
        try:
            say(separate(order, facts))
        except StopProcessingError:
            say(Stopped(job_id=order.job_id))
        except Exception as error:  # noqa: BLE001 - as the worker's own
            say(Failed(job_id=order.job_id, error=described(error), timing={}))


main()
