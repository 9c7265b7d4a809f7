"""Help and refusals import little: checked in the list of imports that Python prints, not by a clock."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.startup import FAULTS, Command, Process, record, write_faulty
from nexttoken.data.files import to_yaml
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from support.composed import composed

LEARNING = {"torch", "transformers", "lightning", "peft", "bitsandbytes", "accelerate", "tokenizers"}
HEAVY = LEARNING | {"sklearn", "scipy", "matplotlib", "bm25s", "sacrebleu", "rouge_score", "rich"}
TABLES = HEAVY | {"pandas", "pyarrow"}
ALL = TABLES | {"numpy", "pydantic", "jinja2"}


def answer(repository: Path, *arguments: str) -> tuple[int, str, set[str]]:
    """The exit status of a command, what it printed, and the packages that it imported."""
    call = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, cwd=repository, timeout=60)
    lines = done.stderr.splitlines()
    times = [line for line in lines if line.startswith("import time:")]
    said = done.stdout + "\n".join(line for line in lines if line not in times)
    return done.returncode, said, {line.rpartition("|")[2].strip().split(".")[0] for line in times}


@pytest.mark.parametrize(
    ("arguments", "words", "unwanted"),
    [
        (["train.py", "trainer.max_epoch=3"], "key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?", ALL),
        (["train.py", "fold=first"], "fold='first' is not accepted", TABLES),
        (["train.py", "input_dir=/nowhere"], "/nowhere/train.csv cannot be read", TABLES),
        (["predict.py", "rum=x"], "unknown key 'rum'; did you mean 'run'?", ALL),
        (["predict.py", "run=/nowhere"], "no finished fold; train one first: python train.py fold=0", TABLES),
    ],
)
def test_a_mistake_is_one_line_without_heavy_imports_and_leaves_nothing(
    repository, tmp_path, arguments, words, unwanted
):
    status, said, packages = answer(repository, *arguments, f"output_dir={tmp_path / 'out'}")
    assert (status, words in said) == (2, True), said
    assert len(said.splitlines()) == 1, said
    assert list(tmp_path.iterdir()) == []
    assert "hydra" in packages  # the list is one
    assert not packages & unwanted


@pytest.mark.parametrize("entry", ["train.py", "predict.py"])
def test_help_needs_hydra_alone(repository, entry):
    status, said, packages = answer(repository, entry, "--help")
    assert (status, f"python {entry}" in said) == (0, True), said
    assert not packages & ALL


@pytest.mark.parametrize(
    ("fault", "words", "unwanted"),
    [
        ("column", "lacks the columns response_a (nearest: respnse_a)", TABLES),
        ("twice", "again, first in train.csv:", TABLES),
        ("label", "expected 0 or 1 with exactly one 1", HEAVY),
    ],
)
def test_a_bad_csv_is_answered_without_heavy_imports(repository, tmp_path, fault, words, unwanted):
    folder = write_faulty(tmp_path / "input", *FAULTS[fault])
    status, said, packages = answer(repository, "train.py", f"input_dir={folder}", f"output_dir={tmp_path / 'out'}")
    assert (status, words in said) == (2, True), said
    assert not packages & unwanted
    assert not (tmp_path / "out").exists()


def test_a_bad_test_csv_is_answered_without_heavy_imports(repository, tmp_path):
    fold = RunFolder(tmp_path / "run").fold(0)
    fold.path.mkdir(parents=True)
    fold.config_path.write_text(to_yaml(composed() | {"name": "run"}), encoding="utf-8")
    fold.save_metrics({"log_loss": 1.0, "num_examples": 8})
    places = (f"input_dir={write_faulty(tmp_path / 'input', *FAULTS['test'])}", f"submissions_dir={tmp_path / 'out'}")
    status, said, packages = answer(repository, "predict.py", f"run={tmp_path / 'run'}", *places)
    assert (status, "test.csv lacks the columns response_a" in said) == (2, True), said
    assert not packages & TABLES


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("nexttoken data", TABLES),
        ("nexttoken convert", TABLES),
        ("nexttoken kaggle", TABLES),
        ("nexttoken plan", ALL),
        ("nexttoken labels", ALL),
        ("nexttoken curate", TABLES),
        ("nexttoken report", TABLES),
        ("nexttoken compare", TABLES),
        ("benchmarks.startup", TABLES),
    ],
)
def test_help_of_the_small_commands_imports_little(repository, command, unwanted):
    status, said, packages = answer(repository, "-m", *command.split(), "--help")
    assert (status, command in said) == (0, True), said
    assert not packages & unwanted


def test_a_command_that_says_something_else_is_not_timed(tmp_path):
    assert Command("a greeting", ("-c", "print('hello')"), "hello", 0).run(tmp_path).seconds > 0
    for says, status in (("bye", 0), ("hello", 2)):
        with pytest.raises(UserError, match="a greeting: expected"):
            Command("a greeting", ("-c", "print('hello')"), says, status).run(tmp_path)


def test_a_record_is_our_share_of_the_time_of_the_import():
    ours, peers = [(1.0, 0.9), (2.0, 1.0), (1.5, 0.8)], [(10.0, 9.0), (10.0, 9.0), (5.0, 4.5)]
    pairs = zip(ours, peers, strict=True)
    runs = [
        (Process(time, 50.0, cpu), Process(peer_time, 500.0, peer_cpu)) for (time, cpu), (peer_time, peer_cpu) in pairs
    ]
    made = record(Command("help", (), "", 0), runs)
    assert (made.ratio, made.ratio_min, made.ratio_max) == (0.15, 0.1, 0.3)
    assert (made.memory_ratio, made.seconds, made.peer_seconds) == (0.1, 1.5, 10.0)
    assert made.facts == {"cpu_ratio": 0.1, "cpu_seconds": 0.9, "peer_cpu_seconds": 9.0}
    assert made.precision is None
    assert made.reached
