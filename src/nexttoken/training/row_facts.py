"""Facts about a fold's held-out rows beside their probabilities, as columns of rows.csv."""

from dataclasses import replace
from typing import Any

import numpy as np

from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_mass import mass_outside
from nexttoken.types import LabelPredictions

MAX_ASKED = 200  # rows that are asked once more with the whole vocabulary, for the column `outside`


def with_row_facts(predictions: LabelPredictions, answerer: Any) -> LabelPredictions:
    """The predictions with two more columns (N,), from the prompts that the answerer collected for them.

    `truncated` is True where a prompt of the row was cut to the token limit. `outside` is the probability of other
    texts than the labels for the first rows, NaN for later ones; heads without a vocabulary have no such column.
    """
    cut = {prompt.id for prompt in answerer.prompts if prompt.was_cut}
    columns = {"truncated": np.array([one in cut for one in predictions.ids], dtype=bool)}
    head = getattr(answerer, "head", None)
    if isinstance(head, LabelSoftmax) and "vocabulary" in head.offers:
        columns["outside"] = _outside(predictions, answerer)
    return replace(predictions, columns={**predictions.columns, **columns})


def _outside(predictions: LabelPredictions, answerer: Any) -> np.ndarray:
    prompts: dict[str, Any] = {}
    for prompt in answerer.prompts:  # of a row that is asked in several ways the first
        prompts.setdefault(prompt.id, prompt)
    asked = [one for one in predictions.ids[:MAX_ASKED] if one in prompts]
    model = (answerer.model, [prompts[one] for one in asked], answerer.labels, answerer.batch_tokens)
    known = dict(zip(asked, mass_outside(*model).tolist(), strict=True)) if asked else {}
    return np.array([known.get(one, np.nan) for one in predictions.ids])
