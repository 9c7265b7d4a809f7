"""The two entries as a user meets them: help, mistakes and missing files, each answered at once and on one line."""

import subprocess
import sys
import time

import pytest


def command(repository, *arguments: str, cwd=None) -> subprocess.CompletedProcess:
    call = [sys.executable, str(repository / arguments[0]), *arguments[1:]]
    return subprocess.run(call, capture_output=True, text=True, cwd=cwd or repository, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train.py", "trainer.max_epoch=3"], "unknown key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        (["train.py", "fold=99"], "fold=99 does not exist"),
        (["train.py", "model=scrach"], "Could not find 'model/scrach' Available options in 'model':"),
        (["train.py", "input_dir=/nowhere"], "/nowhere/train.csv cannot be read"),
        (["train.py", "fold=="], "Error parsing override 'fold=='"),
        (["predict.py", "run=/nowhere"], "/nowhere has no finished fold; train one first: python train.py fold=0"),
        (["predict.py", "rum=x"], "unknown key 'rum'; did you mean 'run'?"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(repository, tmp_path, arguments, line):
    done = command(repository, *arguments, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_found_before_torch_is_imported(repository):
    """Compared with the import of torch in the same minute on the same machine."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, transformers, lightning.pytorch"], check=True)
    heavy = time.perf_counter() - start
    for arguments in (["train.py", "--help"], ["train.py", "fold=99"], ["train.py", "input_dir=/nowhere"]):
        start = time.perf_counter()
        command(repository, *arguments)
        assert time.perf_counter() - start < heavy / 2, arguments


def test_help_shows_the_choices(repository):
    done = command(repository, "train.py", "--help")
    assert done.returncode == 0
    for words in (
        "python train.py fold=0",
        "model: base, ",
        "prompt: conversation, counts, instruction",
        "debug: fast, overfit",
    ):
        assert words in done.stdout
