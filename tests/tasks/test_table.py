"""Tables: any competition from its columns. Rows, labels, votes, groups, longer rows, and the submission."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.errors import MissingFile, UserError
from nexttoken.tasks.table import Table
from nexttoken.transforms.orders import swap_sides
from nexttoken.types import LabelPredictions, Swap

RULES = """row_id,body,rule,broken
0,buy now,no ads,1
1,"NA",no ads,0
2,"a
b",be kind,1
"""
TEST = "row_id,body,rule\n007,x,no ads\n8,y,be kind\n"
SAMPLE = "row_id,broken\n007,0.5\n8,0.5\n"


def folder(path: Path, train: str = RULES, test: str = TEST, sample: str | None = SAMPLE, ending: str = ".csv") -> Path:
    path.mkdir(exist_ok=True, parents=True)
    (path / f"train{ending}").write_text(train, encoding="utf-8")
    (path / f"test{ending}").write_text(test, encoding="utf-8")
    if sample is not None:
        (path / "sample_submission.csv").write_text(sample, encoding="utf-8")
    return path


def rules(path: Path, **changes) -> Table:
    given = {"name": "rules", "id": "row_id", "fields": ["body", "rule"], "label": "broken"}
    given |= {"classes": {"0": "No", "1": "Yes"}, "submission": {"broken": 'probability("1")'}}
    return Table(**{**given, "input_dir": path, **changes})


def predictions(task: Table, probs) -> LabelPredictions:
    ids = tuple(example.id for example in task.read("test"))[::-1]
    return LabelPredictions(ids, np.array(probs)[::-1])


def test_rows_are_read_byte_for_byte(tmp_path):
    task = rules(folder(tmp_path))
    first, second, third = task.read("train")
    assert first.fields == {"body": ("buy now",), "rule": ("no ads",)}
    assert [e.label for e in (first, second, third)] == [1, 0, 1]
    assert second.fields["body"] == ("NA",)
    assert third.fields["body"] == ("a\nb",)
    assert [e.id for e in task.read("test")] == ["007", "8"]
    assert task.class_names == ("No", "Yes")


def test_the_submission_is_written_in_the_order_of_the_test_file_and_checked(tmp_path):
    task = rules(folder(tmp_path))
    path = tmp_path / "out.csv"
    task.write(predictions(task, [[0.25, 0.75], [0.5, 0.5]]), path)
    assert path.read_text() == "row_id,broken\n007,0.75\n8,0.5\n"
    assert task.check(path) == f"2 rows with the ids of {tmp_path / 'test.csv'} in order"
    for text, words in (
        ("row_id,broken\n007,1.5\n8,0.5\n", "broken of id 007 is '1.5'; expected a number from 0 to 1"),
        ("row_id,broken\n8,0.5\n007,0.5\n", "in another order: row 1 is 8, expected 007"),
        ("row_id,wrong\n007,0.5\n8,0.5\n", "lacks the columns broken"),
        ("broken,row_id\n0.5,007\n0.5,8\n", "has the header broken, row_id; expected row_id, broken"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words.replace("(", r"\(")):
            task.check(path)


def test_the_best_labels_in_order_are_a_column(tmp_path):
    train = "row_id,text,Category,Misconception\n" + "".join(f"{n},t{n},{'TF'[n % 2]},m{n % 3}\n" for n in range(6))
    sample = "row_id,answer\n007,x\n8,x\n"
    path = folder(tmp_path, train, TEST.replace("body,rule", "text,extra"), sample)
    task = Table("map", path, "row_id", ["text"], ["Category", "Misconception"], submission={"answer": "best(3)"})
    assert task.classes == ("F:m0", "F:m1", "F:m2", "T:m0", "T:m1", "T:m2")
    out = tmp_path / "out.csv"
    task.write(predictions(task, [[0.1, 0.3, 0.2, 0.4, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]), out)
    assert out.read_text() == "row_id,answer\n007,T:m0 F:m1 F:m2\n8,T:m1 T:m2 F:m0\n"
    task.check(out)
    for cell, words in (("T:m0 T:m0", "different labels"), ("T:m9", "did you mean"), ("a b c d", "at most 3")):
        out.write_text(f"row_id,answer\n007,{cell}\n8,T:m0\n")
        with pytest.raises(UserError, match=words):
            task.check(out)
    with pytest.raises(UserError, match=r"holds the separator ' '.*best\(2, '\|'\)"):
        Table("x", path, "row_id", ["text"], "Category", classes=["T", "F G"], submission={"answer": "best(2)"})


def test_learnt_classes_are_sorted_and_saved_with_the_run(tmp_path):
    train = "id,text,label\n" + "".join(f"{n},t,{label}\n" for n, label in enumerate(["10", "9", "9", "11"]))
    task = Table("t", folder(tmp_path, train, sample=None), "id", ["text"], "label")
    assert task.classes == task.class_names == ("9", "10", "11")
    assert task.settled == {"classes": ["9", "10", "11"]}
    (tmp_path / "train.csv").unlink()
    assert Table("t", tmp_path, "id", ["text"], "label", **task.settled).classes == task.classes
    with pytest.raises(MissingFile, match=r"has no train with one of the endings"):
        Table("t", tmp_path, "id", ["text"], "label")


@pytest.mark.parametrize("kind", [pd.DataFrame, lambda rows: iter(rows)])
def test_a_table_in_memory_without_a_field_is_refused(tmp_path, kind):
    task = rules(folder(tmp_path))
    with pytest.raises(UserError, match=r"the table lacks the columns body; did you mean 'boddy'\?; rename"):
        task.parse(kind([{"row_id": 1, "boddy": "x", "rule": "y"}]))
    (row,) = task.parse(kind([{"row_id": 1, "body": None, "rule": "y"}]))
    assert row.fields == {"body": ("",), "rule": ("y",)}


def test_votes_are_learnt_as_shares(tmp_path):
    train = "id,text,a,b,c\n0,x,2,1,1\n1,y,0,1,0\n2,z,0,0.2,0.8\n"
    task = Table("t", folder(tmp_path, train, sample=None), "id", ["text"], votes=["a", "b", "c"])
    assert task.classes == ("a", "b", "c")
    assert [e.votes for e in task.read("train")] == [(0.5, 0.25, 0.25), (), (0.0, 0.2, 0.8)]
    assert [e.label for e in task.read("train")] == [0, 1, 2]
    folder(tmp_path, train + "3,w,0,0,0\n4,v,-1,2,0\n5,u,x,0,1\n", sample=None)
    with pytest.raises(UserError, match=r"3 rows are faulty.*train.csv:5 \(its votes are '0, 0, 0'"):
        task.read("train")


def test_a_row_is_made_for_each_answer(tmp_path):
    train = "Q,Text,Correct,AnswerAText,AnswerBText,AnswerCText,MAId,MBId,MCId\n"
    train += "7,sum,A,one,two,three,,5.0,\n8,sum2,C,four,five,six,9,,\n"
    test = "Q,Text,Correct,AnswerAText,AnswerBText,AnswerCText\n1,new,B,x,y,z\n"
    (tmp_path / "names.csv").write_text("Id,Name\n5,five is odd\n9,nine\n12,twelve\n")
    unpivot = {"name": "Answer", "values": ["A", "B", "C"], "skip_equal_to": "Correct"}
    unpivot["columns"] = {"AnswerText": "Answer{}Text", "Misconception": "M{}Id"}
    classes = {"file": "names.csv", "value": "Id", "name": "Name"}
    task = Table(
        "eedi", folder(tmp_path, train, test, None), ["Q", "Answer"], ["Text", "AnswerText"], "Misconception",
        classes=classes, unpivot=unpivot, tags=["Answer"],
    )  # fmt: skip
    rows = task.read("train")
    assert [(row.id, row.fields["AnswerText"][0], row.label, row.tags["Answer"]) for row in rows] == [
        ("7_B", "two", 0, "B"),
        ("8_A", "four", 1, "A"),
    ]
    assert task.class_names == ("five is odd", "nine", "twelve")
    assert [row.id for row in task.read("test")] == ["1_A", "1_C"]
    table = pd.read_csv(tmp_path / "test.csv")
    assert [row.id for row in task.parse(table)] == ["1_A", "1_C"]


def test_a_pattern_of_the_answer_alone_is_no_matter_of_test_rows(tmp_path):
    train = "Q,Correct,TA,TB,MA,MB\n7,A,one,two,m,n\n8,B,three,four,o,p\n"
    path = folder(tmp_path, train, "Q,TA,TB\n1,{x},y\n", None)
    unpivot = {"name": "Answer", "values": ["A", "B"], "columns": {"Text": "T{}", "Misconception": "M{Correct}"}}
    task = Table("t", path, ["Q", "Answer"], ["Text"], "Misconception", unpivot=unpivot)
    assert [(row.id, row.label) for row in task.read("train")] == [("7_A", 0), ("7_B", 0), ("8_A", 1), ("8_B", 1)]
    assert [row.fields["Text"] for row in task.read("test")] == [("{x}",), ("y",)]
    assert [row.id for row in task.parse([{"Q": 1, "TA": "x", "TB": "y"}])] == ["1_A", "1_B"]


def test_pairs_swap_by_the_names_of_classes(tmp_path):
    train = "id,prompt,response_a,response_b,winner\n0,q,x,y,model_b\n1,q2,z,w,model_a\n"
    path = folder(tmp_path, train, "id,prompt,response_a,response_b\n5,q,x,y\n", None)
    task = Table(
        "wsdm", path, "id", ["prompt", "response_a", "response_b"], "winner", swap={"model_a": "model_b"},
        classes={"model_a": "A", "model_b": "B"},
    )  # fmt: skip
    swap = Swap.of(task)
    assert swap.classes == (1, 0)
    swapped = swap_sides(task.read("train")[0], swap)
    assert (swapped.fields["response_a"], swapped.label) == (("y",), 0)
    assert "pairs" in task.offers
    with pytest.raises(UserError, match=r"task\.swap names 'model_x', which is no class; did you mean"):
        Swap.by_names({"model_x": "model_b"}, task.classes)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_files_and_tables_in_memory_of_every_kind_are_the_same_rows(tmp_path, ending):
    frame = pd.DataFrame(
        {"row_id": [3, 4, 5], "body": ["NA", "", 'q "x"'], "rule": ["1", "2", "3"], "broken": [0, 1, 1]}
    )
    save = {
        ".csv": lambda table, to: table.to_csv(to, index=False),
        ".tsv": lambda table, to: table.to_csv(to, index=False, sep="\t"),
        ".jsonl": lambda table, to: table.to_json(to, orient="records", lines=True),
        ".parquet": lambda table, to: table.to_parquet(to),
    }[ending]
    save(frame, tmp_path / f"train{ending}")
    save(frame.drop(columns="broken"), tmp_path / f"test{ending}")
    task = rules(tmp_path, submission=None)
    fields = [example.fields for example in task.read("train")]
    assert fields[0] == {"body": ("NA",), "rule": ("1",)}
    assert fields[1]["body"] == ("",)
    assert [e.label for e in task.read("train")] == [0, 1, 1]
    in_memory = task.parse(frame.drop(columns="broken"))
    assert [(e.id, e.fields) for e in in_memory] == [(e.id, e.fields) for e in task.read("test")]


def test_group_text_takes_columns_that_are_not_shown(tmp_path):
    train = "row_id,body,rule,broken,thread\n0,a,r,1,t1\n1,b,r,0,t2\n"
    task = rules(folder(tmp_path, train, sample=None), group_by=["thread", "rule"])
    first = task.read("train")[0]
    assert task.group_text(first) == "t1\nr"
    assert "thread" not in first.fields


def test_parquet_columns_of_lists_or_bytes_are_refused(tmp_path):
    frame = pd.DataFrame({"row_id": [1, 2], "body": [["x"], ["y"]], "rule": [b"a", b"b"], "broken": [0, 1]})
    frame.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"the column body holds list.*expected text or numbers; write the table"):
        rules(tmp_path).read("train")
    with pytest.raises(UserError, match="the column rule holds binary"):
        rules(tmp_path, fields=["rule"]).read("train")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "brocken"}, r"lacks the columns brocken \(nearest: broken\)"),
        ({"label": None}, "needs either task.label, a column, or task.votes"),
        ({"classes": ["0"]}, "has 1 classes; expected at least two"),
        ({"classes": {"0": False, "1": True}}, "the name of '0' is False; write it in quotes"),
        ({"classes": ["0", "2"], "submission": None}, r"its broken '1' is none of the 2 classes"),
        ({"classes": ["0", "1", "1"]}, "has 1 more than once"),
        ({"classes": ["0", "label"]}, "a class is called 'label', like a column of oof.csv"),
        ({"classes": 3}, "expected a list of values, a mapping"),
        ({"classes": {"file": "x.csv"}}, "expected the keys file, value and name"),
        ({"submission": {"broken": 'probability("3")'}}, "'3' is no class; known: 0, 1"),
        ({"submission": {"broken": "argmax"}}, r"is not accepted: expected probability"),
        ({"submission": {"broken": "best(3)"}}, r"best\(3\) of 2 classes"),
        ({"unpivot": {"name": "x", "values": 3, "columns": {"y": "y{}"}}}, "is not accepted: expected {name: Answer"),
        ({"unpivot": {"name": "x", "values": ["A"], "columns": {}}}, "is not accepted: expected {name: Answer"),
        ({"swap": {"0": "1"}}, "task.swap is for pairs, and task.fields has no two columns such as response_a"),
        ({"fields": ["body_a", "body_b"], "swap": {"0": "2"}}, "task.swap names '2', which is no class"),
        ({"unpivot": {"values": ["A"]}}, "is not accepted: expected {name: Answer"),
        ({"fields": ["body", "ruel"]}, r"lacks the columns ruel \(nearest: rule\)"),
        ({"metric": "auc_by(rul)"}, r"lacks the columns rul \(nearest: rule\)"),
        ({"metric": "map_at(x)"}, "expected a whole number of ranks"),
        ({"fields": ["body", "broken"]}, "task.fields has broken, the answer itself"),
        ({"metric": "auc_by(seconds)"}, "the column seconds as a tag, and rows.csv has another"),
        ({"group_by": ["found"]}, "the column found as a tag, and rows.csv has another"),
        ({"examples": {"0": 3}}, "task.examples={'0': 3} is not accepted: expected {text: body, by: rule"),
        ({"examples": {"0": ["body"], "by": 3}}, "is not accepted: expected {text: body, by: rule"),
        ({"submission": {}}, "task.submission ; name the same columns"),
        ({"labels_by": "broken"}, "task.labels_by has broken, the answer itself"),
        ({"label": None, "votes": ["rule"], "fields": ["body", "rule"]}, "task.fields has rule, the answer itself"),
        ({"label": "rule", "fields": ["body"], "classes": None, "metric": "qwk"}, "qwk needs classes in order"),
        ({"classes": ["0", "1", "2"], "metric": "f1(binary)"}, r"f1\(binary\) is of the second of two classes"),
        ({"fields": ["body", "options"]}, "task.fields has options, a name that a prompt uses for another thing"),
        ({"train_file": "x.csv"}, "x.csv is not there: task.train_file names it"),
    ],
)
def test_wrong_keys_are_one_line(tmp_path, changes, words):
    with pytest.raises(UserError, match=words) as refused:
        rules(folder(tmp_path), **changes).read("train")
    assert "\n" not in str(refused.value)


COLUMNS, NAMES, MAPPINGS = (
    ("id", "fields", "label", "group_by"),
    ("name", "labels_by", "metric"),
    ("submission", "swap"),
)
WRONG = [3, True, 0.5, "", [""], [3], [["x"]], {"a": 3}, ["x", "x"], []]


@pytest.mark.parametrize("key", [*COLUMNS, *NAMES, *MAPPINGS, "votes", "train_file", "sample_file"])
def test_a_value_of_another_kind_is_one_line_with_the_kind_that_is_expected(tmp_path, key):
    path = folder(tmp_path)
    for value in WRONG if key not in MAPPINGS else ["x", 3, ["x"]]:
        with pytest.raises(UserError, match=rf"^task\.{key}=.* is not accepted: expected a ") as refused:
            rules(path, **{key: value})
        assert "\n" not in str(refused.value)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"must have the ids of test.csv, but lacks 8 and adds 9"):
        rules(folder(tmp_path, sample="row_id,broken\n007,0.5\n9,0.5\n")).read("test")
    task = rules(folder(tmp_path, sample="row_id,other\n007,0.5\n8,0.5\n"))
    for split in ("train", "test"):  # before any training
        with pytest.raises(UserError, match=r"has the columns other behind its id, task\.submission broken"):
            task.read(split)
    folder(tmp_path, ending=".tsv")
    with pytest.raises(UserError, match=r"has train\.csv, train.tsv; name the one to read with task.train_file"):
        rules(tmp_path).read("train")


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (RULES + "3,x,y,\n", r"train.csv:6 \(its label broken is empty\)"),
        (RULES + "0,x,y,1\n", r"id 0 again, first in train.csv:2"),
        (RULES + "3,x,y\n", "3 cells, the header has 4"),
    ],
)
def test_faulty_rows_are_named(tmp_path, train, words):
    with pytest.raises(UserError, match=words):
        rules(folder(tmp_path, train)).read("train")


def test_json_lines_name_rows_without_a_field(tmp_path):
    rows = [
        {"row_id": 1, "body": "x", "rule": "r", "broken": 1},
        {"row_id": 2, "body": ["x"], "rule": "r", "broken": 0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"row_id": 3, "rule": "r", "broken": 0}])
    path = folder(tmp_path, text, text, None, ".jsonl")
    with pytest.raises(
        UserError, match=r"train.jsonl:2 \(body is list, expected text or a number\), train.jsonl:3 \(lacks"
    ):
        rules(path).read("train")


def test_reading_a_table_imports_no_torch(tmp_path):
    code = "from nexttoken.tasks.table import Table; import sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_best_label_of_a_submission_follows_the_metrics_threshold(tmp_path):
    path = folder(tmp_path)
    for metric, expected in (("f1(macro)", "1"), ("accuracy", "0")):
        task = rules(path, metric=metric, submission={"broken": "best"})
        made = replace(predictions(task, [[0.7, 0.3], [0.9, 0.1]]), threshold=0.2)
        task.write(made, tmp_path / "out.csv")
        assert (tmp_path / "out.csv").read_text() == f"row_id,broken\n007,{expected}\n8,0\n"
