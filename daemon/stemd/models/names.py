"""The models that Demucs publishes, by name. Pure."""

from types import MappingProxyType

import msgspec

NAMESPACE = "adefossez"
"""Demucs' own place on the Hugging Face hub (`demucs/hf.py`)."""

FOUR = ("drums", "bass", "other", "vocals")


class Published(msgspec.Struct, frozen=True, kw_only=True):
    about: str
    stems: tuple[str, ...] = FOUR


PUBLISHED = MappingProxyType(
    {
        "htdemucs": Published(about="Hybrid Transformer Demucs: good and fast, the default"),
        "htdemucs_ft": Published(about="htdemucs fine-tuned for each stem: a little better, four times the work"),
        "htdemucs_6s": Published(about="htdemucs with guitar and piano (weak)", stems=(*FOUR, "guitar", "piano")),
        "hdemucs_mmi": Published(about="Hybrid Demucs v3, retrained on more songs"),
        "mdx": Published(about="v3, trained on MusDB HQ only: winner of track A of the MDX challenge 2021"),
        "mdx_extra": Published(about="v3, trained on more songs: second in track B of the MDX challenge 2021"),
        "repro_mdx_a": Published(about="v3, track A retrained: time and hybrid members"),
        "repro_mdx_a_time_only": Published(about="v3, track A retrained: only its time members"),
        "repro_mdx_a_hybrid_only": Published(about="v3, track A retrained: only its hybrid members"),
    }
)

QUANTIZED = frozenset({"mdx_q", "mdx_extra_q"})
"""Published too, but packed by diffq, which has no wheels: mdx and mdx_extra are what went into them."""


def hub_repo(name: str) -> str:
    """Where Demucs puts a model on the hub: `htdemucs` and `htdemucs_X` have names of their own, others a prefix."""
    family, _, rest = name.partition("_")
    if family == "htdemucs":
        return f"{NAMESPACE}/HTDemucs" + (f"-{rest}" if rest else "")
    return f"{NAMESPACE}/Demucs-{name}"
