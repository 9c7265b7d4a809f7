"""One fold from its rows to its scored weights: training, and the answers to the held-out rows."""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from nexttoken.build import Parts
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.journal import JournalFolder
from nexttoken.engine.label_answerer import mass_outside
from nexttoken.inference import Inference
from nexttoken.models.memory import peak_memory_mb
from nexttoken.models.processes import is_first
from nexttoken.progress import Deadline
from nexttoken.runs.fold_rows import Rows
from nexttoken.runs.folder import FoldFolder
from nexttoken.training.dev_metric import DevMetric
from nexttoken.training.learner import Learner
from nexttoken.training.probe_learner import ProbeLearner
from nexttoken.training.time_budget import TimeBudget
from nexttoken.types import LabelPredictions

MAX_ASKED = 200  # rows that are asked once more with the whole vocabulary, for the column `outside`


def train_and_predict(
    parts: Parts,
    learner: Learner | ProbeLearner,
    rows: Rows,
    fold: FoldFolder,
    loggers: list,
    deadline: Deadline | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train, then predict the held-out examples; return the predictions, and counts and times for metrics.json.

    Without held-out examples the predictions are None.
    """
    budget: Any = TimeBudget(deadline, len(rows.held_out)) if deadline else None
    fitted: list[Inference] = []  # before the dev rows are learnt: it may learn from them itself
    answerer, measured = learner.learn(
        fold.path,
        loggers,
        lambda chosen: fitted.append(parts.inference.fitted(rows.train, rows.dev, chosen)),
        DevMetric.of(parts.task, rows.dev, parts.settings.fit.choose_after_temperature),
        budget,
    )
    inference = fitted[0]
    if is_first():
        fold.save_state(inference.state())
    if not rows.held_out:
        return None, measured | answerer.environment | {"peak_memory_mb": peak_memory_mb()}
    answerer.reset_counts()
    answerer.journals = JournalFolder(fold.journals, "held-out rows", f"fold {fold.number}: ")
    start = time.monotonic()
    predictions: Any = inference(rows.held_out, answerer)
    seconds = time.monotonic() - start
    if "threshold" in measured:
        predictions = replace(predictions, threshold=measured["threshold"])
    if parts.settings.save_prompts and is_first():
        fold.save_prompts(answerer.prompts, answerer.labels)
    counts = dict(answerer.counts)
    if parts.settings.generate_rows and is_first():
        first = rows.held_out[: parts.settings.generate_rows]
        options = (parts.settings.generation, fold.journals / "texts.jsonl", "held-out rows")
        fold.save_texts(inference(first, lambda views: answerer.writer.write(views, *options)))  # type: ignore[union-attr]
    speed = {"rows_per_second": len(rows.held_out) / seconds, "peak_memory_mb": peak_memory_mb()}
    if isinstance(predictions, LabelPredictions):  # after the memory of the run's own way was measured
        predictions = with_row_facts(predictions, answerer)
    return predictions, measured | answerer.environment | counts | speed


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
