"""The scores of a run before and after each method of calibration."""

from collections.abc import Mapping

from nexttoken.metrics.probabilities import BRIER_SCORE, METRICS
from nexttoken.report.markdown import loss_cell, markdown
from nexttoken.runs.scored_runs import Run

SHORT = {"expected_calibration_error": "ECE", "brier_score": "Brier"}


def calibration_table(runs: Mapping[str, Run]) -> str:
    """A row for each of the runs, which hold the same rows with other probabilities: the task's metric, log loss,
    accuracy, expected calibration error and Brier score over all out-of-fold rows."""
    own = next(iter(runs.values())).metric
    metrics = {metric.name: metric for metric in (own, *METRICS, BRIER_SCORE)}
    header = ["probabilities", *(SHORT.get(name, metric.title) for name, metric in metrics.items())]
    rows = [[name, *(loss_cell(run.score(metric)) for metric in metrics.values())] for name, run in runs.items()]
    return markdown(header, rows)
