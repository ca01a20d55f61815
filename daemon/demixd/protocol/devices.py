"""The devices of `[model] device`: one, or one for each worker; and the cluster of `[ray]`, whose devices others have. Pure."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from demixd.protocol.typed import Section, shown

_NAME = re.compile(r"auto|cpu|cuda(:[0-9]{1,4})?|openvino:GPU")
_HOST_AND_PORT = re.compile(r"(?:\w[\w.-]{0,254}|\[[0-9A-Fa-f:]{2,39}\]):([0-9]{1,5})")
_PAIRS = 'a list of up to 64 pairs, the path here and the path there: [["/srv/music", "/mnt/music"]]'
_WORDS = "auto, cpu, cuda, cuda:N or openvino:GPU"

# The form of a name is checked by `check`: msgspec 0.22 frees a pattern twice that is in both types of a union.
Devices = (
    Annotated[str, Meta(title=_WORDS)]
    | Annotated[tuple[str, ...], Meta(min_length=1, max_length=64, title="a list of 1 to 64 of these")]
)


def all_of(device: str | tuple[str, ...]) -> tuple[str, ...]:
    """The devices of all workers, in order."""
    return (device,) if isinstance(device, str) else device


def check(device: str | tuple[str, ...]) -> None:
    """Raise ValueError where a name is none."""
    if wrong := [each for each in all_of(device) if not _NAME.fullmatch(each)]:
        raise ValueError(f"device = {shown(wrong[0])}: it must be {_WORDS}, or a list of these, one for each worker")


class Ray(Section, frozen=True):
    """`[ray]`: the workers are in a cluster, and none of them is this machine's by itself. `path_map`: [[here, there], ...]."""

    address: str = ""
    workers: Annotated[int, Meta(ge=1, le=1000)] | Literal["gpus"] = "gpus"
    path_map: Annotated[tuple[tuple[str, str], ...], Meta(max_length=64, title=_PAIRS)] = ()

    def __post_init__(self) -> None:
        if not (self.address in ("", "local", "auto") or _is_host_and_port(self.address)):
            raise ValueError(f'address = {shown(self.address)}: it must be "local", "auto" or "HOST:PORT"')
        if wrong := [path for pair in self.path_map for path in pair if not path.startswith("/") or "\0" in path]:
            raise ValueError(f"path_map has {shown(wrong[0])}: both paths of a pair must be absolute, beginning with /")

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines may have the workers, each with models and devices of its own."""
        return self.address not in ("", "local")

    def check(self, device: str | tuple[str, ...]) -> None:
        """Raise ValueError where `[model] device` does not go with it."""
        if not self.address or device in ("auto", "cuda", "openvino:GPU"):
            return
        if device != "cpu":
            how = 'a worker of a cluster gets its GPU from Ray: set "auto", "cuda" or "cpu"'
            raise ValueError(f"[model] device = {shown(device)}: {how}")
        if self.workers == "gpus":
            raise ValueError('[ray] workers must be a number where [model] device is "cpu": there are no GPUs to count')


def _is_host_and_port(address: str) -> bool:
    found = _HOST_AND_PORT.fullmatch(address)
    return found is not None and 0 < int(found[1]) < 1 << 16
