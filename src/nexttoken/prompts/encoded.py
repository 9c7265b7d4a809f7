"""Encoded examples with open answers: token ids, a mask of the tokens that are learnt, and counts of changes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nexttoken.prompts.label_tokens import LabelTokens

NO_LABELS = LabelTokens((), (), (), 0)


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One example with its answer: `token_ids` (T,) int32, and the mask `learnt` (T,) bool."""

    id: str
    source: str | Callable[[], str]
    token_ids: np.ndarray
    learnt: np.ndarray
    was_cut: bool
    share_cut: float = 0.0  # of the characters of its fields
    answer_cut: bool = False
    round: int = 0

    @property
    def text(self) -> str:
        """The text of `token_ids`, decoded on demand."""
        return self.source if isinstance(self.source, str) else self.source()

    @property
    def num_targets(self) -> int:
        return int(self.learnt.sum())


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """All encoded examples of a split, and counts of changes."""

    prompts: list[EncodedText]
    num_disarmed: int
    left_out: tuple[str, ...] = ()  # ids of rows whose answers alone are longer than the budget
    labels: LabelTokens = NO_LABELS

    def counts(self) -> dict[str, int | float]:
        lost = [row.share_cut for row in self.prompts if row.share_cut]
        return {
            "num_truncated": sum(row.was_cut for row in self.prompts),  # demonstrations or text
            "mean_share_cut": float(np.mean(lost)) if lost else 0.0,  # among rows that lost text
            "num_answers_cut": sum(row.answer_cut for row in self.prompts),
            "num_left_out": len(self.left_out),
            "num_disarmed": self.num_disarmed,
        }
