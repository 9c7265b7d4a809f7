"""A Llama of transformers as the GGUF file that llama.cpp loads, in one of its number formats."""

from pathlib import Path
from typing import Any

import numpy as np

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_gguf(model: Any, path: Path, number_format: str) -> None:
    """Write a LlamaForCausalLM with its matrices in `number_format` (F32, BF16, Q8_0); norms stay in F32. No words."""
    import gguf

    config, weights = model.config, {name: p.detach().float().numpy() for name, p in model.named_parameters()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = dict(ENDS)
    for layer in range(config.num_hidden_layers):
        names |= {f"blk.{layer}.{own}": f"model.layers.{layer}.{theirs}" for own, theirs in LAYER.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    matrices = gguf.GGMLQuantizationType[number_format]
    for name, source in names.items():
        weight = weights[f"{source}.weight"]
        if number_of_heads := heads.get(name.split(".")[-1]):
            weight = interleaved(weight, number_of_heads)
        kind = matrices if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's rotation, which turns neighbours; transformers turns the halves of a head."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))
