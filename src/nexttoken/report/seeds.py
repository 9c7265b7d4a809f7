"""Runs of one configuration with several seeds: their mean, their average, and how far seeds alone move a score."""

from collections.abc import Sequence

import numpy as np

from nexttoken.metrics.intervals import noise_band
from nexttoken.report.markdown import loss_cell, markdown, mean_cell
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.replicas import differ_in_seed
from nexttoken.runs.scored_runs import Run, probabilities
from nexttoken.types import Metric


def seeds_section(runs: Sequence[Run]) -> list[str]:
    """The section of the page, a row for each configuration with two seeds or more; [] where there is none."""
    groups = [group for group in replicas_among(runs) if len(group) > 1]
    if not groups:
        return []
    rows = []
    for group in groups:
        metric = group[0].metric
        scores = [run.score(metric) for run in group]
        rows.append(
            [
                group[0].title,
                str(len(group)),
                metric.title,
                mean_cell(scores),
                loss_cell(average_score(group, metric)),
                loss_cell(noise_band(np.array([scores]))),
            ]
        )
    header = ["first run", "seeds", "metric", "mean ± std over seeds", "their average", "noise band"]
    note = (
        "Noise band: two runs of one configuration with other seeds differ by less in 95 % of cases (Student's t of the"
        " spread over seeds). A smaller difference between single runs says nothing. The average is that of the"
        " probabilities, as predict.py makes it."
    )
    return ["## Seeds", markdown(header, rows), note]


def replicas_among(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups that differ in the seed alone, on the same data and folds."""
    groups: list[tuple[tuple, dict, list[Run]]] = []
    for run in runs:
        fold = FoldFolder(run.folds[0].folder)
        config = fold.config() if fold.config_path.exists() else {}
        rows = (run.data, tuple(fold.number for fold in run.folds))
        same = (of for key, first, of in groups if key == rows and differ_in_seed(first, config))
        if (group := next(same, None)) is None:
            groups.append((rows, config, [run]))
        else:
            group.append(run)
    return [group for _, _, group in groups]


def average_score(group: Sequence[Run], metric: Metric) -> float | None:
    """The score of the mean of the runs' probabilities, row by row; None where they are of other rows."""
    tables = [run.oof.set_index("id") for run in group]
    if any(set(table.index) != set(tables[0].index) for table in tables):
        return None
    means = [
        np.mean([probabilities(table.loc[fold.oof["id"]].reset_index()) for table in tables], axis=0)
        for fold in group[0].folds
    ]
    return group[0].with_probs(means).score(metric)
