"""The shipped competitions that are tables: their files are read, and the baseline's answers are a sound submission."""

import numpy as np
import pytest

from nexttoken.build import make
from nexttoken.errors import UserError
from nexttoken.tasks.baselines.choice import OwnExamplesBaseline
from nexttoken.tasks.baselines.regression import PairBaseline
from nexttoken.tasks.baselines.words import WordBaseline
from nexttoken.types import LabelPredictions
from support.composed import CONF, composed, settings

ROOT = CONF.parent
# task: train rows, test rows, classes, the first row of a submission, the baseline
SHIPPED = {
    "wsdm": (1600, 160, 2, "1460561149,model_", PairBaseline),
    "map": (850, 85, 19, "850,", WordBaseline),
    "jigsaw_rules": (500, 180, 2, "500,0.", OwnExamplesBaseline),
    "eedi": (812, 150, 100, "300_A,", WordBaseline),
    "table": (850, 85, 19, "850,", WordBaseline),
}


def shipped(name: str, **changes):
    config = composed(f"task={name}")["task"]
    return make(config | {"input_dir": ROOT / config["input_dir"]} | changes, "task")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_sample_is_read_and_its_baselines_answers_are_a_sound_submission(name, tmp_path):
    num_train, num_test, num_classes, start, kind = SHIPPED[name]
    task = shipped(name)
    train, test = task.read("train"), task.read("test")
    assert (len(train), len(test), len(task.classes)) == (num_train, num_test, num_classes)
    assert all(list(example.fields) == list(train[0].fields) for example in (*train, *test))
    baseline = task.baselines()[0]
    assert isinstance(baseline, kind)
    names = [one.name for one in task.baselines()]
    assert names == ["own-examples baseline", "TF-IDF baseline"] if name == "jigsaw_rules" else len(names) == 1
    probs = baseline.fit(train[:400]).predict(test)
    path = tmp_path / "submission.csv"
    task.write(LabelPredictions(tuple(example.id for example in test), probs), path)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith(start)
    task.check(path)


@pytest.mark.parametrize("name", ["wsdm", "map", "jigsaw_rules"])
def test_the_truth_of_a_sample_is_found_by_its_ids(name):
    task = shipped(name)
    truth = task.truth()
    assert all(sum(truth[example.id]) == pytest.approx(1) for example in (*task.read("train"), *task.read("test")))
    labels = np.array([truth[example.id][example.label] for example in task.read("train")])
    assert labels.mean() > 0.6


def test_each_wrong_answer_of_eedi_is_a_row_with_its_own_text():
    first, second = shipped("eedi").read("train")[:2]
    assert (first.id, second.id) == ("0_B", "0_C")
    assert first.fields["SubjectName"] == ("Brackets",)
    assert first.fields["AnswerText"] == ("the second, 32",)
    assert first.fields["CorrectText"] == ("1248",)
    assert first.fields["QuestionText"] == second.fields["QuestionText"]


def test_llm_classification_is_the_preference_task_under_its_own_name():
    config = settings("task=llm_classification")
    assert make(config.task, "task").name == "llm_classification"
    assert make(settings("task=lmsys").task, "task").name == "lmsys"


REAL = {
    "banking77": ("banking77", (10003, 3080, 77)),
    "wsdm": ("wsdm-mini", (1533, 380, 2)),
    "jigsaw_rules": ("rules-mini", (296, 520, 2)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_texts_are_read_by_the_shipped_tasks(name, shared_dir):
    folder, rows = REAL[name]
    task = shipped(name, input_dir=shared_dir / "data" / folder)
    assert (len(task.read("train")), len(task.read("test")), len(task.classes)) == rows


def test_columns_of_training_rows_only_are_not_asked_of_test_rows():
    """Languages of pairs are scored by, and stand in the training file alone."""
    task = shipped("wsdm")
    assert {example.tags["language"] for example in task.read("train")} == {"English", "German", "Spanish"}
    assert all("language" not in example.tags for example in task.read("test"))
    frame = [{"id": 1, "prompt": "p", "response_a": "a", "response_b": "b"}]
    assert task.parse(frame)[0].fields == {"prompt": ("p",), "response_a": ("a",), "response_b": ("b",)}


def test_an_answer_that_is_not_among_the_four_is_a_faulty_row():
    row = dict.fromkeys(("QuestionId", "SubjectName", "ConstructName", "QuestionText"), "x")
    row |= {f"Answer{letter}Text": letter for letter in "ABCD"}
    good, bad = ({**row, "CorrectAnswer": answer} for answer in "BE")
    task = shipped("eedi")
    assert [example.fields["CorrectText"] for example in task.parse([good])] == [("B",)] * 3
    with pytest.raises(UserError, match=r"1 row is faulty: row 1 \(CorrectAnswer is 'E', expected one of A, B, C, D\)"):
        task.parse([bad])
