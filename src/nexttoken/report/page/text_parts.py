"""The texts of a chapter's rows by their parts: the prompt, and the answers between which the task decides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.data.targets import make
from nexttoken.errors import UserError
from nexttoken.report.page.chapter import Chapter
from nexttoken.types import OPTIONS, Example, Swap


@dataclass(frozen=True)
class Texts:
    """The texts of M rows: `prompts`, the number of `turns` (M,), and `answers`, a tuple for each row or ().

    The answers are those of a pair in their order, or the options. `places` finds a row by its id.
    """

    places: dict[str, int]
    prompts: list[str]
    answers: list[tuple[str, ...]]
    turns: np.ndarray

    @classmethod
    def of(cls, chapter: Chapter) -> "Texts":
        """The texts of all held-out rows of the chapter; none where they cannot be read."""
        rows, swap = [*chapter.examples.values()], swap_of(chapter)
        first = rows[0].fields if rows else {}
        sides = [[name for name in first if name.endswith(end)] for end in (swap.sides if swap else ())]
        parts = {name for side in sides for name in side} | {OPTIONS}
        others = [[name for name in one.fields if name not in parts] for one in rows]
        return cls(
            {one.id: place for place, one in enumerate(rows)},
            [_joined(one, names) for one, names in zip(rows, others, strict=True)],
            [_answers(one, sides) for one in rows],
            np.array([_num_turns(one, names) for one, names in zip(rows, others, strict=True)]),
        )

    def find(self, ids: np.ndarray) -> np.ndarray | None:
        """The places of the rows `ids`; None where a row's text is not here."""
        places = [self.places.get(one, -1) for one in ids]
        return np.array(places) if places and min(places) >= 0 else None


def swap_of(chapter: Chapter) -> Swap | None:
    """The classes that change places with the answers of a pair; None for a task without pairs."""
    try:
        task = make(chapter.configs[0]["task"], "task")
        return Swap.of(task) if "pairs" in getattr(task, "offers", ()) else None
    except (UserError, KeyError):  # a task that says nothing of its pairs, or a configuration of an earlier version
        return None


def _answers(example: Example, sides: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(_joined(example, side) for side in sides) if sides else example.fields.get(OPTIONS, ())


def _num_turns(example: Example, names: Sequence[str]) -> int:
    return max((len(example.fields[name]) for name in names), default=0)


def _joined(example: Example, names: Sequence[str]) -> str:
    return "\n".join(turn for name in names for turn in example.fields.get(name, ()))
