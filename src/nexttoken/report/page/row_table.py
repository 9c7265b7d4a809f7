"""The rows of a chapter's runs as arrays: probabilities, losses and guesses of each row by each run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nexttoken.metrics.probabilities import log_losses
from nexttoken.runs.scored_runs import Run, probabilities


@dataclass(frozen=True)
class RowTable:
    """N rows of R runs with K classes; a row that a run lacks has NaN there, and -1 as its guess.

    `probs` (R, N, K), `losses` and `guesses` (R, N), `ids`, `folds` and `labels` (N,): the rows of the first run in
    its order, then those that only later runs have.
    """

    ids: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    probs: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "RowTable":
        tables = [run.oof.set_index("id") for run in runs]
        facts = pd.concat([table[["fold", "label"]] for table in tables])
        facts = facts[~facts.index.duplicated()]
        classes = [probabilities(run.oof) for run in runs]
        probs = np.full((len(runs), len(facts), classes[0].shape[1]), np.nan)
        losses = np.full(probs.shape[:2], np.nan)
        for place, (table, own) in enumerate(zip(tables, classes, strict=True)):
            rows = facts.index.get_indexer(table.index)
            probs[place, rows] = own
            losses[place, rows] = log_losses(own, table["label"].to_numpy())
        return cls(facts.index.to_numpy(), facts["fold"].to_numpy(), facts["label"].to_numpy(), probs, losses)

    @property
    def guesses(self) -> np.ndarray:
        known = np.isfinite(self.losses)
        return np.where(known, np.nan_to_num(self.probs, nan=-1.0).argmax(axis=2), -1)

    def only(self, rows: np.ndarray) -> "RowTable":
        """The table of these rows, by their places."""
        facts = (self.ids[rows], self.folds[rows], self.labels[rows])
        return RowTable(*facts, self.probs[:, rows], self.losses[:, rows])
