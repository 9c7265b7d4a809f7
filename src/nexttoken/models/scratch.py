"""A small Llama with random weights and a byte-level BPE learned from the training text: nothing is downloaded."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nexttoken.settings import ScratchSettings

BOS = "<|bos|>"


def learn_bpe(settings: ScratchSettings, texts: Iterable[str]) -> Any:
    """Byte-level BPE (no unknown tokens, digits one by one) with a beginning-of-sequence token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size, special_tokens=[BOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)


def build_llama(settings: ScratchSettings, tokenizer: Any, max_tokens: int, num_classes: int | None) -> nn.Module:
    """A Llama with random weights for the tokenizer's tokens; with a classification layer for `num_classes`.

    In training, activations of the embeddings and of both residual branches are dropped. Llama's configuration has
    dropout of the attention only, so hooks do it: the saved weights stay a plain Llama.
    """
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    config = llama_config(settings, len(tokenizer), max_tokens)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    if num_classes is not None:
        config.num_labels = num_classes
    model: Any = (LlamaForCausalLM if num_classes is None else LlamaForSequenceClassification)(config)

    def drop(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(output, settings.dropout, module.training)

    if settings.dropout:
        layers = [layer for block in model.model.layers for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
        for module in (model.model.embed_tokens, *layers):
            module.register_forward_hook(drop)
    return model


def llama_config(settings: ScratchSettings, vocab_size: int, max_tokens: int) -> Any:
    """The architecture as a transformers configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 8 // 3,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        initializer_range=settings.initializer_range,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
    )
