"""What the texts of a question's options give away without their meaning: numbers per option, for the baseline."""

from collections.abc import Sequence
from math import log1p

import numpy as np

from nexttoken.transforms.counts import text_counts


def option_features(question: str, options: Sequence[str]) -> np.ndarray:
    """Numbers of each option of one question, (n, F); permuting the options permutes the rows."""
    pairs, asked = list(map(_pairs, options)), _pairs(question)
    rows = []
    for place, option in enumerate(options):
        counts = text_counts(option, question)
        likeness = [_likeness(pairs[place], other) for at, other in enumerate(pairs) if at != place] or [0.0]
        numbers = {
            "words": log1p(counts["words"]),
            "share of new words": counts["new_words"] / max(1, counts["words"]),
            "share of character pairs from the question": len(pairs[place] & asked) / max(1, len(pairs[place])),
            "stands in the question": float(bool(option) and option in question),
            "like the others": sum(sorted(likeness)) / len(likeness),  # sorted: the same sum in any order
            "like another": max(likeness),
            "share of digits": sum(map(str.isdecimal, option)) / max(1, len(option)),
        }
        rows.append(list(numbers.values()))
    return np.hstack([np.array(rows), _length_features(options)])


def _length_features(options: Sequence[str]) -> np.ndarray:
    """Length in characters, its rank, whether it is the longest or the shortest, and how far from the mean, (n, 5)."""
    lengths = np.array(list(map(len, options)), dtype=np.float64)
    longer_than = (lengths[:, None] > lengths).mean(axis=1) - (lengths[:, None] < lengths).mean(axis=1)
    sizes = np.log1p(lengths)
    from_mean = np.abs(sizes - np.log1p(np.sort(lengths)).mean())
    return np.column_stack([sizes, longer_than, lengths == lengths.max(), lengths == lengths.min(), from_mean])


def _pairs(text: str) -> set[str]:
    """Pairs of neighbouring characters; a single character is its own pair."""
    return {text[at : at + 2] for at in range(max(1, len(text) - 1))} if text else set()


def _likeness(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(1, len(first | second))
