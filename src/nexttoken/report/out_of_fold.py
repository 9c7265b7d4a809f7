"""The scores of the same out-of-fold rows with several probabilities, such as before and after a calibration."""

from collections.abc import Mapping

from nexttoken.metrics.probabilities import BRIER_SCORE, METRICS
from nexttoken.report.markdown import loss_cell, markdown
from nexttoken.runs.scored_runs import Run

SHORT = {"expected_calibration_error": "ECE", "brier_score": "Brier"}


def out_of_fold_table(runs: Mapping[str, Run]) -> str:
    """A row for each of the named runs, over all rows: the task's metric, log loss, accuracy, ECE and Brier score."""
    own = next(iter(runs.values())).metric
    metrics = {metric.name: metric for metric in (own, *METRICS, BRIER_SCORE)}
    header = ["probabilities", *(SHORT.get(name, metric.title) for name, metric in metrics.items())]
    rows = [[name, *(loss_cell(run.score(metric)) for metric in metrics.values())] for name, run in runs.items()]
    return markdown(header, rows)
