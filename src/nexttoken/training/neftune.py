"""NEFTune: uniform noise on the input embeddings while training (Jain et al. 2023, "Noisy Embeddings")."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.layout import Layout


@contextmanager
def noisy_embeddings(model: nn.Module, layout: Layout, alpha: float) -> Iterator[None]:
    """Within this context embeddings (R, T, H) get noise of U(-1, 1) * alpha / sqrt(length * H).

    The length is each row's own, so that neither padding nor packing changes how much noise it gets. Off for alpha 0.
    """
    if not alpha:
        yield
        return

    def add(_: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        size = alpha / (layout.row_lengths[..., None] * embedded.shape[-1]) ** 0.5
        return embedded + (torch.rand_like(embedded) * 2 - 1) * size.to(embedded.dtype)

    handle = model.get_input_embeddings().register_forward_hook(add)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
