"""Slices of rows that are answered one after the other, so that a deadline costs the work on one slice at most."""

from collections.abc import Sequence

import numpy as np

from nexttoken.types import Example

SHARE = 0.02  # of all tokens, in the first slice, by which the throughput is measured, and in each further one
CHARACTERS_PER_TOKEN = 4  # of the tokens that fill a batch: a slice of fewer batches would leave processors idle
MIN_BATCHES = 2
TEMPLATE_CHARACTERS = 100  # of each prompt, beside the texts of its row


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """Characters (N,) that the prompt of each example has about: known without a tokenizer."""
    texts = (sum(len(turn) for turns in example.fields.values() for turn in turns) for example in examples)
    return np.array([TEMPLATE_CHARACTERS + number for number in texts], dtype=np.int64)


def slices_of(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Row numbers in slices: first a sample of all lengths, the longest row among them, then the rest, shortest first.

    Shortest first answers most rows in a time that does not suffice for all. The longest row in the first slice shows
    at once whether the memory suffices.
    """
    wanted = max(SHARE * lengths.sum(), MIN_BATCHES * batch_tokens * CHARACTERS_PER_TOKEN)
    number = int(lengths.sum() // wanted)
    if number < 2:
        return [np.arange(len(lengths))]
    order = np.argsort(lengths, kind="stable")
    sample = np.unique(order[::-number])
    rest = order[~np.isin(order, sample)]
    places = np.minimum(np.cumsum(lengths[rest]) // wanted, number - 1).astype(np.int64)
    return [sample, *(np.sort(rest[places == place]) for place in np.unique(places))]
