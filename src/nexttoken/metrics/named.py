"""Metrics by the expressions of a configuration: `auc_by(rule)`, `map_at(3)`, `f1(macro)`."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nexttoken.errors import UserError, nearest
from nexttoken.metrics.decisions import ABSOLUTE_ERROR, AVERAGES, WEIGHTED_KAPPA, f_score
from nexttoken.metrics.probabilities import BRIER_SCORE, METRICS
from nexttoken.metrics.rankings import AREA_UNDER_CURVE, MEAN_RECIPROCAL_RANK, map_at
from nexttoken.types import Metric

EXPRESSION = re.compile(r"\s*([A-Za-z]\w*)\s*(?:\((.*)\))?\s*", re.S)
PLAIN = {
    metric.name: metric
    for metric in (*METRICS, BRIER_SCORE, AREA_UNDER_CURVE, MEAN_RECIPROCAL_RANK, ABSOLUTE_ERROR, WEIGHTED_KAPPA)
} | {"qwk": replace(WEIGHTED_KAPPA, name="qwk", heading="QWK")}


def metrics_of(expression: Any) -> tuple[Metric, ...]:
    """The named metric first, then log loss, accuracy and calibration error.

    Raises UserError, naming the nearest one, where no metric has this name, or its arguments are none.
    """
    first = metric_named(expression)
    return (first, *(metric for metric in METRICS if metric.name != first.name))


def metric_named(expression: Any) -> Metric:
    """The metric of an expression. Raises UserError as `metrics_of` does."""
    found = EXPRESSION.fullmatch(expression) if isinstance(expression, str) else None
    name, argument = (found[1], found[2]) if found else (str(expression), None)
    if argument is None and (number := re.fullmatch(r"map_at_([1-9]\d{0,5})", name)):  # its key in metrics.json
        return map_at(int(number[1]))
    if name in PLAIN:
        if argument is not None:
            raise UserError(f"metric={expression}: {name} takes nothing in brackets; write {name}")
        return PLAIN[name]
    if (plain := name.removesuffix("_by")) in PLAIN and plain != name:
        return _by(plain, argument, expression)
    if name in FAMILIES:
        return FAMILIES[name]((argument or "").strip(), expression)
    known = [*PLAIN, "auc_by", *FAMILIES]
    raise UserError(f"metric={expression}: there is no metric of this name; {nearest(name, known)} ({EXAMPLES})")


def refuse_unfit(metric: Metric, classes: Sequence[str], are_learnt: bool) -> None:
    """Raise UserError for a binary F-score of more than two classes, and where learnt classes have no order."""
    if getattr(metric.function, "keywords", {}).get("average") == "binary" and len(classes) > 2:
        what = f"metric={metric.name} is of the second of two classes, and there are {len(classes)}"
        raise UserError(f"{what}; choose the average macro or micro")
    needs_order = metric.function in (ABSOLUTE_ERROR.function, WEIGHTED_KAPPA.function)
    if needs_order and are_learnt and not all(name.lstrip("-").isdecimal() for name in classes):
        what = f"metric={metric.name} needs classes in order, and the labels of the training rows are no whole numbers"
        raise UserError(f"{what}; give them in order, such as task.classes=[low,middle,high]")


def _by(name: str, column: str | None, expression: str) -> Metric:
    if not (column or "").strip():
        raise UserError(
            f"metric={expression}: give the column by whose values it is computed, such as {name}_by(topic)"
        )
    metric, column = PLAIN[name], str(column).strip()
    return replace(metric, name=f"{name}_by({column})", heading=f"{metric.title} by {column}", by=column)


def _map(argument: str, expression: str) -> Metric:
    if not re.fullmatch(r"[1-9]\d{0,5}", argument):
        raise UserError(f"metric={expression}: expected a whole number of ranks of at least 1, such as map_at(3)")
    return map_at(int(argument))


def _f1(average: str, expression: str) -> Metric:
    if average not in AVERAGES:
        raise UserError(f"metric={expression}: expected an average, f1(macro), f1(micro) or f1(binary)")
    return f_score(f"f1({average})", 1.0, average)


def _f_beta(argument: str, expression: str) -> Metric:
    beta, _, average = (part.strip() for part in argument.partition(","))
    try:
        number = float(beta)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf or average not in AVERAGES:
        raise UserError(f"metric={expression}: expected a number above 0 and an average, such as f_beta(0.5, macro)")
    return f_score(f"f_beta({number:g}, {average})", number, average)


FAMILIES: dict[str, Callable[[str, str], Metric]] = {"map_at": _map, "f1": _f1, "f_beta": _f_beta}
EXAMPLES = "such as log_loss, accuracy, auc, auc_by(topic), map_at(3), mrr, f1(macro), qwk, brier_score"
