"""Merging: runs, folds and folders that cannot be merged are refused before a model is loaded."""

from pathlib import Path

import pytest

from support.commands import refusal
from support.finished_runs import damage, write_finished_fold


@pytest.fixture
def run_folder(tmp_path) -> Path:
    run = tmp_path / "a run"
    write_finished_fold(run)
    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "has no adapter; its weights are whole already, in"),
        (["fold=7"], "fold=7 is not finished; finished folds are 0"),
        (["fold=x"], "fold='x' is not accepted"),
        (["rows=0"], "rows='0' is not accepted"),
        (["dtype=int8"], "expected"),
        (["bse=x"], "did you mean 'base'?"),
    ],
)
def test_what_cannot_be_merged_is_one_line_and_writes_nothing(run_folder, tmp_path, capsys, arguments, words):
    out = tmp_path / "models" / "merged"
    line = refusal(capsys, "merge", f"run={run_folder}", f"out={out}", *arguments)
    assert words in line or (words == "expected" and "'float32', 'bfloat16' or 'float16'" in line)
    assert not out.parent.exists()


def test_wrong_folders_are_one_line(run_folder, tmp_path, capsys):
    out = f"out={tmp_path / 'm'}"
    assert "out= is missing; write out=models/<name>" in refusal(capsys, "merge", f"run={run_folder}")
    assert "run= is missing; write run=output/<task>/<name>" in refusal(capsys, "merge", out)
    assert "exists already; choose another out=" in refusal(capsys, "merge", f"run={run_folder}", f"out={tmp_path}")
    for folder in (tmp_path / "nowhere", run_folder / "fold0" / "oof.csv"):
        line = refusal(capsys, "merge", f"run={folder}", out)
        assert line == f"{folder} has no finished fold; train one first: python train.py fold=0"
    line = refusal(capsys, "merge", f"run={run_folder / 'fold0'}", out)
    assert line == f"{run_folder / 'fold0'} is one fold; expected the folder of its run, {run_folder}"


def test_a_run_without_training_has_nothing_to_merge(tmp_path, capsys):
    write_finished_fold(tmp_path / "zero", trainer={"max_epochs": 0})
    line = refusal(capsys, "merge", f"run={tmp_path / 'zero'}", f"out={tmp_path / 'm'}")
    assert "was not trained (trainer.max_epochs=0), so there is nothing to merge" in line


@pytest.mark.parametrize("command", ["merge", "gate"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{a: [", "is not YAML in UTF-8; train this fold again with overwrite=true"),
        (b"\xff\xfe\x00", "is not YAML in UTF-8; train this fold again with overwrite=true"),
        ("- a\n", "does not hold a configuration; train this fold again"),
        (None, "cannot be read (Is a directory); expected the folder of a run"),
        ("seed: 0\n", "has no usable 'input_dir'; train this fold again with overwrite=true, or restore the file"),
    ],
)
def test_a_damaged_config_is_one_line_that_names_it(run_folder, tmp_path, capsys, command, content, words):
    config = run_folder / "fold0" / "config.yaml"
    damage(config, content)
    out = [f"out={tmp_path / 'm'}"] if command == "merge" else []
    line = refusal(capsys, command, f"run={run_folder}", *out)
    assert line.startswith(str(config))
    assert words in line


def test_a_node_that_is_no_mapping_is_named(tmp_path, capsys):
    folder = write_finished_fold(tmp_path / "run", task=3)
    line = refusal(capsys, "merge", f"run={tmp_path / 'run'}", f"out={tmp_path / 'm'}")
    assert line.startswith(f"{folder / 'config.yaml'} has no usable 'task'")
