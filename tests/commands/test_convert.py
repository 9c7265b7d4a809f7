"""`python -m nexttoken convert` writes any format as any other, says what is in it, and what it could not keep."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nexttoken.commands.convert import main
from nexttoken.errors import UserError
from nexttoken.tasks.quiz_formats import named


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [
        {
            "qid": "a",
            "question": "高い山は?",
            "answer_candidates": [f"山{i}" for i in range(20)],
            "answer_entity": "山3",
        },
        {"qid": "b", "question": "空は?", "answer_candidates": ["赤", "青", "青"], "answer_entity": "青", "number": 5},
    ]
    path = tmp_path / "dev1_questions.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_candidates_are_cut_and_the_file_is_described(source, tmp_path, capsys):
    main([f"from={source}", "to=instruction_input", f"out={tmp_path / 'quiz.json'}", "num_options=5"])
    assert capsys.readouterr().out.splitlines() == [
        f"{source} is jaqket",
        "2 questions, 2 with their answer",
        "options a question: 3 to 20",
        "no genres",
        "1 questions have repeated options: dev1_questions.json:2",
        f"{tmp_path / 'quiz.json'}: 2 questions written as instruction_input, and read back the same",
    ]
    first, second = named("instruction").read(tmp_path / "quiz.json")
    assert len(first.options) == 5
    assert first.options[first.answer] == "山3"
    assert second.options == ("赤", "青", "青")
    assert second.extra == {"number": 5}


def test_what_a_format_has_no_place_for_is_named(source, tmp_path, capsys):
    main([f"from={source}", "to=jmmlu", f"out={tmp_path / 'q.csv'}", "num_options=3"])
    assert capsys.readouterr().out.endswith("jmmlu has no place for: ids, genres, the keys number\n")


def test_a_folder_of_subjects_in_any_order(tmp_path, capsys):
    rows = [{"question": f"q{i}", "options": ["a", "b"], "answer": 0, "genre": genre} for i, genre in enumerate("bab")]
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main([f"from={plain}", "to=jmmlu", f"out={tmp_path / 'subjects'}"])
    assert "2 genres: b, a" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "subjects").iterdir()) == ["a.csv", "b.csv"]
    main([f"from={tmp_path / 'subjects'}", "to=plain", f"out={tmp_path / 'back.jsonl'}"])
    assert [(q.text, q.genre) for q in named("plain").read(tmp_path / "back.jsonl")] == [
        ("q1", "a"),
        ("q0", "b"),
        ("q2", "b"),
    ]


def test_faulty_rows_stop_the_conversion_or_are_left_out(source, tmp_path, capsys):
    with source.open("a", encoding="utf-8") as file:
        file.write('{"qid": "c"}\n')
    arguments = [f"from={source}", "from_format=jaqket", "to=plain", f"out={tmp_path / 'q.jsonl'}"]
    with pytest.raises(UserError, match=r"dev1_questions.json:3 \(lacks question\)"):
        main(arguments)
    assert not (tmp_path / "q.jsonl").exists()
    main([*arguments, "skip_faulty=true"])
    assert len(named("plain").read(tmp_path / "q.jsonl")) == 2
    assert "1 row is faulty: dev1_questions.json:3" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["plain", "jmmlu"])
def test_a_file_that_reads_back_otherwise_is_not_left_behind(source, tmp_path, monkeypatch, target):
    out = tmp_path / "made" / ("quiz.csv" if target == "jmmlu" else "quiz.jsonl")
    arguments = [f"from={source}", f"to={target}", f"out={out}", "num_options=3"]
    kind = type(named(target))
    faithful = kind.row

    def forgetful(self, question):
        return faithful(self, replace(question, text=question.text[:-1] + "!"))

    with monkeypatch.context() as patch:
        patch.setattr(kind, "row", forgetful)
        with pytest.raises(UserError, match="2 questions read back otherwise"):
            main(arguments)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [source.name]
    main(arguments)
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(kind, "row", forgetful)
        with pytest.raises(UserError, match="read back otherwise"):
            main(arguments)
    assert out.read_bytes() == before, "what was there stays"


def test_a_folder_with_files_is_not_replaced(tmp_path):
    plain, out = tmp_path / "plain.jsonl", tmp_path / "subjects"
    plain.write_text('{"question": "q", "options": ["a", "b"], "answer": 0, "genre": "b"}\n')
    out.mkdir()
    main([f"from={plain}", "to=jmmlu", f"out={out}"])
    kept = (out / "b.csv").read_bytes()
    with pytest.raises(UserError, match="is already there"):
        main([f"from={plain}", "to=jmmlu", f"out={out}"])
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("b.csv", kept)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["to=plain", "out=x"], "^from= is missing"),
        (["from={0}", "to=jacket", "out=x"], "did you mean 'jaqket'"),
        (["from={0}", "to=plain", "out={0}"], "is the file that is read"),
        (
            ["from={0}", "to=plain", "out=x", "num_options=1"],
            "num_options='1' is not accepted",
        ),
        (["from=absent.json", "to=plain", "out=x"], "is not there"),
        (
            ["from={0}", "to=jcommonsenseqa", "out=x"],
            r"2 questions do not fit jcommonsenseqa: dev1_questions.json:1 \(20",
        ),
    ],
)
def test_refusals(source, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        main([argument.format(source) for argument in arguments])
    assert not Path("x").exists()


def test_the_command_is_one_line_of_error_and_needs_no_torch(source):
    command = [sys.executable, "-m", "nexttoken", "convert", f"from={source}", "to=jcommonsenseqa", "out=x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    code = "import sys, nexttoken.commands.convert; print(*({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_odd_keys_and_genres_are_described_and_kept(tmp_path):
    row = r'{"question": "q", "options": ["a", "b"], "answer": 0, "n": NaN, "\udc00": 1, "genre": "\ud83d"}'
    (tmp_path / "q.jsonl").write_text(row + "\n")
    command = [sys.executable, "-m", "nexttoken", "convert", f"from={tmp_path / 'q.jsonl'}", "to=instruction"]
    done = subprocess.run([*command, f"out={tmp_path / 'q.json'}"], capture_output=True, text=True, check=True)
    assert r"1 genres: \ud83d" in done.stdout
    assert "no place for" not in done.stdout
    assert named("instruction").read(tmp_path / "q.json")[0].extra.keys() == {"n", "\udc00"}
    command[-1] = "to=jmmlu"
    done = subprocess.run([*command, f"out={tmp_path / 'q.csv'}"], capture_output=True, text=True, check=True)
    assert r"no place for: genres, the keys n, \udc00" in done.stdout
