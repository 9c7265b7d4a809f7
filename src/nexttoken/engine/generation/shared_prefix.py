"""Prefix caching for generation: the common prefix of all prompts is computed once and copied into every batch."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.packed_attention import has_sliding_window
from nexttoken.engine.forward.prefixes import common_prefix
from nexttoken.engine.forward.shortcuts import allows_cached_prefix
from nexttoken.engine.generation.writer import GenerationPrompt


class SharedPrefix:
    """The first `length` tokens of all prompts; 0 if sharing them would not be faster or not be exact.

    It is not exact with sliding windows, which would include the padding between the prefix and the rest.
    """

    def __init__(self, model: Any, prompts: Sequence[GenerationPrompt]) -> None:
        rows = [prompt.token_ids for prompt in prompts]
        shared, config = common_prefix(rows), model.config.get_text_config()
        self.model = model
        self.length = shared if shared and not has_sliding_window(config) and allows_cached_prefix(model) else 0
        self.token_ids = torch.as_tensor(rows[0][: self.length] if rows else [], dtype=torch.long)

    def cache(self, num_rows: int) -> Any:
        """A copy of the KV cache for that many rows; None without a shared prefix."""
        if not self.length:
            return None
        copied = copy.deepcopy(self._cache)
        copied.batch_repeat_interleave(num_rows)
        return copied

    @cached_property
    def _cache(self) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        token_ids = self.token_ids[None].to(next(self.model.parameters()).device)
        decoder(self.model)(input_ids=token_ids, past_key_values=cache, use_cache=True)
        return cache

    def pad(self, prompts: Sequence[GenerationPrompt], pad_id: int) -> tuple[Tensor, Tensor]:
        """Token ids (N, T) and attention mask (N, T): the shared prefix, padding, and the rest of each prompt.

        transformers derives positions from the mask. Its repetition penalty ignores leading padding only, so padding
        after a shared prefix repeats the prefix's last token.
        """
        width = max(len(prompt.token_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), int(self.token_ids[-1]) if self.length else pad_id)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            start = width - (len(prompt.token_ids) - self.length)
            input_ids[row, start:] = torch.as_tensor(prompt.token_ids[self.length :])
            mask[row, start:] = 1
        input_ids[:, : self.length], mask[:, : self.length] = self.token_ids, 1
        return input_ids, mask
