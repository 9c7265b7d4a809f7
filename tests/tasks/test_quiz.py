"""The quiz task: every file is read, faulty rows are refused or left out, and its submissions are the competitions'."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.errors import UserError
from nexttoken.tasks.quiz import Quiz
from nexttoken.tasks.test_rows import warn_of_test_rows
from nexttoken.types import LabelPredictions
from support.composed import config_of


def row(
    row_id: str, answer: object = 0, question: str = "q?", options: tuple = ("a", "b", "c"), **more: object
) -> dict:
    return {"id": row_id, "question": question, "options": list(options), "answer": answer} | more


def write_lines(path: Path, *rows: object) -> None:
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def jaqket_row(qid: str, count: int = 20, answer: bool = True) -> dict:
    entity = {"answer_entity": f"{qid}-0"} if answer else {}
    return {"qid": qid, "question": f"{qid}?", "answer_candidates": [f"{qid}-{i}" for i in range(count)]} | entity


def predictions(task: Quiz, best: list[int], **columns: np.ndarray) -> LabelPredictions:
    """The option of `best` with 0.6, the rest in falling order over the options that are there."""
    examples, probs = task.read("test"), []
    for example, index in zip(examples, best, strict=True):
        weights = np.zeros(task.num_options)
        weights[: example.num_options] = 1.0 / np.arange(2, 2 + (example.num_options or 0))
        weights[index] = 3
        probs.append(weights / weights.sum())
    return LabelPredictions(tuple(example.id for example in examples), np.array(probs), columns)


def cells_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


@pytest.fixture
def plain(tmp_path: Path) -> Quiz:
    write_lines(tmp_path / "train.jsonl", row("t1", 1, genre="art"), row("t2", 0, "What?", ("a", "b"), genre="law"))
    write_lines(tmp_path / "test.jsonl", row("s1", None), row("s2", 2, "", ("a", "a", "b")))
    return Quiz("quiz", tmp_path)


def test_examples(plain):
    first, second = plain.read("train")
    assert (first.id, first.label, first.num_options) == ("t1", 1, 3)
    assert first.fields == {"question": ("q?",), "options": ("a", "b", "c")}
    assert first.tags == {"genre": "art", "file": "train.jsonl"}
    assert second.num_options == 2
    assert plain.classes == ("0", "1", "2", "3", "4")
    assert (plain.group_text(second), plain.suffix, plain.truth()) == ("What?", ".csv", {})
    baseline = plain.baselines()[0].fit(plain.read("train")).predict(plain.read("test"))
    assert baseline.shape == (2, 5)
    np.testing.assert_array_equal(baseline[:, 3:], 0)


def test_odd_test_rows_are_reported_and_kept(plain, caplog):
    caplog.set_level(logging.INFO)
    assert [example.label for example in plain.read("test")] == [None, 2]
    assert "test.jsonl:2 (an empty question)" in caplog.text
    assert "1 questions have repeated options: test.jsonl:2: kept" in caplog.text


FAULTY = [row("t3", 3), "{", row("t1", 0), row("t4", None), row("t5", 0, " "), row("t6", 0, genre="lav")]


def test_faulty_training_rows_are_refused_by_line_or_left_out(plain, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sound = [row("t1", 1, genre="art"), row("t2", 0, options=("a", "a", "b"), genre="law")]
    write_lines(tmp_path / "train.jsonl", *sound, *FAULTY)
    genres = ("art", "law", "")
    with pytest.raises(UserError) as refused:
        Quiz("quiz", tmp_path, genres=genres).read("train")
    text = str(refused.value)
    assert text.startswith("6 rows are faulty: train.jsonl:3 (answer 3 is outside the options 0 to 2), train.jsonl:4 (")
    assert "train.jsonl:5 (id t1 again, first in train.jsonl:1)" in text
    assert text.endswith("leave them out with task.skip_faulty=true")
    assert "\n" not in text
    kept = Quiz("quiz", tmp_path, genres=genres, skip_faulty=True).read("train")
    assert [example.id for example in kept] == ["t1", "t2"]
    assert "6 rows are faulty" in caplog.text
    assert "repeated options: train.jsonl:2: kept" in caplog.text


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (row("t9", None), r"train.jsonl:2 \(no answer to learn from\)"),
        (row("t9", 0, " "), r"train.jsonl:2 \(an empty question\)"),
        (row("t9", 0, options=("", "b")), r"train.jsonl:2 \(an empty option\)"),
        (row("t9", 0, genre="lav"), r"train.jsonl:2 \(unknown genre 'lav'; did you mean 'law'\?\)"),
    ],
)
def test_each_kind_of_training_fault(tmp_path, bad, expected):
    write_lines(tmp_path / "train.jsonl", row("t1", genre="law"), bad)
    with pytest.raises(UserError, match=expected):
        Quiz("quiz", tmp_path, genres=("law", "")).read("train")


def test_faulty_test_rows_are_never_left_out(plain, tmp_path):
    write_lines(tmp_path / "test.jsonl", row("s1"), row("s2", 9))
    with pytest.raises(UserError, match=r"test.jsonl:2 .*every test row needs an answer"):
        Quiz("quiz", tmp_path, skip_faulty=True).read("test")


def test_missing_files_and_wrong_settings(tmp_path):
    write_lines(tmp_path / "dev1.json", jaqket_row("a"))
    with pytest.raises(UserError, match=r"has no file dev2\.json"):
        Quiz("jaqket", tmp_path, test_files=["dev1.json", "dev2.json"]).read("test")
    with pytest.raises(UserError, match="num_options=201: expected a whole number from 2 to 200"):
        Quiz("quiz", tmp_path, num_options=201)
    with pytest.raises(UserError, match="did you mean 'jmmlu'"):
        Quiz("quiz", tmp_path, format="mmlu")


def test_every_test_file_is_read_and_scored_by_itself(tmp_path):
    write_lines(tmp_path / "dev1.json", jaqket_row("a"), jaqket_row("b"))
    write_lines(tmp_path / "dev2.json", jaqket_row("c", 5), jaqket_row("d", 4, answer=False))
    task = Quiz("jaqket", tmp_path, "jaqket", test_files=["dev1.json", "dev2.json"])
    examples = task.read("test")
    assert [(example.id, example.tags["file"]) for example in examples] == [
        *[("a", "dev1.json"), ("b", "dev1.json")],
        *[("c", "dev2.json"), ("d", "dev2.json")],
    ]
    assert [example.num_options for example in examples] == [5, 5, 5, 4]
    best = [examples[0].label, (examples[1].label + 1) % 5, 0, 3]
    seconds = np.array([0.5, 1, 2, 3])
    results = task.results(predictions(task, best, seconds=seconds))
    assert [result.get("correct") for result in results] == [True, False, True, None]
    assert [result["seconds"] for result in results] == [0.5, 1, 2, 3]
    assert results[0]["options"][results[0]["answer"]] == "a-0"
    assert len(results[3]["probs"]) == 4
    assert json.loads(json.dumps(results)) == results
    submission = tmp_path / f"x{task.suffix}"
    task.write(predictions(task, best), submission)
    answers = [json.loads(line) for line in submission.read_text(encoding="utf-8").splitlines()]
    assert answers[0] == {"qid": "a", "answer_entity": "a-0"}
    assert answers[1]["answer_entity"] == results[1]["options"][best[1]]
    assert [answer["qid"] for answer in answers] == ["a", "b", "c", "d"]


def test_the_cut_does_not_depend_on_the_order_of_rows(tmp_path):
    rows = [jaqket_row(f"q{index}") for index in range(30)]
    write_lines(tmp_path / "one.json", *rows)
    write_lines(tmp_path / "two.json", *reversed(rows))
    one, two = (Quiz("jaqket", tmp_path, train_files=[name]).read("train") for name in ("one.json", "two.json"))
    fields = {example.id: (example.fields, example.label) for example in one}
    assert fields == {example.id: (example.fields, example.label) for example in two}
    assert {example.label for example in one} == {0, 1, 2, 3, 4}
    assert {example.fields["options"][example.label] for example in one} == {f"q{index}-0" for index in range(30)}


def test_too_many_candidates_without_an_answer_are_refused(tmp_path):
    write_lines(tmp_path / "test.json", jaqket_row("a", 8, answer=False))
    with pytest.raises(UserError, match=r"test.json:1 .8 options for num_options=5.*at least 8 when training"):
        Quiz("jaqket", tmp_path, test_files=["test.json"]).read("test")
    assert Quiz("jaqket", tmp_path, test_files=["test.json"], num_options=8).read("test")[0].num_options == 8


def test_science_exam_submission_names_the_best_three_letters(tmp_path):
    header = "id,prompt,A,B,C,D,E\n"
    (tmp_path / "test.csv").write_text(header + "0,Why?,a,b,c,d,e\n1,How?,a,b,,,\n")
    task = Quiz("science_exam", tmp_path, "science_exam", test_files=["test.csv"])
    task.write(predictions(task, [3, 1]), tmp_path / "submission.csv")
    assert cells_of(tmp_path / "submission.csv") == [["id", "prediction"], ["0", "D A B"], ["1", "B A"]]


def test_jcommonsenseqa_through_the_task(shared_dir, tmp_path):
    folder = shared_dir / "data" / "jcommonsenseqa"
    task = Quiz("jcommonsenseqa", folder, train_files=["train-v1.3.json"], test_files=["valid-v1.3.json"])
    assert len(task.read("train")) == 8939
    examples = task.read("test")
    assert len(examples) == 1119
    right = predictions(task, [example.label for example in examples])
    assert [row["correct"] for row in task.results(right)] == [True] * 1119
    shuffled = np.random.default_rng(0).permutation(1119)
    mixed = LabelPredictions(tuple(np.array(right.ids)[shuffled]), right.probs[shuffled])
    task.write(mixed, tmp_path / "out.csv")
    expected = [["q_id", "label"], *[[example.id, str(example.label)] for example in examples]]
    assert cells_of(tmp_path / "out.csv") == expected


def test_real_jmmlu_trains_with_its_repeated_options_and_shares_a_test(shared_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = shared_dir / "data" / "jmmlu"
    task = Quiz("jmmlu", folder, "jmmlu", ["*.csv"], ["test/*.csv"], num_options=4, test_share=0.2)
    train, test = task.read("train"), task.read("test")
    assert "questions have repeated options: " in caplog.text
    assert len(train) + len(test) == 2360
    assert 0.17 < len(test) / 2360 < 0.23
    assert len({example.tags["genre"] for example in test}) == 17
    assert not {task.group_text(example) for example in train} & {task.group_text(example) for example in test}
    task.write(predictions(task, [2] * len(test)), tmp_path / "out.csv")
    assert cells_of(tmp_path / "out.csv")[1] == [test[0].id, "C"]
    assert len(Quiz("jmmlu", folder, "jmmlu", ["*.csv"], [], num_options=4).read("train")) == 2360


def test_cut_options_are_named_as_in_the_file(tmp_path):
    (tmp_path / "law.csv").write_text("q,a,b,c,d,e,f,F\n", encoding="utf-8-sig")
    task = Quiz("jmmlu", tmp_path, test_files=["law.csv"], num_options=2)
    (example,) = task.read("test")
    task.write(predictions(task, [example.label]), tmp_path / "out.csv")
    assert cells_of(tmp_path / "out.csv")[1] == ["law-1", "F"]


def test_predictions_for_other_rows_are_refused(plain, tmp_path):
    other = LabelPredictions(("s1", "x"), np.eye(5)[:2])
    with pytest.raises(UserError, match="lacks s2 and adds x"):
        plain.write(other, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_lone_surrogates_become_replacement_characters(tmp_path):
    write_lines(tmp_path / "test.jsonl", r'{"id": "1", "question": "\ud83d", "options": ["a", "b"]}')
    assert Quiz("quiz", tmp_path).read("test")[0].fields["question"] == ("\ufffd",)


def test_rows_in_memory(tmp_path):
    exam = pd.DataFrame({"id": [7], "prompt": ["Why?"], "A": ["a"], "B": ["b"], "C": [np.nan]})
    (example,) = Quiz("science_exam", tmp_path, "science_exam").parse(exam)
    assert (example.id, example.fields["options"], example.label) == ("7", ("a", "b"), None)
    jmmlu = Quiz("jmmlu", tmp_path, "jmmlu", num_options=4)
    (lettered,) = jmmlu.parse([{"question": "q", "A": "1", "B": "2", "answer": "B"}])
    assert (lettered.fields["options"], lettered.label) == (("1", "2"), 1)
    assert jmmlu.parse([{"question": "q", "options": ["a", "b"]}])[0].id == "row-1"
    with pytest.raises(UserError, match=r"1 row is faulty: row 2 \(lacks question\)"):
        jmmlu.parse([{"question": "q", "options": ["a", "b"]}, {"A": "x", "B": "y"}])


@pytest.mark.parametrize("name", ["quiz", "jaqket", "jcommonsenseqa", "jmmlu", "science_exam", "instruction_quiz"])
def test_shipped_tasks_compose_and_build(name):
    from nexttoken.build import plain, prepare

    cfg = config_of("train", f"task={name}", "task.skip_faulty=true", "task.genres=[art]", "task.seed=1")
    assert plain(cfg)["task"]["input_dir"] == cfg.input_dir
    task = prepare(cfg, [])[0].task
    assert isinstance(task, Quiz)
    assert (task.skip_faulty, list(task.genres), task.seed) == (True, ["art"], 1)
    assert (task.name, len(task.classes)) == (name, 4 if name == "jmmlu" else 5)


def test_lone_surrogates_in_a_genre_are_cleaned_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_lines(
        tmp_path / "train.jsonl", r'{"id": "1", "question": "q", "options": ["a", "b"], "answer": 0, "genre": "\ud83d"}'
    )
    assert Quiz("quiz", tmp_path).read("train")[0].tags["genre"] == "\ufffd"
    assert "1 lone surrogates" in caplog.text


def test_test_questions_that_cannot_be_asked_are_named_before_training(tmp_path, caplog):
    task = Quiz("jaqket", tmp_path, "jaqket", ["train.json"], ["dev1.json", "dev2.json"])
    write_lines(tmp_path / "dev1.json", jaqket_row("a"), *[jaqket_row(f"b{i}", answer=False) for i in range(7)])
    write_lines(tmp_path / "dev2.json", "{")
    warn_of_test_rows(task)
    write_lines(tmp_path / "dev2.json", jaqket_row("z"))
    warn_of_test_rows(task)
    first, second = [record.getMessage() for record in caplog.records]
    assert "dev2.json:1 (not JSON" in first
    assert "7 rows are faulty: dev1.json:2 (20 options" in second
    assert "dev1.json:6 " in second
    assert "and 2 more" in second
    assert "questions without an answer need task.num_options of at least 20 when training (at most 200)" in second


def test_results_and_submission_agree_on_repeated_candidates(tmp_path):
    long = jaqket_row("a") | {"answer_candidates": ["A"] * 10 + ["B"] * 10, "answer_entity": "B"}
    short = jaqket_row("b") | {"answer_candidates": ["x", "y", "y"], "answer_entity": "y"}
    write_lines(tmp_path / "test.json", long, short)
    task = Quiz("jaqket", tmp_path, "jaqket", test_files=["test.json"])
    examples = task.read("test")
    assert sorted(examples[0].fields["options"]) == ["A", "B"]
    given = predictions(task, [examples[0].label, 2])
    results = task.results(given)
    assert [result["correct"] for result in results] == [True, True]
    task.write(given, tmp_path / "out.jsonl")
    answers = [json.loads(line)["answer_entity"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert answers == ["B", "y"] == [result["options"][result["prediction"]] for result in results]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_options": "abc"}, r"^task.num_options=abc: expected a whole number from 2 to 200$"),
        ({"num_options": True}, "expected a whole number from 2 to 200"),
        ({"seed": "x"}, r"^task.seed=x: expected a whole number"),
        ({"genres": "law"}, r"^task.genres=law: expected a list such as \[law\]"),
        ({"skip_faulty": "no way"}, r"^task.skip_faulty=no way: expected true or false"),
        ({"test_share": "x"}, r"^task.test_share=x: expected a share"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, expected):
    with pytest.raises(UserError, match=expected):
        Quiz("quiz", tmp_path, **settings)


UNPUBLISHED = {
    "jcommonsenseqa": ({"q_id": 1, "question": "q", **{f"choice{n}": str(n) for n in range(5)}}, "label"),
    "jaqket": ({"qid": "1", "question": "q", "answer_candidates": ["a", "b"]}, "answer_entity"),
    "plain": ({"id": "1", "question": "q", "options": ["a", "b"]}, "answer"),
    "instruction": ({"id": "1", "instruction": "問題: q\n0: a\n1: b\n"}, "output"),
}


@pytest.mark.parametrize("name", UNPUBLISHED)
@pytest.mark.parametrize("answer", [..., None, "", -1, "-1", -1.0])
def test_an_answer_that_is_not_published_is_asked_and_never_learnt(tmp_path, name, answer):
    row, key = UNPUBLISHED[name]
    line = json.dumps(row if answer is ... else row | {key: answer})
    write_lines(tmp_path / "test.jsonl", line)
    write_lines(tmp_path / "train.jsonl", line)
    task = Quiz("quiz", tmp_path, name)
    assert [example.label for example in task.read("test")] == [None]
    assert [example.label for example in task.parse([json.loads(line)])] == [None]
    with pytest.raises(UserError, match=r"1 row is faulty: train.jsonl:1 \(no answer to learn from\)"):
        task.read("train")


@pytest.mark.parametrize("answer", ["", "-1"])
def test_an_unpublished_letter_is_asked(tmp_path, answer):
    (tmp_path / "test.csv").write_text(f"id,prompt,A,B,C,D,E,answer\n1,q,a,b,c,d,e,{answer}\n", encoding="utf-8")
    task = Quiz("exam", tmp_path, "science_exam", test_files=["test.csv"])
    assert [example.label for example in task.read("test")] == [None]


@pytest.mark.parametrize("answer", [-2, 7, "x", 0.5, [0]])
def test_an_answer_that_is_no_option_stays_a_fault(tmp_path, answer):
    row, key = UNPUBLISHED["jcommonsenseqa"]
    write_lines(tmp_path / "test.jsonl", json.dumps(row | {key: answer}))
    with pytest.raises(UserError, match=r"1 row is faulty: test.jsonl:1"):
        Quiz("quiz", tmp_path).read("test")


def test_minus_one_may_be_an_option(tmp_path):
    row = {"qid": "1", "question": "q", "answer_candidates": ["a", "-1"], "answer_entity": "-1"}
    write_lines(tmp_path / "test.jsonl", json.dumps(row))
    assert Quiz("quiz", tmp_path).read("test")[0].label == 1
