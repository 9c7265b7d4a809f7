"""The baselines of a table, by its columns: of pairs, of rows with their own solved examples, and of words."""

from collections.abc import Sequence

from nexttoken.tasks.baselines.own_examples import OwnExamplesBaseline
from nexttoken.tasks.baselines.regression import PairBaseline
from nexttoken.tasks.baselines.words import WordBaseline
from nexttoken.tasks.solved_examples import SolvedExamples
from nexttoken.types import Baseline, Swap


def choose_baselines(
    fields: Sequence[str], num_classes: int, swap: Swap | None, solved: SolvedExamples | None
) -> tuple[Baseline, ...]:
    """Return the baselines for rows of `fields`, the one that fits best first."""
    sides = [next((name for name in fields if name.endswith(side)), "") for side in (swap.sides if swap else ())]
    if swap and all(sides):
        shared = next((name for name in fields if not name.endswith(swap.sides)), sides[0])
        return (PairBaseline((sides[0], sides[1]), shared, swap.classes),)
    words = WordBaseline(num_classes, tuple(fields))
    if solved and num_classes == 2 and all(map(solved.of_class, range(num_classes))):
        return (OwnExamplesBaseline(solved.text, solved.of_class(1), solved.of_class(0)), words)
    return (words,)
