"""Transforms that add what a model can learn from: the other order of a pair, and the counts it cannot make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nexttoken.baselines import pair_features
from nexttoken.errors import UserError, first_five
from nexttoken.types import Example

SWAPPED_CLASSES = (1, 0, 2)  # A wins, B wins, tie: after a swap class k is class SWAPPED_CLASSES[k]


def swap_sides(example: Example) -> Example:
    """Exchange every field ending in `_a` with its `_b`, and the label with them; twice is the identity."""
    partner = {"_a": "_b", "_b": "_a"}
    fields = {name[:-2] + partner.get(name[-2:], name[-2:]): turns for name, turns in example.fields.items()}
    label = None if example.label is None else SWAPPED_CLASSES[example.label]
    return replace(example, fields={name: fields[name] for name in example.fields}, label=label)


@dataclass(frozen=True)
class BothOrders:
    """Every pair in both orders, under one id: the two share an optimizer step (tascj: -0.003 over a random swap)."""

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [order for example in examples for order in (example, swap_sides(example))]


@dataclass(frozen=True)
class AddCounts:
    """Tell the prompt how two answers compare in what a model cannot count itself, above all where texts are cut.

    For each of `compared`, a name of `PairFeatures.signed`, the fields `<name>_a` and `<name>_b` hold a coarse step of
    the difference: "++" is two steps more than the other side, "-" one less, "=" about equal. `overlap` holds a digit
    from 0 (no word in common) to 9 (the same words). They are fixed functions of one row's whole texts, and swapping
    the answers swaps them.
    """

    compared: Sequence[str] = ("new_words", "paragraphs", "distinct_share", "characters")
    steps_per_doubling: int = 2
    steps_per_share: int = 10
    largest: int = 4

    def __post_init__(self) -> None:
        known = pair_features("", "").signed
        if unknown := [name for name in self.compared if name not in known]:
            raise UserError(f"transforms: {first_five(unknown)} cannot be compared; choose from {', '.join(known)}")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [replace(example, fields={**example.fields, **self._counts(example)}) for example in examples]

    def _counts(self, example: Example) -> dict[str, tuple[str, ...]]:
        first, second, context = ("\n".join(example.fields[name]) for name in ("response_a", "response_b", "prompt"))
        features = pair_features(first, second, context)
        counts: dict[str, tuple[str, ...]] = {"overlap": (str(round(features.shared["overlap"] * 9)),)}
        for name in self.compared:
            steps = self._steps(name, features.signed[name])
            counts |= {f"{name}_a": (_signs(steps),), f"{name}_b": (_signs(-steps),)}
        return counts

    def _steps(self, name: str, difference: float) -> int:
        """Differences of logarithms in parts of a doubling, of shares in parts of the whole, at most `largest`."""
        scale = self.steps_per_share if name.endswith("share") else self.steps_per_doubling / math.log(2)
        return max(-self.largest, min(self.largest, round(difference * scale)))


def _signs(steps: int) -> str:
    return "=" if steps == 0 else ("+" if steps > 0 else "-") * abs(steps)
