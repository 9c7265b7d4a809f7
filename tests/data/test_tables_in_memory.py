"""A table in memory says the same as its file, whatever types pandas made of its cells."""

import io
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.data.tables_in_memory import ids_as_given, rows_in_memory
from nexttoken.errors import UserError
from nexttoken.tasks.quiz import Quiz

ABSENT = [None, np.nan, pd.NA, pd.NaT, np.float32("nan"), Decimal("NaN")]
DTYPES = ["int64", "int32", "uint8", "Int64", "float64", "float32", "Float64", "object", "category", "int64[pyarrow]"]


def cells_of(rows: Any, texts: Sequence[str] = ()) -> list[Any]:
    return [row for _, row in rows_in_memory(rows, texts)]


@pytest.mark.parametrize("absent", ABSENT, ids=repr)
def test_every_mark_of_absence_leaves_the_cell_out(absent: Any) -> None:
    assert cells_of([{"a": absent, "b": 1}]) == [{"b": 1}]
    assert cells_of(pd.DataFrame({"a": pd.Series([absent, "x"], dtype=object)})) == [{}, {"a": "x"}]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=1, max_size=5).filter(any))
def test_whole_numbers_beside_an_absent_cell_stay_whole(numbers: list[int | None]) -> None:
    frame = pd.read_csv(io.StringIO("n,end\n" + "".join(f"{'' if n is None else n},x\n" for n in numbers)))
    assert [row.get("n") for row in cells_of(frame, ["n"])] == [None if n is None else str(n) for n in numbers]


def test_texts_stay_as_they_are_written() -> None:
    frame = pd.DataFrame({"a": [4.0, 2.0], "b": [True, False], "c": [0, 1], "d": [np.array(["x", "y"]), [1, 2]]})
    assert cells_of(frame, ["a", "b", "c", "d"]) == [
        {"a": "4.0", "b": "True", "c": "0", "d": ["x", "y"]},
        {"a": "2.0", "b": "False", "c": "1", "d": ["1", "2"]},
    ]
    assert cells_of(frame.drop(columns="d"))[0] == {"a": 4.0, "b": True, "c": 0}


@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_come_back_in_their_own_type(dtype: str) -> None:
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"x": [0, 1], "id": pd.Series([9, 7]).astype(dtype)}).set_index(pd.Index([5, 3]))
    ids = ids_as_given(frame, ["9", "7"])
    assert ids.dtype == frame["id"].dtype
    assert list(frame.merge(pd.DataFrame({"id": ids, "y": [0, 1]}), on="id")["y"]) == [0, 1]


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
def test_ids_of_text_keep_their_zeros(dtype: str) -> None:
    frame = pd.DataFrame({"qid": pd.Series(["007", "7", "1e3"], dtype=dtype)})
    assert list(ids_as_given(frame, ["007", "7", "1e3"])) == ["007", "7", "1e3"]


def test_a_row_without_an_id_keeps_the_one_it_was_given() -> None:
    frame = pd.DataFrame({"id": [3.0, np.nan], "q_id": [1, 2]})
    assert list(ids_as_given(frame, ["3", "row-2"])) == [3.0, "row-2"]
    assert list(ids_as_given(frame, ["1", "2"])) == [1, 2]
    assert list(ids_as_given([{"id": np.int64(3)}, {"id": "07"}], ["3", "07"])) == [3, "07"]
    assert list(ids_as_given(pd.DataFrame({"row_id": [8, 7], "id": [8, 9]}), ["8", "7"], "row_id")) == [8, 7]
    assert list(ids_as_given(pd.DataFrame({"q": [1], "n": [2]}), ["1_2"], ["q", "n"])) == ["1_2"]
    assert list(ids_as_given(pd.DataFrame({"question": ["a"]}), ["row-1"])) == ["row-1"]


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="the table names columns twice: id, id; rename one of each"):
        list(rows_in_memory(pd.DataFrame([[1, 2]], columns=["id", "id"])))


EXAM = "id,prompt,A,B,C,D,E,answer\n900,4 - 4?,4,3,2,1,0,E\n901,5 - 5?,0,1,2,,,A\n902,True?,1,2.5,3,4,5,\n"
WORDS = "id,question,A,B,C,D\n07,Which?,0,1,2,3\n08,Is it?,True,0.5,x,\n"
READ: dict[str, Callable[[str], pd.DataFrame]] = {
    "as pandas reads it": lambda text: pd.read_csv(io.StringIO(text)),
    "as text": lambda text: pd.read_csv(io.StringIO(text), dtype=str),
    "with every cell": lambda text: pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False),
    "categories": lambda text: pd.read_csv(io.StringIO(text)).astype("category"),
    "nullable types": lambda text: pd.read_csv(io.StringIO(text)).convert_dtypes(),
    "objects": lambda text: pd.read_csv(io.StringIO(text), dtype=object),
}


@pytest.mark.parametrize("how", READ)
def test_a_quiz_table_says_the_same_however_it_is_read(how: str) -> None:
    exam = Quiz("science_exam", "none", "science_exam").parse(READ[how](EXAM))
    assert [example.fields["options"][:3] for example in exam] == [("4", "3", "2"), ("0", "1", "2"), ("1", "2.5", "3")]
    assert [example.num_options for example in exam] == [5, 3, 5]
    assert [example.label for example in exam] == [4, 0, None]
    words = Quiz("jmmlu", "none", "jmmlu", num_options=4).parse(READ[how](WORDS))
    assert [example.fields["options"] for example in words] == [("0", "1", "2", "3"), ("True", "0.5", "x")]


@pytest.mark.parametrize(("name", "question"), [("jmmlu", "question"), ("science_exam", "prompt")])
@pytest.mark.parametrize("absent", ["A", "B", "C"])
def test_no_option_takes_the_place_of_an_absent_one(name: str, question: str, absent: str) -> None:
    row = {"id": 0, question: "q", "A": "zero", "B": "None", "C": "one", "D": "two"} | {absent: np.nan}
    with pytest.raises(UserError, match=rf"row 1 \(option {absent} is absent, and D is not; .*keep_default_na=False"):
        Quiz(name, "none", name).parse(pd.DataFrame([row]))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("jcommonsenseqa", {"question": 1, **{f"choice{n}": n for n in range(5)}, "label": 2.0}),
        ("jaqket", {"question": 1, "answer_candidates": np.arange(5), "answer_entity": 2}),
        ("plain", {"question": 1, "options": np.arange(5), "answer": np.int64(2)}),
    ],
)
def test_numbers_are_options_in_every_format(name: str, row: dict[str, Any]) -> None:
    (example,) = Quiz("quiz", "none", name).parse(pd.DataFrame([row]))
    assert (example.fields["question"], example.fields["options"]) == (("1",), ("0", "1", "2", "3", "4"))
    assert example.label == 2
