"""The journal of label probabilities: a prediction that is killed goes on with the rows that it has.

Every line is {key, id, probs, seconds}. Batches are composed as if nothing were known and a batch is skipped as a
whole, so the probabilities are those of an undisturbed prediction to the last bit.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.models.encode import EncodedPrompt
from nexttoken.models.journal import Journal
from nexttoken.ranks import num_ranks, rank

Ask = Callable[[Sequence[EncodedPrompt]], np.ndarray]  # the n rows of a batch -> (n, C) float64


@dataclass(frozen=True, slots=True)
class Answered:
    """A row's probabilities (C,) and the seconds that they took."""

    id: str
    probs: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Keeping:
    """Where answers are kept, if anywhere, and what they depend on besides a row's tokens: the model that gave them."""

    folder: Path | None = None
    made_by: str = ""

    def journal(self, asked: Mapping[str, Any]) -> "AnswerJournal":
        """The journal of this process for what is asked of the model; each has its own. Nothing is created yet."""
        if self.folder is None:
            return NOT_KEPT
        asked = {"made_by": self.made_by, **asked, "process": f"{rank()} of {num_ranks()}"}
        name = hashlib.sha256(repr(sorted(asked.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return AnswerJournal(self.folder / f"{name}.jsonl", asked)


def key(prompt: EncodedPrompt) -> str:
    """The same for the same tokens and options: both orders and a second asking are told apart, folds by the file."""
    own = f"{prompt.num_options} ".encode() + prompt.token_ids.astype("<i4").tobytes()
    return hashlib.sha256(own).hexdigest()[:32]


class AnswerJournal(Journal[Answered]):
    """Answered rows. Without a path it keeps nothing and knows nothing."""

    sync_seconds = 1.0
    num_known = 0  # rows that were not asked again

    def around(self, ask: Ask) -> Ask:
        """`ask` with a further column, the seconds that a row took before: it takes none now. (n, C + 1)"""
        if self.path is None:
            return lambda rows: np.pad(ask(rows), ((0, 0), (0, 1)))

        def known_or_asked(rows: Sequence[EncodedPrompt]) -> np.ndarray:
            keys = [key(row) for row in rows]
            if any(own not in self.rows for own in keys):
                start = time.perf_counter()
                found = ask(rows)
                return self._added(rows, keys, found, time.perf_counter() - start)
            self.num_known += len(rows)
            return np.array([[*self.rows[own].probs, self.rows[own].seconds] for own in keys])

        return known_or_asked

    def _added(self, rows: Sequence[EncodedPrompt], keys: list[str], found: np.ndarray, seconds: float) -> np.ndarray:
        """What was known first stays: the same tokens have the same answer, whatever batch they came in."""
        sizes = np.array([len(row.token_ids) for row in rows])
        for row, own, probs, share in zip(rows, keys, found, seconds * sizes / sizes.sum(), strict=True):
            if own not in self.rows and np.isfinite(probs).all():
                self.add(own, Answered(row.id, probs, float(share)))
        probs = [self.rows[own].probs if own in self.rows else one for own, one in zip(keys, found, strict=True)]
        return np.pad(np.array(probs), ((0, 0), (0, 1)))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self.num_known:
            print(f"{self.num_known} rows were answered before ({self.path})")

    def _row(self, line: Mapping[str, Any]) -> Answered | None:
        with suppress(KeyError, TypeError, ValueError):
            answered = Answered(line["id"], np.array(line["probs"], float), float(line["seconds"]))
            if answered.probs.ndim == 1 and len(answered.probs) and np.isfinite(answered.probs).all():
                return answered
        return None

    def _values(self, row: Answered) -> dict[str, Any]:
        return {"id": row.id, "probs": row.probs.tolist(), "seconds": row.seconds}


NOT_KEPT = AnswerJournal(None, {})
