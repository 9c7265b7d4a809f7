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


def slices_of(lengths: np.ndarray, batch_tokens: int, rows: np.ndarray | None = None) -> list[np.ndarray]:
    """Row numbers in slices: first a sample of all lengths, the longest row among them, then the rest, shortest first.

    Shortest first answers most rows in a time that does not suffice for all. The longest row in the first slice shows
    at once whether the memory suffices. Given `rows` alone are taken, in their order, as those of a cascade.
    """
    total = lengths.sum() if rows is None else lengths[rows].sum()
    wanted = max(SHARE * total, MIN_BATCHES * batch_tokens * CHARACTERS_PER_TOKEN)
    number = int(total // wanted)
    if rows is not None:
        return _cut(rows, lengths, wanted, max(number, 1))
    if number < 2:
        return [np.arange(len(lengths))]
    order = np.argsort(lengths, kind="stable")
    sample = np.unique(order[::-number])
    rest = order[~np.isin(order, sample)]
    return [sample, *_cut(rest, lengths, wanted, number)]


def _cut(rows: np.ndarray, lengths: np.ndarray, wanted: float, number: int) -> list[np.ndarray]:
    """The rows in at most so many slices of about the wanted length, the rows of each by number."""
    places = np.minimum(np.cumsum(lengths[rows]) // wanted, number - 1).astype(np.int64)
    return [np.sort(rows[places == place]) for place in np.unique(places)]
