"""Noise on the embeddings in training, which keeps a model from learning its rows by heart (NEFTune)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.layout import Layout


@contextmanager
def noisy_embeddings(model: nn.Module, layout: Layout, alpha: float) -> Iterator[None]:
    """Add noise of U(-1, 1) * alpha / sqrt(length * H) to embeddings (R, T, H) (NEFTune, Jain et al. 2023).

    The length is each row's own, so that the noise does not depend on padding or packing. Off for alpha 0.
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
