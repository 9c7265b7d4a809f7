"""Models of published dimensions with random weights, rows of random tokens, and what a token costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

LONGEST = 2000  # tokens of the longest row with heavy-tailed lengths, the shortest has a twentieth of them


@dataclass(frozen=True)
class Shape:
    """A transformers configuration class by name, and the sizes it is called with."""

    kind: str
    sizes: Mapping[str, int]

    def config(self) -> Any:
        import transformers

        return getattr(transformers, self.kind)(**self.sizes)


def shape(kind: str, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **further: int) -> Shape:
    """The five sizes that every decoder has, then those of its class."""
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    return Shape(kind, {**sizes, "num_attention_heads": heads, "num_key_value_heads": kv_heads, **further})


CONTEXT = {"max_position_embeddings": 8192}
SHAPES = {
    "llama3_8b": shape("LlamaConfig", 4096, 14336, 32, 32, 8, vocab_size=128256, **CONTEXT),
    "gemma2_9b": shape("Gemma2Config", 3584, 14336, 42, 16, 8, head_dim=256, vocab_size=256000, **CONTEXT),
    "tiny": shape("LlamaConfig", 64, 128, 2, 4, 2, vocab_size=512, **CONTEXT),
}


def build(config: Any, device: "torch.device | str", dtype: "torch.dtype") -> Any:
    """The causal LM of `config` with its architecture's random initialisation, made on `device` in `dtype`."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def body_parameters(config: Any) -> int:
    """Parameters of the decoder layers and norms: all but the token embeddings and the output head."""
    import torch

    model = build(config, "meta", torch.bfloat16)
    ends = {id(end.weight): end.weight.numel() for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    return sum(p.numel() for p in model.parameters()) - sum(ends.values())  # a tied head is one parameter


def chosen_attention(config: Any) -> str:
    """The attention implementation that transformers chooses by itself (Gemma-2 gets another than Llama)."""
    import torch

    return build(config, "meta", torch.bfloat16).config._attn_implementation


def write_random_weights(config: Any, folder: Path, device: "torch.device", dtype: "torch.dtype") -> None:
    """Save a random model as a hub snapshot would lie there, for this project's own loader to read.

    QLoRA is then quantised as a user's model is, and LoRA reads the same weights.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    build(config, device, dtype).save_pretrained(folder)


@dataclass(frozen=True)
class TokenCost:
    """Floating-point operations per token: what the result needs, and what is executed for it."""

    useful: int
    executed: int


def token_cost(num_body: int, training: bool, gradient_checkpointing: bool) -> TokenCost:
    """Operations for one token of a model with `num_body` body parameters whose base is frozen.

    Forward 2N; in training another 2N for the gradients of the activations (those of frozen weights are not
    computed); with gradient checkpointing the forward once more, which is executed but not useful. Attention scores
    (about 4 % more at 2,048 tokens of an 8B model) and the adapter's own products (below 1 %) are left out, so shares
    of a rate are slightly too low.
    """
    useful = (4 if training else 2) * num_body
    return TokenCost(useful, useful + (2 * num_body if training and gradient_checkpointing else 0))


def row_lengths(lengths: str, num_rows: int, tokens: int, seed: int = 0) -> list[int]:
    """`equal`: rows of exactly `tokens`. `heavy-tailed`: log-normal around a fifth of the longest, clipped."""
    if lengths == "equal":
        return [tokens] * num_rows
    longest = min(LONGEST, tokens)
    drawn = np.random.default_rng(seed).lognormal(np.log(longest / 5), 0.8, num_rows)
    return [int(length) for length in drawn.clip(max(longest // 20, 1), longest)]
