"""From examples to token ids within a budget, and the tokens that spell the labels."""
