"""`python -m nexttoken data task=...` reports on the rows of any task, at most 100 characters wide."""

import subprocess
import sys

import pytest

from nexttoken.commands import data
from nexttoken.commands.data_examples import report
from nexttoken.prompts import Prompt
from nexttoken.tasks.table import Table
from support.commands import refusal
from support.training import REPOSITORY

LONG = "Explain, step by step, how a steam engine turns heat into motion, and why it needs a condenser."
TRAIN = f"""id,q,text,note,extra,label
1,p,one two,n,e,a
2,p,one two,n,e,b
3,p,{LONG.replace(",", ";")},n,e,a
4,q,{LONG.replace(",", ";").replace("heat", "warmth")},n,e,b
5,q,,n,e,a
6,q,new text,n,e,c
"""
TEST = f"id,q,text,note\n11,p,one two,n\n12,r,{LONG.lower().replace(',', ';')},n\n13,r,other,n\n"


@pytest.fixture
def made(tmp_path):
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "test.csv").write_text(TEST)
    changes = {"group_by": ["text"], "labels_by": "q", "classes": ["a", "b", "c", "d"]}
    return lambda **more: Table(
        **{"name": "made", "input_dir": tmp_path, "id": "id", "fields": ["text"], "label": "label", **changes, **more}
    )


PROMPT = Prompt("{{ text[0] }}\n", "Answer: ", "names")


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the tables by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[0:1] == "|"]
    return {name: values for name, *values in rows}


def test_the_report_on_a_table(made):
    text = report(made(), PROMPT, 2)
    found = cells(text)
    assert found["rows"] == ["6", "3"]
    assert found["a"] == ["3 (50.0%)"]
    assert found["c"] == ["1 (16.7%)"]
    assert found["text characters"] == ["7 / 8 / 73 / 97", "6 / 7 / 51 / 95"]
    assert found["rows that repeat another"] == ["1", "0"]
    assert found["groups of nearly equal texts"] == ["2 (4 rows, largest 2)", "0 (0 rows, largest 1)"]
    assert found["rows in a group with several labels"] == ["4", ""]
    assert found["rows also in train, exactly"] == ["", "1"]
    assert found["rows with a group of train"] == ["", "2"]
    assert text.splitlines()[-7:] == [
        "1 classes have no training row: d",
        "1 classes have one training row: c",
        "labels by q: 2.5 of 3 labels for each of 2",
        "test rows have 1 values of q without training rows: r",
        "train: 1 rows have an empty text: ids 5",
        "train: 2 rows have the texts of a row with another label: ids 1, 2",
        "columns that nothing reads: note, extra",
    ]


def test_fields_that_the_prompt_does_not_show_and_folds_that_are_impossible(made):
    lines = report(made(fields=["text", "note"]), PROMPT, 5).splitlines()
    assert "fields that the prompt does not show: note" in lines
    assert "4 groups of texts are too few for split.num_folds=5; lower it, or add rows" in lines


def test_a_group_of_a_column_that_test_rows_lack(made):
    assert cells(report(made(group_by=["extra"]), PROMPT, 2))["groups of nearly equal texts"][0].startswith("1 (6 rows")


def test_absent_and_faulty_test_rows_are_said(made, tmp_path):
    (tmp_path / "test.csv").write_text(TEST + "13,r,x,n\n")
    assert "test rows that predict.py will refuse: " in " ".join(report(made(), PROMPT, 2).split())
    (tmp_path / "test.csv").unlink()
    text = report(made(), PROMPT, 2)
    assert "\nno test rows:" in text
    assert cells(text)["rows"] == ["6", "0"]


@pytest.mark.parametrize(
    "task",
    ["map", "eedi", "jigsaw_rules", "wsdm", "quiz", "marks", "instruct", "dialogue", "lmsys", "llm_classification"],
)
def test_every_task_has_a_report_that_fits_a_terminal(task, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    data.main([f"task={task}"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| rows ") for line in lines)
    assert max(map(len, lines[1:])) <= 100


def test_many_and_long_names_of_classes_fit(tmp_path):
    names = [f"{'a very long name ' * 6}{place}" for place in range(30)]
    rows = "".join(f"{place},t{place},{names[place % 30]}\n" for place in range(70))
    (tmp_path / "train.csv").write_text("id,text,label\n" + rows)
    text = report(Table("made", tmp_path, "id", ["text"], "label"), PROMPT, 2)
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert cells(text)["10 more"] == ["20 (28.6%)"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task=mpa"], "task=mpa is not one of its choices; did you mean 'map'?"),
        (["task=map", "input_dri=x"], "unknown key 'input_dri'; did you mean 'input_dir'?"),
        (["task=map", "task.label=Categry"], "lacks the columns Categry (nearest: Category)"),
        (["task.label=x"], "unknown argument 'task.label=x', expected key=value;"),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert words in refusal(capsys, "data", *arguments)


def test_no_torch_is_imported():
    code = "import sys; from nexttoken.commands import data; data.main(['task=map']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
