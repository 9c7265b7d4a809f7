"""The two entries as a user meets them: help, mistakes and missing files, each answered at once and on one line."""

import signal
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


def test_help_shows_the_choices(repository):
    done = command(repository, "train.py", "--help")
    assert done.returncode == 0
    for words in (
        "python train.py fold=0",
        "model: base, ",
        "prompt: conversation, counts, dialogue",
        "debug: fast, overfit",
    ):
        assert words in done.stdout


def test_help_has_the_entry_s_own_choices_and_the_overrides(repository):
    done = command(repository, "predict.py", "-h", "retriever=bm25", "name=mine")
    assert done.returncode == 0
    for words in ("python predict.py", "engine: transformers, vllm", "bm25.BM25", "\nname: mine\n"):
        assert words in done.stdout
    assert "trainer: default" not in done.stdout


def test_a_mistake_beside_help_is_one_line(repository):
    done = command(repository, "train.py", "--help", "modl=base")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unknown key 'modl'; did you mean 'model'?\n"


def test_help_with_a_further_option_is_hydra_s(repository):
    done = command(repository, "predict.py", "--help", "--resolve")
    assert done.returncode == 0
    assert "Powered by Hydra" in done.stdout


def test_control_c_says_how_to_continue(repository, tmp_path):
    arguments = ["fold=0", "name=x", "fit.checkpoint_steps=1", "model.scratch.num_layers=1", f"output_dir={tmp_path}"]
    call = [sys.executable, str(repository / "train.py"), *arguments]
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job ignores
    )
    checkpoint = tmp_path / "lmsys" / "x" / "fold0" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted; the same command continues from the last checkpoint"


def test_a_folder_that_cannot_be_written_is_one_line(repository):
    arguments = ["fold=0", "output_dir=/proc/nowhere", "limit_rows=20", "trainer.max_epochs=0"]
    done = command(repository, "train.py", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "/proc/nowhere" in done.stderr
