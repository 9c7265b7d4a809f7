"""A table's classes and the columns of its submission: any name, any number, and columns beside one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.tasks.answer_columns import SubmissionForm, answer_columns
from nexttoken.tasks.label_space import learnt_classes
from nexttoken.tasks.table import Table
from nexttoken.types import LabelPredictions


def test_learnt_whole_numbers_are_ordered_as_numbers_whatever_wrote_them(tmp_path):
    rows = "".join(f"{n},t,{label}\n" for n, label in enumerate(["10.0", "9", "9.0", "-1.0"]))
    (tmp_path / "train.csv").write_text(f"id,text,label\n{rows}")
    task = Table("t", tmp_path, "id", ["text"], "label", metric="qwk")
    assert task.classes == ("-1", "9", "10")
    assert [row.label for row in task.read("train")] == [2, 1, 1, 0]
    assert learnt_classes(["--1", "2", "²"]) == ["--1", "2", "²"]


@given(st.sets(st.text(st.sampled_from("ab'\"(), \n"), min_size=1, max_size=5), min_size=2, max_size=4))
def test_any_class_is_named_in_a_submission(names):
    columns = answer_columns({f"p{n}": f'probability("{name}")' for n, name in enumerate(names)}, [*names])
    assert [column.index for column in columns.values()] == [*range(len(names))]


@pytest.mark.parametrize("given", [None, {}])
def test_without_a_sample_and_expressions_the_label_is_written(given):
    assert [*SubmissionForm.of([], None, given, ["a", "b"], "id").columns] == ["label"]


def test_the_sum_of_probabilities_is_checked_beside_other_columns(tmp_path):
    columns = {"no": 'probability("0")', "yes": 'probability("1")', "again": 'probability("1")', "label": "best"}
    (tmp_path / "test.csv").write_text("row_id,body\n007,x\n8,y\n")
    task = Table("t", tmp_path, "row_id", ["body"], "label", classes=["0", "1"], submission=columns)
    path = tmp_path / "out.csv"
    task.write(LabelPredictions(("007", "8"), np.array([[0.25, 0.75], [1, 0]])), path)
    assert path.read_text() == "row_id,no,yes,again,label\n007,0.25,0.75,0.75,1\n8,1.0,0.0,0.0,0\n"
    assert task.check(path).startswith("2 rows")
    path.write_text(path.read_text().replace("0.25", "0.5"))
    with pytest.raises(UserError, match="not summing to 1 for ids 007"):
        task.check(path)
