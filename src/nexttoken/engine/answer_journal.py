"""The journal of label probabilities: a prediction that is killed goes on with the rows that it has.

Every line is {key, id, probs, seconds}. Batches are composed as if nothing were known and a batch is skipped as a
whole, so the probabilities are those of an undisturbed prediction to the last bit; a gate's second ones, which would
have gone on from what was read before the kill, to rounding.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.engine.journal import Journal
from nexttoken.models.processes import num_ranks, rank
from nexttoken.prompts.encode_labels import EncodedPrompt


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

    def known(self, rows: Sequence[EncodedPrompt]) -> tuple[np.ndarray, np.ndarray] | None:
        """What was said of `rows` before, (n, C), and the seconds it took then, (n,); None unless all are known."""
        found = [self.rows.get(key(row)) for row in rows] if self.path else [None]
        if any(one is None for one in found):
            return None
        answered = [one for one in found if one is not None]
        return np.array([one.probs for one in answered]), np.array([one.seconds for one in answered])

    def added(self, rows: Sequence[EncodedPrompt], found: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Keep what was found (n, C) and return what counts: what was known first stays, for the same tokens have the
        same answer, whatever batch they came in.
        """
        if self.path is None:
            return found
        keys = [key(row) for row in rows]
        for row, own, probs, share in zip(rows, keys, found, seconds, strict=True):
            if own not in self.rows and np.isfinite(probs).all():
                self.add(own, Answered(row.id, probs, float(share)))
        return np.array(
            [self.rows[own].probs if own in self.rows else one for own, one in zip(keys, found, strict=True)]
        )

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
