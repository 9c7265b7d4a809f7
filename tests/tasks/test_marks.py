"""Marks as a task: its files, their faults, its scores and its submission; a judge learns the sample's marks."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from nexttoken.build import build
from nexttoken.errors import UserError
from nexttoken.metrics.decisions import absolute_errors, expected_marks, weighted_kappa
from nexttoken.metrics.probabilities import log_loss, prior_probs
from nexttoken.tasks.baselines.regression import MarkBaseline
from nexttoken.tasks.marks import Marks
from nexttoken.types import LabelPredictions
from samples.marks import KINDS, OTHER_LANGUAGE, TOOLS, main
from support.composed import composed

TRACKED = Path(__file__).parents[2] / "input" / "sample-marks"
FILES = ("train.jsonl", "test.jsonl", "truth.jsonl")
ROW = {"id": "a", "instruction": "Name a fruit.", "response": "pear", "mark": 3}
UNMARKED = {key: value for key, value in ROW.items() if key != "mark"}


def write(folder: Path, *rows: object, name: str = "train.jsonl") -> Marks:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Marks(folder)


def test_tracked_files_are_a_fresh_generation_byte_for_byte(tmp_path):
    main([f"output_dir={tmp_path}"])
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (TRACKED / name).read_bytes(), name
    assert sum((TRACKED / name).stat().st_size for name in FILES) < 1_000_000


def test_the_samples_marks_are_what_its_rubric_says_but_for_the_noise():
    examples, truth = Marks(TRACKED).read("train"), Marks(TRACKED).truth()
    for example in examples:
        words = example.fields["response"][0].replace(",", "").replace(" and", "").rstrip(".").split()
        is_answer = words and words[0] not in OTHER_LANGUAGE and not any(word in words[0] for word in OTHER_LANGUAGE)
        deserved = 4 - sum(word in TOOLS for word in words) if is_answer else 0
        assert np.argmax(truth[example.id]) == deserved
        assert not is_answer or all(word in TOOLS or word in sum(KINDS.values(), ()) for word in words)
    labels = np.array([example.label for example in examples])
    probs = np.array([truth[example.id] for example in examples])
    assert 0.85 < (probs.argmax(axis=1) == labels).mean() < 0.95
    assert log_loss(probs, labels) < 0.5


def test_answers_to_one_instruction_share_a_fold():
    examples = Marks(TRACKED).read("train")
    texts = {Marks(TRACKED).group_text(example) for example in examples}
    assert len(texts) == len(examples) / 5 == 400


def test_rows_become_examples_with_every_field_that_the_prompt_names(tmp_path):
    (example,) = write(tmp_path, ROW | {"id": 7, "reference": "plum", "input": None}).read("train")
    assert (example.id, example.label) == ("7", 3)
    assert example.fields == {
        "instruction": ("Name a fruit.",),
        "response": ("pear",),
        "input": ("",),
        "reference": ("plum",),
        "rubric": ("",),
    }


def test_marks_may_begin_at_one(tmp_path):
    task = Marks(write(tmp_path, ROW, ROW | {"id": "b", "mark": 5}).input_dir, lowest=1, highest=5)
    assert task.classes == ("1", "2", "3", "4", "5")
    assert [example.label for example in task.read("train")] == [2, 4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"mark": 5}, "mark is 5, expected a whole number from 0 to 4"),
        (ROW | {"mark": None}, "mark is None"),
        (ROW | {"mark": True}, "mark is True"),
        (ROW | {"response": 3}, "response is int, expected text"),
        (ROW | {"reference": 3}, "reference is int, expected text"),
        ({"id": "a", "response": "", "mark": 1}, "lacks instruction"),
        (ROW | {"id": None}, "lacks id"),
        (ROW | {"id": ""}, "id '', expected one line of text"),
        (ROW | {"id": "a\nb"}, "expected one line of text"),
        ("{broken", "not JSON"),
        ("[1, 2]x", "."),
    ],
)
def test_faulty_rows_are_named_by_their_line(tmp_path, row, reason):
    with pytest.raises(UserError, match=reason) as error:
        write(tmp_path, ROW | {"id": "first"}, row).read("train")
    assert "train.jsonl:2" in str(error.value)


def test_ids_twice_missing_files_and_impossible_scales_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"train.jsonl:2 \(id a again, first in train.jsonl:1\)"):
        write(tmp_path, ROW, ROW).read("train")
    with pytest.raises(UserError, match=r"test.jsonl is not there: expected JSON lines with id, instruction"):
        Marks(tmp_path).read("test")
    with pytest.raises(UserError, match="the first one smaller"):
        Marks(tmp_path, lowest=4, highest=4)


def test_expected_marks_and_their_scores():
    probs = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.2, 0.8], [0.0, 0, 1, 0, 0], [0.9, 0.1, 0, 0, 0]])
    labels = np.array([0, 4, 1, 0])
    assert expected_marks(probs, lowest=1) == pytest.approx([1.5, 4.8, 3, 1.1])
    assert absolute_errors(probs, labels).mean() == pytest.approx((0.5 + 0.2 + 1 + 0.1) / 4)
    rounded = np.rint(expected_marks(probs)).astype(int)
    kappa = cohen_kappa_score(labels, rounded, weights="quadratic", labels=list(range(5)))
    assert weighted_kappa(probs, labels) == pytest.approx(kappa)
    assert weighted_kappa(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_the_baseline_beats_the_prior_and_says_something_of_any_row():
    examples = Marks(TRACKED).read("train")
    seen, held_out = examples[:1000], examples[1000:]
    labels = np.array([example.label for example in held_out])
    probs = MarkBaseline(5).fit(seen).predict(held_out)
    prior = prior_probs([e.label for e in seen], 5, [5] * len(labels))
    assert log_loss(probs, labels) < log_loss(prior, labels) - 0.3
    only_fours = [example for example in seen if example.label == 4]
    assert (MarkBaseline(5).fit(only_fours).predict(held_out[:3]) > 0).all()
    with pytest.raises(UserError, match="no labelled examples"):
        MarkBaseline(5).fit([])


def test_the_submission_has_expected_marks_in_the_order_of_the_test(tmp_path):
    task = write(
        tmp_path, *({k: v for k, v in ROW.items() if k != "mark"} | {"id": i} for i in "abc"), name="test.jsonl"
    )
    examples = task.read("test")
    assert [example.label for example in examples] == [None] * 3
    probs = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0]], dtype=float)
    task.write(LabelPredictions(("c", "a", "b"), probs), tmp_path / "marks.csv")
    with (tmp_path / "marks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], float(row["mark"]), float(row["p1"])) for row in rows] == [
        ("a", 0, 0),
        ("b", 1.5, 0.5),
        ("c", 4, 0),
    ]
    with pytest.raises(UserError, match="adds"):
        task.write(LabelPredictions(("x", "a", "b"), probs), tmp_path / "marks.csv")


@pytest.mark.parametrize("mark", [None, "", -1, 2.5])
def test_a_mark_that_is_not_known_is_asked_for(tmp_path, mark):
    assert [example.label for example in Marks(tmp_path).parse([UNMARKED | {"mark": mark}])] == [None]


def test_numbers_in_a_table_are_texts(tmp_path):
    frame = pd.DataFrame([UNMARKED | {"response": 0, "reference": True}])
    (example,) = Marks(tmp_path).parse(frame)
    assert (example.fields["response"], example.fields["reference"]) == (("0",), ("True",))


def test_rows_in_memory_are_examples(tmp_path):
    frame = pd.DataFrame([UNMARKED | {"reference": float("nan")}])
    (example,) = Marks(tmp_path).parse(frame)
    assert example.fields["reference"] == ("",)
    with pytest.raises(UserError, match=r"row 1 \(lacks instruction\)"):
        Marks(tmp_path).parse([{"id": "a", "response": "b"}])


@pytest.mark.parametrize("prompt", ["marks", "marks_ja"])
def test_the_prompts_show_what_a_row_has_and_nothing_that_it_lacks(tmp_path, prompt):
    parts = build(composed("task=marks", f"prompt={prompt}") | {"name": "x"})
    full, bare = write(
        tmp_path, ROW | {"reference": "plum", "rubric": "Be kind.", "input": "now"}, ROW | {"id": "b"}
    ).read("train")
    text = parts.prompt.render(full)[0].content
    assert all(part in text for part in ("Name a fruit.", "now", "plum", "Be kind.", "pear", "0", "4"))
    assert len(parts.prompt.render(bare)[0].content) < len(text) - len("nowplumBe kind.")
    assert parts.prompt.render(full)[-1].role == "assistant"
    assert list(parts.prompt.labels) == list(parts.task.classes)


def test_the_english_prompt_to_the_letter(tmp_path):
    prompt = build(composed("task=marks") | {"name": "x"}).prompt
    (example,) = write(tmp_path, ROW | {"reference": "plum", "rubric": "Be kind."}).read("train")
    assert "".join(message.content for message in prompt.render(example)) == (
        "### Rubric\nMark the answer from 0 (useless) to 4 (faultless). Be kind.\n### Task\nName a fruit.\n"
        "### A good answer\nplum\n### The answer to be marked\npear\n### Mark\n"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", "pro', r"truth.jsonl:2 \(not JSON"),
        ('{"probs": [0.2, 0.2, 0.2, 0.2, 0.2], "id": "first"}', "id first again"),
        ('{"id": "b"}', "probs is not a list of 5 numbers"),
        ('{"id": "b", "probs": [0.5, 0.5]}', "probs is not a list of 5 numbers"),
        ('{"id": "b", "probs": "0.2"}', "probs is not a list of 5 numbers"),
        ('{"id": "b", "probs": [0.2, 0.2, 0.2, 0.2, NaN]}', "not finite for ids b"),
        ('{"id": "b", "probs": [0.2, 0.2, 0.2, 0.2, 0.3]}', "not summing to 1 for ids b"),
    ],
)
def test_a_faulty_line_of_the_truth_is_named(tmp_path, line, reason):
    sound = '{"id": "first", "probs": [0.2, 0.2, 0.2, 0.2, 0.2]}'
    assert write(tmp_path, sound, name="truth.jsonl").truth() == {"first": (0.2,) * 5}
    with pytest.raises(UserError, match=reason) as error:
        write(tmp_path, sound, line, name="truth.jsonl").truth()
    assert "\n" not in str(error.value)
