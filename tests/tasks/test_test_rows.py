"""Faults of the test rows are said before the training, in every task; test files that come later are not missed."""

import json
import logging
from pathlib import Path

import pytest

from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.marks import Marks
from nexttoken.tasks.preference import Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.tasks.test_rows import warn_of_test_rows

PREFERENCE_HEADER = "id,prompt,response_a,response_b"
SAMPLE = "id,winner_model_a,winner_model_b,winner_tie\n1,0,0,0\n"
MARK = {"id": "a", "instruction": "Name a fruit.", "response": "pear"}
QUESTION = {"id": "q", "question": "1 + 1?", "options": ["1", "2"]}


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def preference_rows(*ids: int) -> str:
    return "\n".join([PREFERENCE_HEADER, *(f'{row_id},"[""a""]","[""b""]","[""c""]"' for row_id in ids)]) + "\n"


TASKS = {  # a task, its test file, a sound and a faulty content
    "preference": (Preference, "test.csv", preference_rows(1), preference_rows(1, 1)),
    "marks": (Marks, "test.jsonl", lines(MARK), lines(MARK, MARK)),
    "quiz": (lambda folder: Quiz("quiz", folder), "test.jsonl", lines(QUESTION), lines(QUESTION, QUESTION)),
    "instruct": (lambda folder: Instruct("x", folder), "test.jsonl", lines(MARK), lines(MARK, MARK)),
}


@pytest.mark.parametrize("name", TASKS)
def test_faulty_test_rows_are_a_warning_and_absent_or_sound_ones_are_silent(tmp_path: Path, name: str, caplog) -> None:
    make, file_name, sound, faulty = TASKS[name]
    if name == "preference":
        (tmp_path / "sample_submission.csv").write_text(SAMPLE)
    caplog.set_level(logging.INFO)
    warn_of_test_rows(make(tmp_path))
    (tmp_path / file_name).write_text(sound)
    warn_of_test_rows(make(tmp_path))
    assert caplog.text == ""
    for content, reason in ((faulty, " again, first in"), ("<!DOCTYPE html><html></html>", "is a web page")):
        caplog.clear()
        (tmp_path / file_name).write_text(content)
        warn_of_test_rows(make(tmp_path))
        (record,) = caplog.records
        assert record.getMessage().startswith("predict.py will refuse the test rows: ")
        assert reason in record.getMessage()
        assert file_name in record.getMessage()


def test_remarks_on_the_test_rows_are_left_to_predict(tmp_path: Path, caplog) -> None:
    (tmp_path / "test.jsonl").write_text(lines({"id": "q", "question": "\ud800", "options": ["1", "1"]}))
    with caplog.at_level(logging.INFO):
        warn_of_test_rows(Quiz("quiz", tmp_path))
        assert caplog.text == ""
        Quiz("quiz", tmp_path).read("test")
    assert "surrogates" in caplog.text
