"""Metrics by name: one spelling each, the task's own first, and a wrong one refused with the nearest."""

import numpy as np
import pytest

from nexttoken.errors import UserError
from nexttoken.metrics.decisions import MARK_METRICS
from nexttoken.metrics.named import metric_named, metrics_of, refuse_unfit
from nexttoken.metrics.rankings import QUIZ_METRICS


@pytest.mark.parametrize(
    ("expression", "name", "higher"),
    [
        ("log_loss", "log_loss", False),
        ("accuracy", "accuracy", True),
        ("brier_score", "brier_score", False),
        ("auc", "auc", True),
        ("auc_by(rule)", "auc_by(rule)", True),
        (" auc_by( a column, with (marks) ) ", "auc_by(a column, with (marks))", True),
        ("accuracy_by(genre)", "accuracy_by(genre)", True),
        ("map_at(3)", "map_at_3", True),
        ("map_at_25", "map_at_25", True),
        ("mrr", "mrr", True),
        ("f1( macro )", "f1(macro)", True),
        ("f_beta(0.50,micro)", "f_beta(0.5, micro)", True),
        ("qwk", "qwk", True),
    ],
)
def test_an_expression_names_one_metric_that_stands_first(expression, name, higher):
    first, *others = metrics_of(expression)
    assert (first.name, first.higher_is_better) == (name, higher)
    expected = ["log_loss", "accuracy", "expected_calibration_error"]
    assert [metric.name for metric in others] == [other for other in expected if other != name]
    assert metric_named(first.name).name == name  # its key in metrics.json names it, too


@pytest.mark.parametrize("metric", [*QUIZ_METRICS, *MARK_METRICS], ids=lambda metric: metric.name)
def test_every_metric_of_the_shipped_tasks_has_a_name(metric):
    assert metric_named(metric.name).name == metric.name


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("acuracy", "did you mean 'accuracy'"),
        ("map3", "did you mean 'map_at'"),
        ("AUC", "did you mean 'auc'"),
        ("map_at", "map_at\\(3\\)"),
        ("map_at(0)", "at least 1"),
        ("map_at(x)", "whole number"),
        ("f1", "f1\\(macro\\)"),
        ("f1(weighted)", "expected an average"),
        ("f_beta(macro)", "f_beta\\(0.5, macro\\)"),
        ("f_beta(-1, macro)", "above 0"),
        ("f_beta(nan, macro)", "above 0"),
        ("auc(rule)", "takes nothing in brackets"),
        ("auc_by", "auc_by\\(topic\\)"),
        ("auc_by()", "auc_by\\(topic\\)"),
        ("", "no metric of this name"),
        (None, "no metric of this name"),
        (["auc"], "no metric of this name"),
        ({"auc": 1}, "no metric of this name"),
        (3, "no metric of this name"),
    ],
)
def test_a_wrong_expression_is_one_line(expression, reason):
    with pytest.raises(UserError, match=reason) as refused:
        metrics_of(expression)
    assert "\n" not in str(refused.value)


def test_a_metric_by_a_column_is_the_mean_over_its_values():
    metric = metric_named("auc_by(rule)")
    assert metric.by == "rule"
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    labels, rules = np.array([0, 1, 0, 1, 1]), ["a", "a", "b", "b", "c"]
    assert metric.scores_by(probs, labels, rules) == pytest.approx({"a": 1.0, "b": 0.0, "c": np.nan}, nan_ok=True)
    assert metric.score(probs, labels, rules) == 0.5  # c has one class only
    assert np.isnan(metric.score(probs[4:], labels[4:], rules[4:]))
    with pytest.raises(UserError, match="needs rule of every row"):
        metric.score(probs, labels)


def test_a_score_that_cannot_be_computed_is_the_worst():
    for name in ("auc", "log_loss"):
        metric, none = metric_named(name), float("nan")
        assert metric.is_better(0.3, none)
        assert not metric.is_better(none, 0.3)
        assert not metric.is_better(none, none)
        assert metric.is_better(0.6, 0.5) is metric.higher_is_better
        assert not metric.is_better(0.5, 0.5)


@pytest.mark.parametrize("expression", ["f1(binary)", "f_beta(0.5, binary)"])
def test_a_binary_f_score_is_of_two_classes(expression):
    refuse_unfit(metric_named(expression), ["no", "yes"], are_learnt=True)
    with pytest.raises(UserError) as error:
        refuse_unfit(metric_named(expression), ["a", "b", "tie"], are_learnt=True)
    what = f"metric={metric_named(expression).name} is of the second of two classes, and there are 3"
    assert str(error.value) == f"{what}; choose the average macro or micro"


@pytest.mark.parametrize("expression", ["qwk", "weighted_kappa", "mean_absolute_error"])
def test_marks_need_classes_in_order(expression):
    metric = metric_named(expression)
    refuse_unfit(metric, ["-1", "0", "12"], are_learnt=True)
    refuse_unfit(metric, ["low", "high"], are_learnt=False)  # typed in order
    refuse_unfit(metric_named("f1(macro)"), ["low", "high", "middle"], are_learnt=True)
    with pytest.raises(UserError) as error:
        refuse_unfit(metric, ["1", "high"], are_learnt=True)
    what = f"metric={metric.name} needs classes in order, and the labels of the training rows are no whole numbers"
    assert str(error.value) == f"{what}; give them in order, such as task.classes=[low,middle,high]"
