"""A fold's scores beside its references: each by its definition, and published only what is the competition's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nexttoken.errors import UserError
from nexttoken.metrics.rankings import QUIZ_METRICS, chance_map, map_at_3
from nexttoken.report.tables import reference_names
from nexttoken.runs.answer_set import PUBLISHED_ROWS, Labels
from nexttoken.runs.fold_rows import labels_of
from nexttoken.runs.scored_runs import data_of
from nexttoken.tasks.baselines.options import OptionBaseline
from nexttoken.tasks.preference import Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.types import Example, LabelPredictions
from support.composed import settings

SAMPLE = Path(__file__).resolve().parents[2] / "input" / "sample-preferences"


def questions(num_rows: int) -> list[Example]:
    draw = np.random.default_rng(num_rows)
    made = []
    for number in range(num_rows):
        size = 2 + number % 4
        options = tuple("x" * int(length) for length in draw.integers(1, 9, size))
        made.append(Example(str(number), {"question": ("How?",), "options": options}, int(draw.integers(size)), size))
    return made


def test_a_quiz_is_ranked_beside_chance_and_baseline():
    seen, held_out = questions(60), questions(40)
    references = Labels().references(Quiz("mine", SAMPLE), seen, held_out)
    baseline = OptionBaseline(5).fit(seen).predict(held_out)
    assert references["baseline_map_at_3"] == map_at_3(baseline, labels_of(held_out))
    assert references["chance_map_at_3"] == chance_map([example.num_options for example in held_out])
    assert references["best_possible_log_loss"] is None


def test_every_metric_is_scored_for_the_prior_and_the_baseline_too():
    task = Quiz("mine", SAMPLE, metric="map_at(2)")
    references = Labels().references(task, questions(60), questions(40))
    names = {metric.name for metric in task.metrics}
    assert {"map_at_2", "map_at_3", "log_loss", "accuracy"} < names
    for prefix in ("prior", "baseline"):
        assert references.keys() >= {f"{prefix}_{name}" for name in names}
    assert references["prior_map_at_2"] < references["prior_map_at_3"]
    assert Labels().describe(settings(), task, 60, 40)["metric"] == "map_at_2"


def test_each_baseline_of_a_task_is_scored_under_its_name():
    class Guess:
        name = "guess"

        def fit(self, examples):
            return self

        def predict(self, examples):
            return np.full((len(examples), 5), 0.2)

    class Both(Quiz):
        def baselines(self):
            return (*super().baselines(), Guess())

    references = Labels().references(Both("mine", SAMPLE), questions(60), questions(40))
    assert references["baselines"] == ["option baseline", "guess"]
    assert references["baseline_2_log_loss"] == pytest.approx(np.log(5))
    assert references["baseline_log_loss"] != references["baseline_2_log_loss"]
    saved = references | {"task": "t", "dataset": "d", "is_published_data": False}
    names = [*reference_names(data_of(saved)).values()]
    assert names == ["uniform guess", "class prior", "option baseline", "guess", "best possible"]


def test_a_metric_that_cannot_be_computed_is_null_and_what_is_left_out_is_named():
    rows = [replace(row, tags={"genre": "ab"[number % 2]}, label=0) for number, row in enumerate(questions(8))]
    predictions = LabelPredictions(tuple("abcdefgh"), np.full((8, 5), 0.2))
    task = Quiz("mine", SAMPLE, metric="auc_by(genre)")
    scores = Labels().score(task, predictions, rows)
    assert scores["auc_by(genre)"] is None
    assert scores["left_out"] == ["a", "b"]
    rows[1] = replace(rows[1], label=1)
    scores = Labels().score(task, predictions, rows)
    assert (scores["auc_by(genre)"], scores["left_out"]) == (0.5, ["a"])


def test_a_metric_by_a_column_that_questions_lack_is_refused():
    with pytest.raises(UserError, match="questions have no rule"):
        Quiz("mine", SAMPLE, metric="auc_by(rule)")
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        Quiz("mine", SAMPLE, metric="acuracy")


def test_pairs_are_not_ranked():
    task = Preference(SAMPLE)
    rows = task.read("train")[:60]
    references = Labels().references(task, rows[:40], rows[40:])
    assert not any("map_at_3" in name for name in references)
    assert references["uniform_log_loss"] == pytest.approx(np.log(3))
    assert references["best_possible_log_loss"] is not None


def test_shares_are_those_of_the_yes_or_no_columns():
    columns = {"searched": np.array([True, False, True, True]), "seconds": np.ones(4)}
    predictions = LabelPredictions(tuple("abcd"), np.full((4, 5), 0.2), columns)
    scores = Labels().score(Quiz("mine", SAMPLE), predictions, questions(4))
    assert {name for name in scores if name.startswith("share")} == {"share_searched"}
    assert scores["share_searched"] == 0.75
    assert scores.keys() >= {metric.name for metric in QUIZ_METRICS}


@pytest.mark.parametrize(
    ("task", "num_rows", "published"),
    [
        (Preference("no-such-folder"), PUBLISHED_ROWS + 1, True),
        (Preference("no-such-folder"), PUBLISHED_ROWS, False),
        (Preference(SAMPLE), PUBLISHED_ROWS + 1, False),  # whose truth is known
        (Quiz("lmsys", "no-such-folder"), PUBLISHED_ROWS + 1, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_the_competitions_own_rows_are_published(task, num_rows, published):
    described = Labels().describe(settings(), task, num_rows, 10)
    assert described["is_published_data"] is published
    assert described["has_published_scores"] is isinstance(task, Preference)
    assert described["num_examples"] == 10
