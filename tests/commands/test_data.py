"""`python -m nexttoken data` says what is in the files, and says it in one line where they are wrong."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from nexttoken.commands.data import describe, describe_prompts, problems, read_part
from nexttoken.tasks.preference import CLASSES, Preference

TRAIN = ("id", "model_a", "model_b", "prompt", "response_a", "response_b", *CLASSES)
LONG_PROMPT = "Explain, step by step, how a steam engine turns heat into motion, and why it needs a condenser."


@pytest.fixture
def task(tmp_path: Path) -> Preference:
    rows = {
        "train.csv": [
            TRAIN,
            ("01", "x", "y", '["one two", null]', '["a", "b"]', '["a", "b"]', 0, 0, 1),
            ("02", "x", "z", '["one two", null]', r'["\ud83d", ""]', '["four words are here", "b"]', 1, 0, 0),
            ("03", "x", "y", f'["{LONG_PROMPT}"]', f'["{"a" * 100_001}"]', "[null]", 1, 0, 0),
            ("04", "y", "x", f'["{LONG_PROMPT.replace("heat", "warmth")}"]', '["a", "b"]', '["b"]', 0, 1, 0),
        ],
        "test.csv": [
            ("id", "prompt", "response_a", "response_b"),
            ("11", '["one two", null]', '["a"]', '["b"]'),
            ("12", f'["{LONG_PROMPT.lower()}"]', '["a"]', '["b"]'),
            ("13", '["new"]', '["a"]', '["b"]'),
        ],
        "sample_submission.csv": [("id", *CLASSES), *[(row_id, 0.5, 0.5, 0) for row_id in ("11", "12", "13")]],
    }
    for name, lines in rows.items():
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
    return Preference(tmp_path)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nexttoken", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_measures_of_the_training_file(task: Preference) -> None:
    measures = describe(read_part(task, "train"), task.classes)
    expected = {
        "rows": "4",
        "winner_model_a": "2 (50.0%)",
        "winner_tie": "1 (25.0%)",
        "turns a conversation": "2 / 2 / 2",
        "prompt null, empty turns": "2, 0",
        "response_a null, empty turns": "0, 1",
        "response_b null, empty turns": "1, 0",
        "response_a lone surrogates": "1",
        "rows with identical responses": "1",
        "models": "3",
        "most frequent models": "x 4, y 3, z 1",
    }
    assert {name: measures[name] for name in expected} == expected
    assert measures["response_a characters"].endswith(" / 100,001")
    assert measures["response_b words"].endswith(" / 5")


def test_measures_of_the_test_file_name_no_labels_or_models(task: Preference) -> None:
    measures = describe(read_part(task, "test"), task.classes)
    assert measures["rows"] == "3"
    assert not {*CLASSES, "models"} & measures.keys()


def test_prompts_shared_exactly_and_nearly(task: Preference) -> None:
    assert describe_prompts(read_part(task, "train"), read_part(task, "test")) == {
        "rows repeating a prompt": ("1", "0"),
        "groups of near-duplicate prompts": ("2 (4 rows, largest 2)", "0 (0 rows, largest 1)"),
        "prompts also in train, exactly": ("", "1"),
        "prompts also in train, nearly": ("", "2"),
    }


def test_problems_name_their_rows(task: Preference) -> None:
    assert problems(read_part(task, "train")) == [
        "train.csv: 1 rows have an empty response: ids 03",
        "train.csv: 1 rows have a field over 100,000 characters: ids 03",
        "train.csv: 1 rows have fields with different numbers of turns: ids 04",
    ]


def test_command_prints_plain_lines_without_a_terminal(task: Preference) -> None:
    result = command(f"input_dir={task.input_dir}")
    assert result.returncode == 0
    assert "lone surrogates (halves of a character) became U+FFFD" in result.stderr
    lines = result.stdout.splitlines()
    assert next(line.split() for line in lines if line.startswith("| rows ")) == ["|", "rows", "|", "4", "|", "3", "|"]
    assert not {"│", "\x1b"} & {*result.stdout}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("input_dri=x", "unknown argument 'input_dri=x', expected key=value; did you mean 'input_dir'?"),
        ("input/x", "unknown argument 'input/x'"),
        ("input_dir=", "has no value"),
        ("input_dir=/no/such/folder", "/no/such/folder/train.csv cannot be read"),
    ],
)
def test_mistakes_get_one_line_and_status_2(argument: str, expected: str) -> None:
    result = command(argument)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_prints_the_command() -> None:
    assert "python -m nexttoken data input_dir=" in command("--help").stdout


def test_nothing_heavy_is_imported() -> None:
    heavy = {"torch", "transformers", "lightning", "hydra", "sklearn", "matplotlib"}
    code = f"import sys, nexttoken.commands.data, nexttoken.tasks.submission; print(*{heavy!r} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
