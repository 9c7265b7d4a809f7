"""The check of a submission file: wrong ids, columns and cells, each one line with the fix."""

from pathlib import Path

import pytest

from nexttoken.data.files import to_yaml
from nexttoken.runs.ledger import record
from support.commands import refusal, status_of

HEADER = "id,a,b,tie"


@pytest.fixture
def input_dir(tmp_path) -> Path:
    folder = tmp_path / "eingabe ü 日"
    folder.mkdir()
    (folder / "test.csv").write_text("id,prompt\n07,x\n8,y\n", encoding="utf-8")
    (folder / "sample_submission.csv").write_text(f"{HEADER}\n07,0,0,1\n8,0,0,1\n", encoding="utf-8")
    return folder


def test_a_valid_file_with_any_line_ends_and_name_is_accepted(input_dir, tmp_path, capsys):
    for name, end in (("提出 a.csv", "\n"), ("b=1.csv", "\r\n"), ("c.csv", "\r")):
        path = tmp_path / name
        path.write_bytes(end.join([HEADER, "07,1,0,0", "8,0,1,0", ""]).encode())
        assert status_of("submission", [str(path), f"input_dir={input_dir}"]) == 0
        assert f"{path}: valid, 2 rows with the ids of {input_dir / 'test.csv'} in order" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty: expected a CSV with the columns id, a, b, tie; write it with `python predict.py`"),
        (f"{HEADER}\n", "has no rows below its header"),
        (None, "is no file; expected a submission"),
        (b"PK\x03\x04\xff", "is a zip archive; unzip it in place"),
        ("x\n1\n", "lacks the columns id, a, b, tie; its header is: x; rename its columns, or write it with"),
        (f"{HEADER}\n8,0,1,0\n07,1,0,0\n", "in another order: row 1 is 8, expected 07; sort its rows"),
        (f"{HEADER}\n07,1,0,0\n", "lacks 8; use files that belong together"),
        (f"{HEADER}\n07,1,0,0\n8,0,1,0\n9,0,1,0\n", "adds 9; use files that belong together"),
        (f"{HEADER}\n7,1,0,0\n8,0,1,0\n", "lacks 07 and adds 7"),
        (f"{HEADER}\n07,1,0,0\n8,0,1,0\n8,0,1,0\n", "id 8 again"),
        (f"{HEADER}\n07,1,0,0\n8,0,x,0\n", "not finite for ids 8; expected 3 numbers in [0, 1] summing to 1"),
        (f"{HEADER}\n07,1,0,0\n8,0,1\n", "3 cells, the header has 4"),
        (f"{HEADER}\n07,1,0,0\n8,0.5,0.4,0\n", "not summing to 1 for ids 8"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(input_dir, tmp_path, capsys, content, words):
    path = tmp_path / "提 出.csv"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    line = refusal(capsys, "submission", path, f"input_dir={input_dir}")
    assert words in line
    assert str(path) in line


def test_faulty_rows_come_with_the_command_that_writes_them(input_dir, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text(f"{HEADER}\n07,1,0,0\n07,1,0,0\n8,0,1,0\n", encoding="utf-8")
    line = refusal(capsys, "submission", path, f"input_dir={input_dir}")
    assert "x.csv:3" in line
    assert line.endswith("mend these rows, or write it with `python predict.py`")


def test_wrong_arguments_and_folders_are_one_line(input_dir, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("x\n", encoding="utf-8")
    assert "a path is missing" in refusal(capsys, "submission")
    assert "2 paths are given" in refusal(capsys, "submission", path, path)
    assert "did you mean 'input_dir'?" in refusal(capsys, "submission", path, "inputdir=x")
    assert "no is no file" in refusal(capsys, "submission", tmp_path / "no", f"input_dir={input_dir}")
    for folder, reason in ((tmp_path, "No such file or directory"), (path, "Not a directory")):
        line = refusal(capsys, "submission", path, f"input_dir={folder}")
        assert f"test.csv cannot be read ({reason})" in line
        assert "python -m nexttoken kaggle download" in line


def test_a_file_is_checked_by_the_task_of_its_run(tmp_path, capsys):
    data, fold = tmp_path / "data", tmp_path / "output" / "rules" / "a" / "fold0"
    data.mkdir()
    fold.mkdir(parents=True)
    (data / "test.csv").write_text("row_id,body\n07,x\n8,y\n")
    node = {"_target_": "nexttoken.tasks.table.Table", "name": "rules", "input_dir": str(data), "id": "row_id"}
    node |= {"fields": ["body"], "label": "broken", "classes": ["0", "1"], "submission": {"broken": 'probability("1")'}}
    (fold / "config.yaml").write_text(to_yaml({"task": node}))
    path = tmp_path / "submissions" / "a.csv"
    path.parent.mkdir()
    path.write_text("row_id,broken\n07,0.9\n8,0.7\n")
    record(path, str(fold.parent))
    assert status_of("submission", [str(path)]) == 0
    assert f"{path}: valid, 2 rows with the ids of {data / 'test.csv'} in order" in capsys.readouterr().out
    path.write_text("row_id,broken\n07,0.9\n8,1.7\n")
    assert "broken of id 8 is '1.7'; expected a number from 0 to 1" in refusal(capsys, "submission", path)
    fold.rename(tmp_path / "gone")
    assert "the run of this submission, has no fold; give its folder with run=" in refusal(capsys, "submission", path)
    other = f"run={tmp_path / 'output' / 'rules' / 'b'}"
    assert "has no fold" in refusal(capsys, "submission", path, other)
