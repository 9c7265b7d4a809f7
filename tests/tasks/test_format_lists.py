"""Lists of file formats, and submissions of any text or of none."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.tasks.format_lists import FileFormat, FormatList
from nexttoken.tasks.submission import check_probs, find_ids, write_probs, write_submission

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@pytest.fixture
def formats(tmp_path: Path, monkeypatch) -> FormatList:
    """A package with two modules of formats, one without, and something in FORMATS that is none."""
    package = tmp_path / "some_formats"
    package.mkdir()
    (package / "__init__.py").write_text("")
    head = "from nexttoken.tasks.format_lists import FileFormat\nclass F(FileFormat):\n"
    head += "    def __init__(self, name, position):\n        self.name, self.position = name, position\n"
    (package / "a.py").write_text(head + "FORMATS = (F('late', 9), F('plain', 0), 'no format')\n")
    (package / "b.py").write_text(head + "FORMATS = (F('first', -1), F('also plain', 0))\n")
    (package / "c.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("some_formats")
    yield FormatList("some_formats", FileFormat, "quiz")
    for name in [name for name in sys.modules if name.split(".")[0] == "some_formats"]:
        del sys.modules[name]


def test_formats_are_tried_by_position_then_by_module(formats: FormatList) -> None:
    assert [one.name for one in formats.all()] == ["first", "plain", "also plain", "late"]
    assert formats.named("late").position == 9
    with pytest.raises(UserError, match="no quiz format is called 'lat'; did you mean 'late'"):
        formats.named("lat")
    error = formats.unknown("x.csv", ": no answers")
    assert str(error) == "x.csv is in no quiz format that is known here (first, plain, also plain, late): no answers"


def test_shipped_formats_have_names_of_their_own() -> None:
    from nexttoken.tasks import instruction_formats, quiz_formats

    for package in (instruction_formats, quiz_formats):
        (listed,) = (value for value in vars(package).values() if isinstance(value, FormatList))
        names = [one.name for one in listed.all()]
        assert names
        assert len(names) == len(set(names))
        assert all(listed.named(name) is one for name, one in zip(names, listed.all(), strict=True))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(ANY_TEXT, min_size=1, max_size=4))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_answers_of_any_text_come_back(tmp_path: Path, suffix: str, answers: list[str]) -> None:
    rows = [(str(number), answer) for number, answer in enumerate([*answers, 'a\r\n"b",\u2028\x85'])]
    write_submission(("id", "answer"), iter(rows), tmp_path / "x", suffix)
    if suffix == ".jsonl":
        lines = (tmp_path / "x").read_text(encoding="utf-8").split("\n")[:-1]
        assert [tuple(json.loads(line).values()) for line in lines] == rows


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_no_rows_and_rows_of_another_length_write_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "x"
    with pytest.raises(UserError, match="x: there are no rows to write; expected one per row of the test file"):
        write_submission(("id", "answer"), iter(()), path, suffix)
    for row in (("1",), ("1", "a", "b")):
        with pytest.raises((UserError, ValueError)):
            write_submission(("id", "answer"), [row], path, suffix)
    assert not list(tmp_path.iterdir())


def test_probabilities_of_no_rows_and_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no rows to write"):
        write_probs([], np.zeros((0, 2)), ("id", "a", "b"), tmp_path / "x")
    for probs in (np.zeros((1, 3)), np.zeros(2), np.zeros((2, 2))):
        with pytest.raises(UserError, match=r"probabilities of shape .*, expected \(1, 2\): one row per id"):
            write_probs(["1"], probs, ("id", "a", "b"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 8), st.integers(0, 7), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e-9, 2e-6]))
def test_one_bad_row_is_named(num_rows: int, bad: int, change: float) -> None:
    probs = np.full((num_rows, 4), 0.25)
    ids = [f"id{number}" for number in range(num_rows)]
    check_probs("x", ids, probs, "abcd")
    probs[bad % num_rows, 1] = change if not np.isfinite(change) or abs(change) > 1 or change < 0 else 0.25 + change
    with pytest.raises(UserError, match=f" for ids id{bad % num_rows}; expected 4 numbers in"):
        check_probs("x", ids, probs, "abcd")


@given(st.lists(st.integers(0, 6), max_size=8), st.lists(st.integers(0, 6), max_size=8, unique=True))
def test_ids_are_placed_or_the_difference_is_named(ids: list[int], expected: list[int]) -> None:
    given_, wanted = list(map(str, ids)), list(map(str, expected))
    if sorted(given_) == sorted(wanted):
        assert [given_[place] for place in find_ids("x", given_, "test.csv", wanted)] == wanted
        return
    with pytest.raises(UserError) as error:
        find_ids("x", given_, "test.csv", wanted)
    text = str(error.value)
    assert ("lacks" in text) is bool(set(wanted) - set(given_))
    assert ("adds" in text) is bool(set(given_) - set(wanted))
    assert ("more than once" in text) is (set(given_) == set(wanted))
