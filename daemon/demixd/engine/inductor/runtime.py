"""A member whose core is compiled by torch: its kernels are fused, and CUDA replays all of them as one graph.

    windows --pad--> take_apart (torch) --> graph of the core, for one shape --> put_together (torch) --> stems

The core is traced to a graph of plain operations first, with everything that its Python decides (hooks, shapes, the
position embeddings) decided: nothing of it can make torch compile it again. A graph cannot be stopped: `check` is called
before each batch, which takes half a second at most.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from demixd.engine import cache
from demixd.engine.families.demucs_core import Mix, put_together, take_apart
from demixd.engine.networks import Check, Reduced, never

Compiler = Callable[[nn.Module], Callable[..., Any]]
"""What makes a graph of the core faster; torch's, or a test's."""

RUNTIME = "torch-compiled"

CACHES = MappingProxyType({"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"})
"""Where torch and Triton keep what they have compiled: the variables, and the folders in KEY."""


class Compiled:
    """A member for `batch` windows at once; the last windows of a song are padded to so many with silence.

    Half of a batch or less, windows of another length (HDemucs takes shorter ones at the ends of songs), and calls of another
    thread (CUDA's graphs belong to one) are left to `inner`. So are the smaller batches after memory ran out.
    """

    runtime = RUNTIME

    def __init__(self, inner: Reduced, window: Tensor, batch: int, compiler: Compiler) -> None:
        """`window` is any window `[1, C, T]` of the length that is compiled for."""
        self.precision = inner.precision
        self._inner, self._batch, self._length = inner, batch, window.shape[-1]
        self._thread = threading.get_ident()
        inner(window, never)  # the position embeddings are made once, and not in the graph
        with torch.no_grad():
            self._core = compiler(_traced(inner, window.expand(batch, -1, -1).contiguous()))

    def __call__(self, windows: Tensor, check: Check, mix: Mix | None = None) -> Tensor:
        count = len(windows)
        fits = self._batch < 2 * count <= 2 * self._batch and windows.shape[-1] == self._length
        if not fits or threading.get_ident() != self._thread:
            return self._inner(windows, check, mix)
        check()
        member, dtype = self._inner.member, self._inner.dtype
        with torch.no_grad():  # not inference_mode, for which torch would compile anew
            padded = nn.functional.pad(windows, (0, 0, 0, 0, 0, self._batch - count))
            spectrogram = take_apart(member, padded)
            # The graph's outputs are its own memory: what was read of them before may be overwritten now.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            spectrograms, waves = self._core(spectrogram.to(dtype), padded.to(dtype))
            return put_together(member, spectrograms[:count], waves[:count], mix)


def inductor(graph: nn.Module) -> Callable[..., Any]:
    """Torch's own compiler, with CUDA's graphs. It works when the graph is first called, in this process and no other."""
    import torch._inductor.config as config

    config.compile_threads = 1  # no pool of processes, which would outlive the compilation
    config.cpp_cache_precompile_headers = False  # they lie in /tmp/torchinductor_USER, whatever the variables say
    return torch.compile(graph, mode="reduce-overhead", dynamic=False, fullgraph=True)


def keep_caches_in(folder: Path) -> None:
    """Have torch and Triton keep what they compile from now on below `folder`, and not where others may write.

    Without it torch takes /tmp/torchinductor_USER, and runs what it finds there.
    """
    for variable, name in CACHES.items():
        os.environ[variable] = str(cache.private(folder / name))


def _traced(inner: Reduced, windows: Tensor) -> nn.Module:
    """The core as a graph of plain operations on windows of this shape."""
    spectrogram = take_apart(inner.member, windows)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which cannot be fused with others
    try:
        return make_fx(inner.core)(spectrogram.to(inner.dtype), windows.to(inner.dtype))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
