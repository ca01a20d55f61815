"""The models that Demucs publishes, by name, and which of them suits a song. Pure."""

from collections.abc import Iterable
from types import MappingProxyType

import msgspec

NAMESPACE = "adefossez"
"""Demucs' namespace on the Hugging Face hub (`demucs/hf.py`)."""

FOUR = ("drums", "bass", "other", "vocals")


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A model that Demucs publishes; `members` are the signatures in its bag, each once, and `stems` its parts.

    `commit` and `sha256` (by name of file) pin it: nothing else is fetched or loaded then. `demixd models pin NAME` prints
    both. Where they are empty, the files that come first are trusted, and no others later.
    """

    about: str
    members: tuple[str, ...]
    stems: tuple[str, ...] = FOUR
    commit: str = ""
    sha256: dict[str, str] = {}


PUBLISHED = MappingProxyType(
    {
        "htdemucs": Published(about="Hybrid Transformer Demucs: good and fast, the default", members=("955717e8",)),
        "htdemucs_ft": Published(
            about="htdemucs fine-tuned for each stem: a little better, four times the work",
            members=("f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d"),
        ),
        "htdemucs_6s": Published(
            about="htdemucs with guitar and piano (weak)", members=("5c90dfd2",), stems=(*FOUR, "guitar", "piano")
        ),
        "hdemucs_mmi": Published(about="Hybrid Demucs v3, retrained on more songs", members=("75fc33f5",)),
        "mdx": Published(
            about="v3, trained on MusDB HQ only: winner of track A of the MDX challenge 2021",
            members=("0d19c1c6", "7ecf8ec1", "c511e2ab", "7d865c68"),
        ),
        "mdx_extra": Published(
            about="v3, trained on more songs: second in track B of the MDX challenge 2021",
            members=("e51eebcc", "a1d90b5c", "5d2d6c55", "cfa93e08"),
        ),
        "repro_mdx_a": Published(
            about="v3, track A retrained: time and hybrid members",
            members=("9a6b4851", "1ef250f1", "fa0cb7f9", "902315c2"),
        ),
        "repro_mdx_a_time_only": Published(
            about="v3, track A retrained: only its time members", members=("9a6b4851", "1ef250f1")
        ),
        "repro_mdx_a_hybrid_only": Published(
            about="v3, track A retrained: only its hybrid members", members=("fa0cb7f9", "902315c2")
        ),
    }
)

QUANTIZED = frozenset({"mdx_q", "mdx_extra_q"})
"""Published too, but packed by diffq, which has no wheels: they are mdx and mdx_extra, made smaller."""


def offered(parts: Iterable[str]) -> tuple[str, ...]:
    """The stems that can be asked for of a model with these parts."""
    parts = tuple(parts)
    mixed = ("instrumental", "guide") if "vocals" in parts else ()
    return (*parts, *mixed, *(f"no_{part}" for part in parts))


def hub_repo(name: str) -> str:
    """The hub's repository of a model: `HTDemucs`, `HTDemucs-X` for `htdemucs_X`, and `Demucs-NAME` for the others."""
    family, _, rest = name.partition("_")
    if family == "htdemucs":
        return f"{NAMESPACE}/HTDemucs" + (f"-{rest}" if rest else "")
    return f"{NAMESPACE}/Demucs-{name}"


AUTO = "auto"
"""In place of a model's name: the best that fits into the GPU's memory."""

DEFAULT = "htdemucs"

NEEDS_MIB = MappingProxyType({"htdemucs": 4096, "htdemucs_ft": 6144, "htdemucs_6s": 8192})
"""MiB of free GPU memory from which on `auto` takes a model; they include what a song needs."""

_WIDE = frozenset(PUBLISHED["htdemucs_6s"].stems) - frozenset(FOUR)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a song needs: a model by name, or `auto`. `wide`: its stems include guitar or piano, which only htdemucs_6s has."""

    model: str
    wide: bool = False

    @classmethod
    def of(cls, model: str, stems: Iterable[str]) -> "Demand":
        return cls(model=model, wide=any(stem.removeprefix("no_") in _WIDE for stem in stems))

    def candidates(self, free_mib: int | None) -> tuple[str, ...]:
        """The models that suit, the best first. `free_mib` is the GPU's free memory; None: no GPU.

        A named model is tried whatever its size; htdemucs follows it, if it has the stems, in case the GPU is too small.
        """
        if self.model == AUTO:
            best = ("htdemucs_6s",) if self.wide else ("htdemucs_ft", DEFAULT)
            fitting = tuple(name for name in best if free_mib is not None and NEEDS_MIB[name] <= free_mib)
            return fitting or best[-1:]
        if self.model in PUBLISHED and self.model != DEFAULT and not self.wide:
            return (self.model, DEFAULT)
        return (self.model,)
