"""The configured loggers of a fold, such as TensorBoard: they get its settings first and its scores last."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from nexttoken.data.targets import make

TEXT_SCORES = ("log_loss", "perplexity", "nll_per_character")  # of open answers


@contextmanager
def opened_loggers(
    nodes: Mapping[str, Mapping[str, Any]], folder: Path, settings: Mapping[str, Any], scores: Sequence[str] = ()
) -> Iterator[list]:
    """Lightning's loggers of the `_target_` nodes, which have logged the flat `settings`; closed at the end.

    `scores` are the names of the scores to come: TensorBoard's table of settings has columns for no others.
    """
    loggers = [make({**node, "save_dir": str(folder)}, "logger") for node in nodes.values()]
    values = {_allowed(name): value for name, value in settings.items()}
    columns = dict.fromkeys(map(_key, scores), math.nan)
    for logger in loggers:
        with_columns = {"metrics": columns} if columns and isinstance(logger, TensorBoardLogger) else {}
        logger.log_hyperparams(values, **with_columns)
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.finalize("success")
            getattr(logger.experiment, "finish", lambda: None)()  # else wandb writes the next fold into this run


def score_names(task: Any) -> tuple[str, ...]:
    """The names of the scores that a fold of the task will have."""
    return tuple(metric.name for metric in getattr(task, "metrics", ())) or TEXT_SCORES


def log_scores(loggers: list, scores: Mapping[str, Any], step: int) -> None:
    """Log the numbers among the out-of-fold `scores` as `oof_<name>`, at the optimizer step that was taken."""
    numbers = {_key(name): float(score) for name, score in scores.items() if isinstance(score, int | float)}
    for logger in loggers if numbers else ():
        logger.log_metrics(numbers, step)


def _key(score: str) -> str:
    return _allowed(f"oof_{score}")


def _allowed(name: str) -> str:
    """A name such as `auc_by(rule)` as `auc_by_rule`: MLflow refuses brackets, in settings as well."""
    return re.sub(r"[^\w. /-]+", "_", name).strip("_")
