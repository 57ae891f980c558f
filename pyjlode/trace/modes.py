"""Torch without the shortcuts that a trace cannot look into."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def without_compilation() -> Iterator[None]:
    """Functions that ``torch.compile`` made run as they were written."""
    with ExitStack() as stack:
        # Where torch's compiler was never loaded nothing can have been compiled by it.
        if "torch._dynamo.eval_frame" in sys.modules:
            import torch._dynamo

            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(torch._dynamo.config.patch(error_on_nested_fx_trace=False))
        yield


@contextmanager
def traceable() -> Iterator[None]:
    """Attention as products and a softmax, and nothing compiled."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with without_compilation(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
