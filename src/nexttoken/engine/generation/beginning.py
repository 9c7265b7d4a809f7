"""What all prompts begin with is read once, and its cache is copied in front of every batch that is written."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.prefixes import common_prefix
from nexttoken.engine.forward.shortcuts import keeps_prefix
from nexttoken.engine.generation.rows import GenerationPrompt


class Beginning:
    """The first `length` tokens of all prompts; none where reading them once is not worth it, or would not be exact."""

    def __init__(self, model: Any, prompts: Sequence[GenerationPrompt]) -> None:
        rows = [prompt.token_ids for prompt in prompts]
        shared = common_prefix(rows)
        self.model = model
        self.length = shared if shared and not has_window(model) and keeps_prefix(model) else 0
        self.token_ids = torch.as_tensor(rows[0][: self.length] if rows else [], dtype=torch.long)

    def cache(self, num_rows: int) -> Any:
        """A copy for so many rows, which they go on filling; None where there is no beginning."""
        if not self.length:
            return None
        copied = copy.deepcopy(self._read)
        copied.batch_repeat_interleave(num_rows)
        return copied

    @cached_property
    def _read(self) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        token_ids = self.token_ids[None].to(next(self.model.parameters()).device)
        decoder(self.model)(input_ids=token_ids, past_key_values=cache, use_cache=True)
        return cache

    def with_rows(self, prompts: Sequence[GenerationPrompt], pad: int) -> tuple[Tensor, Tensor]:
        """Token ids (N, T) and the mask of what is read: the beginning, padding, and what is a row's own.

        So all rows go on in one column. transformers counts positions by the mask, learnt ones, too. Its penalty for
        repetitions leaves out no padding but a row's first: behind a beginning that is of a token which stands there.
        """
        width = max(len(prompt.token_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), int(self.token_ids[-1]) if self.length else pad)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            start = width - (len(prompt.token_ids) - self.length)
            input_ids[row, start:] = torch.as_tensor(prompt.token_ids[self.length :])
            mask[row, start:] = 1
        input_ids[:, : self.length], mask[:, : self.length] = self.token_ids, 1
        return input_ids, mask


def has_window(model: Any) -> bool:
    """Whether some layer sees a window only, in which the padding behind a shared beginning would count."""
    config = model.config.get_text_config()
    if layer_types := getattr(config, "layer_types", None):
        return "sliding_attention" in layer_types
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))
