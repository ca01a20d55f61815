"""An actor, as this end sees it."""

import asyncio
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError

from demixd.worker.ray.actor import LISTEN_S

SILENT_S = 3 * LISTEN_S
"""An actor that has not answered for so long does not any more: its machine sleeps, or its process is held."""

DEAD = (RayActorError, OutOfMemoryError)
"""What Ray raises of an actor that has ended; the second, where its machine had too little memory left."""


class GoneError(Exception):
    """The worker is gone; the text says how. `is_lost`: with its machine, or the line to it; `is_ours`: no song can be the
    cause; `is_refused`: nor can the machine be used."""

    def __init__(self, how: str, *, is_lost: bool, is_ours: bool = False, is_refused: bool = False) -> None:
        super().__init__(how.rstrip("."))
        self.is_lost, self.is_refused, self.is_ours = is_lost, is_refused, is_ours or is_refused


class Far:
    """An actor, and what it has said of its machine (`Actor.hello`)."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.facts: dict[str, Any] = {}

    @property
    def host(self) -> str:
        return str(self.facts["host"])

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, and sees the same files."""
        return bool(self.facts["is_here"])

    async def call(self, method: str, *given: object) -> Any:
        """What a method of the actor answers. Raises RayError, and what the method raises."""
        answer = asyncio.wrap_future(getattr(self.actor, method).remote(*given).future())
        answer.add_done_callback(
            lambda each: each.cancelled() or each.exception()
        )  # which may be wanted by nobody any more
        return await asyncio.shield(answer)  # and Ray does not know of that
