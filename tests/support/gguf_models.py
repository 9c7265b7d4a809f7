"""Tiny models written as GGUF files, with their tokenizer, as llama.cpp's converter writes them."""

import json
from pathlib import Path
from typing import Any

import gguf
import transformers
from torch import nn

from benchmarks.llama_cpp import ENDS, LAYER, interleaved

NORMAL, CONTROL = 1, 3  # kinds of tokens
CONFIGS = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}


def build(architecture: str, tokenizer: Any) -> Any:
    """A small random model; its widths are multiples of 64, the block of NF4."""
    config = CONFIGS[architecture](
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=architecture == "qwen2",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


def write_gguf(path: Path, architecture: str, model: Any, tokenizer: Any, number_format: str = "F32") -> Path:
    """Matrices in `number_format`, vectors in F32; the vocabulary, merges and chat template of a byte-level BPE."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    _add_weights(writer, architecture, model, gguf.GGMLQuantizationType[number_format])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in tokenizer.all_special_tokens else NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _add_weights(writer: gguf.GGUFWriter, architecture: str, model: Any, matrices: gguf.GGMLQuantizationType) -> None:
    names = {f"{source}.": f"{short}." for short, source in ENDS.items()}
    for layer in range(model.config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{name}.": f"blk.{layer}.{short}." for short, name in LAYER.items()}
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for source, parameter in model.named_parameters():  # a tied head is named once
        name, _, kind = source.rpartition(".")
        short, weight = names[f"{name}."], parameter.detach().float().numpy()
        if architecture == "llama" and (number := heads.get(short.split(".")[-2])):
            weight = interleaved(weight, number)
        stored = matrices if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{short}{kind}", gguf.quants.quantize(weight, stored), raw_dtype=stored)
