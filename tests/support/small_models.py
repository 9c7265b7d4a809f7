"""Sizes of the small models with random weights that are compared with their own plain forward."""

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.25,  # logits far from flat: a forgotten scale or cap would show
    "pad_token_id": 0,
}
