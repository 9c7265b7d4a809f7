"""The configured loggers of a fold, such as TensorBoard: they get its settings first and its scores last."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexttoken.data.targets import make


@contextmanager
def opened_loggers(nodes: Mapping[str, Mapping[str, Any]], folder: Path, settings: Mapping[str, Any]) -> Iterator[list]:
    """Lightning's loggers of the `_target_` nodes, which have logged the flat `settings`; closed at the end."""
    loggers = [make({**node, "save_dir": str(folder)}, "logger") for node in nodes.values()]
    for logger in loggers:
        logger.log_hyperparams(dict(settings))
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.finalize("success")
            getattr(logger.experiment, "finish", lambda: None)()  # else wandb writes the next fold into this run


def log_scores(loggers: list, scores: Mapping[str, Any], step: int) -> None:
    """Log the numbers among the out-of-fold `scores` as `oof_<name>`, at the optimizer step that was taken.

    A name such as `auc_by(rule)` becomes `oof_auc_by_rule`: MLflow refuses brackets.
    """
    numbers = {f"oof_{name}": float(score) for name, score in scores.items() if isinstance(score, int | float)}
    numbers = {re.sub(r"[^\w. /-]+", "_", name).strip("_"): number for name, number in numbers.items()}
    for logger in loggers if numbers else ():
        logger.log_metrics(numbers, step)
