"""Texts that a run generated for its held-out rows, with the answers they should be, and their scores."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nexttoken.metrics.texts import TEXT_METRICS
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read_open import OpenRun
from nexttoken.types import DIALOGUE, Example


@dataclass(frozen=True)
class Outputs:
    """Texts that a run generated, and the examples they answer, both by id; the examples hold the references.

    A dialogue has an example for each of its answers, `<id>#<k>`.
    """

    texts: Mapping[str, str]
    examples: Mapping[str, Example]


def saved_outputs(run: OpenRun, loaded: LoadedRun) -> Outputs:
    """The outputs in the folds' generated.jsonl, and all held-out examples.

    Raises UserError where generated.jsonl is broken, or the run's data is missing.
    """
    texts: dict[str, str] = {}
    examples: dict[str, Example] = {}
    for fold in run.folds:
        held_out = loaded.held_out(fold)
        texts |= texts_by_id(fold)
        if any(DIALOGUE in example.fields for example in held_out):
            held_out = loaded.parts.inference.views(held_out, [])  # without passages or demonstrations
        examples |= {example.id: example for example in held_out}
    return Outputs({row_id: text for row_id, text in texts.items() if row_id in examples}, examples)


def texts_by_id(folder: FoldFolder) -> dict[str, str]:
    saved = folder.texts()
    return dict(zip(saved.ids, saved.texts, strict=True))


def score_texts(run: OpenRun, outputs: Outputs) -> pd.DataFrame:
    """A table of id, group, costs, fold; output, its text scores and `mark`, NaN for rows without an output."""
    rows = run.rows
    rows["output"] = rows["id"].map(outputs.texts).astype(object)
    references = rows["id"].map({row_id: example.answer for row_id, example in outputs.examples.items()})
    known = rows["output"].notna() & references.notna()
    for metric in TEXT_METRICS:
        rows[metric.name] = np.nan
        rows.loc[known, metric.name] = metric.function(rows.loc[known, "output"].tolist(), references[known].tolist())
    return rows.assign(mark=np.nan)
