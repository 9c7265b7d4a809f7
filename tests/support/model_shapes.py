"""The published dimensions of every model in conf/model, as the transformers configurations that build them.

A factory takes keyword changes, so that `SHAPES["gemma2_9b"](num_hidden_layers=2)` is the same model with two layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

Factory = Callable[..., PreTrainedConfig]


def shape(kind: Factory, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **own: Any) -> Factory:
    """A factory of `kind`: the five sizes that every model has, then what is its own."""
    return partial(
        kind,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        **own,
    )


def gemma3_with_vision(**text: Any) -> Gemma3Config:
    """Gemma-3 from 4B on also reads images: transformers loads the 417M of its SigLIP tower with the text model."""
    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return Gemma3Config(
        text_config={"vocab_size": 262208, "max_position_embeddings": 131072, **text}, vision_config=vision
    )


def gemma4_with_vision(**text: Any) -> Gemma4Config:
    """Gemma-4 31B: every sixth layer attends to everything, with wider heads whose keys are their values."""
    attention = {
        "global_head_dim": 512,
        "num_global_key_value_heads": 4,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
    }
    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "standardize": True,
    }
    return Gemma4Config(
        text_config={"vocab_size": 262144, "hidden_size_per_layer_input": 0, **attention, **text}, vision_config=vision
    )


gemma2 = partial(Gemma2Config, vocab_size=256000, max_position_embeddings=8192)
llama2 = partial(LlamaConfig, vocab_size=32000, max_position_embeddings=4096)
llama3 = partial(LlamaConfig, vocab_size=128256, max_position_embeddings=8192)
llama3_1 = partial(llama3, max_position_embeddings=131072)
mistral = shape(MistralConfig, 4096, 14336, 32, 32, 8)
qwen2_5 = partial(Qwen2Config, max_position_embeddings=32768)
small_qwen2_5 = partial(qwen2_5, vocab_size=151936, tie_word_embeddings=True)
large_qwen2_5 = partial(qwen2_5, vocab_size=152064, tie_word_embeddings=False)
qwen3 = partial(Qwen3Config, vocab_size=151936, head_dim=128, max_position_embeddings=40960)
phi4 = partial(Phi3Config, vocab_size=100352, max_position_embeddings=16384)
smollm2 = partial(LlamaConfig, vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True)
# Qwen-1 has its own code, not transformers'. Qwen2 with as many key as query heads has the same weights: biases on
# queries, keys and values only, three feed-forward matrices (Qwen-1 counts two of them in its 22,016), untied head.
qwen1_7b = shape(Qwen2Config, 4096, 11008, 32, 32, 32, vocab_size=151936, max_position_embeddings=8192)


def open_calm(hidden: int, layers: int, heads: int, vocab_size: int = 52096) -> Factory:
    return partial(
        GPTNeoXConfig,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=vocab_size,
        max_position_embeddings=2048,
    )


SHAPES: dict[str, Factory] = {
    "gemma2_2b": shape(gemma2, 2304, 9216, 26, 8, 4, head_dim=256),
    "gemma2_9b": shape(gemma2, 3584, 14336, 42, 16, 8, head_dim=256),
    "gemma2_27b": shape(gemma2, 4608, 36864, 46, 32, 16, head_dim=128),
    "gemma3_1b": shape(
        Gemma3TextConfig, 1152, 6912, 26, 4, 1, head_dim=256, vocab_size=262144, max_position_embeddings=32768
    ),
    "gemma3_4b": shape(gemma3_with_vision, 2560, 10240, 34, 8, 4, head_dim=256),
    "gemma3_12b": shape(gemma3_with_vision, 3840, 15360, 48, 16, 8, head_dim=256),
    "gemma3_27b": shape(gemma3_with_vision, 5376, 21504, 62, 32, 16, head_dim=128),
    "gemma4_31b": shape(gemma4_with_vision, 5376, 21504, 60, 32, 16, head_dim=256, max_position_embeddings=262144),
    "llama3_8b": shape(llama3, 4096, 14336, 32, 32, 8),
    "llama3_70b": shape(llama3, 8192, 28672, 80, 64, 8),
    "llama3_1_8b": shape(llama3_1, 4096, 14336, 32, 32, 8),
    "llama3_1_70b": shape(llama3_1, 8192, 28672, 80, 64, 8),
    "qwen2_5_0_5b": shape(small_qwen2_5, 896, 4864, 24, 14, 2),
    "qwen2_5_1_5b": shape(small_qwen2_5, 1536, 8960, 28, 12, 2),
    "qwen2_5_3b": shape(small_qwen2_5, 2048, 11008, 36, 16, 2),
    "qwen2_5_7b": shape(large_qwen2_5, 3584, 18944, 28, 28, 4),
    "qwen2_5_14b": shape(large_qwen2_5, 5120, 13824, 48, 40, 8),
    "qwen2_5_32b": shape(large_qwen2_5, 5120, 27648, 64, 40, 8),
    "qwen3_0_6b": shape(qwen3, 1024, 3072, 28, 16, 8, tie_word_embeddings=True),
    "qwen3_1_7b": shape(qwen3, 2048, 6144, 28, 16, 8, tie_word_embeddings=True),
    "qwen3_4b": shape(qwen3, 2560, 9728, 36, 32, 8, tie_word_embeddings=True),
    "qwen3_8b": shape(qwen3, 4096, 12288, 36, 32, 8),
    "qwen3_14b": shape(qwen3, 5120, 17408, 40, 40, 8),
    "qwen3_32b": shape(qwen3, 5120, 25600, 64, 64, 8),
    "mistral_7b": partial(mistral, vocab_size=32768, max_position_embeddings=32768),
    "phi4": shape(
        Phi3Config, 5120, 17920, 40, 40, 10, vocab_size=100352, max_position_embeddings=16384, pad_token_id=0
    ),
    "smollm2": shape(smollm2, 576, 1536, 30, 9, 3),
    "smollm2_135m": shape(smollm2, 576, 1536, 30, 9, 3),
    "smollm2_360m": shape(smollm2, 960, 2560, 32, 15, 5),
    "stablebeluga2_70b_gptq": shape(llama2, 8192, 28672, 80, 64, 8),
    "openorca_stx": shape(llama2, 5120, 13824, 40, 40, 40, vocab_size=32002),
    "open_calm_small": open_calm(768, layers=12, heads=12),
    "open_calm_medium": open_calm(1024, layers=24, heads=16),
    "open_calm_large": open_calm(1536, layers=24, heads=16),
    "open_calm_1b": open_calm(2048, layers=24, heads=16),
    "open_calm_3b": open_calm(2560, layers=32, heads=32),
    "open_calm_7b": open_calm(4096, layers=32, heads=32, vocab_size=52224),
    "swallow_7b": shape(llama2, 4096, 11008, 32, 32, 32, vocab_size=43176),
    "swallow_13b": shape(llama2, 5120, 13824, 40, 40, 40, vocab_size=43176),
    "calm2_7b": shape(llama2, 4096, 11008, 32, 32, 32, vocab_size=65024),
    "stablelm_gamma_7b": partial(mistral, vocab_size=32000, max_position_embeddings=4096),
    "chatntq_7b": partial(mistral, vocab_size=32000, max_position_embeddings=4096),
    "elyza_7b_fast_instruct": shape(llama2, 4096, 11008, 32, 32, 32, vocab_size=45043),
    "elyza_13b_fast_instruct": shape(llama2, 5120, 13824, 40, 40, 40, vocab_size=44581),
    "karasu_7b": partial(mistral, vocab_size=120074, max_position_embeddings=32768),
    "nekomata_7b": qwen1_7b,
    "nekomata_7b_instruction": qwen1_7b,
    "xwin_lm_7b": shape(llama2, 4096, 11008, 32, 32, 32),
    "youri_7b": shape(llama2, 4096, 11008, 32, 32, 32),
    "llama_pro_8b_instruct": shape(llama2, 4096, 11008, 40, 32, 32),
}
