"""The two entries as a user meets them: help, mistakes and missing files, each answered at once and on one line."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st

from nexttoken.commands.entry import compose, errors_on_one_line
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError
from support.training import train


def command(repository, *arguments: str, cwd=None) -> subprocess.CompletedProcess:
    call = [sys.executable, str(repository / arguments[0]), *arguments[1:]]
    return subprocess.run(call, capture_output=True, text=True, cwd=cwd or repository, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train.py", "fold=99"], "fold=99 does not exist"),
        (["train.py", "model=scrach"], "model=scrach is not one of its choices; did you mean 'scratch'?"),
        (["train.py", "fold=="], "Error parsing override 'fold=='; quote a text like this: 'fold=\"=\"'"),
        (["train.py", "fold=0,1"], "fold=0,1 has several values, and only a sweep (-m) tries them; add -m"),
        (["train.py", "-m", "model=glob(nope*)"], "model=glob(nope*) has no values"),
        (["train.py", "-m", "fold=range(5,0)"], "fold=range(5,0) has no values"),
        (["train.py", "-m", "fold=range(0,1000000000)"], "this grid has more than 10,000 jobs"),
        (["train.py", "-m", "fit.learning_rate=interval(1,2)"], "interval(...) is for a search: add sweep=search"),
        (
            ["train.py", "sweep=search", "fit.batch_size=int(interval(1,inf))"],
            "fit.batch_size=int(interval(1,inf)): infinity is no whole number; give finite ones",
        ),
        (
            ["train.py", "launcher=joblib", "launcher.n_jobs=two"],
            "launcher.n_jobs is not accepted: Value 'two' of type",
        ),
        (["train.py", "launcher=joblib", "launcher.njobs=2"], "did you mean 'launcher.n_jobs'?"),
        (["train.py", "--foo"], "unknown option '--foo'; settings are key=value, --help shows them"),
        (["train.py", "-m", "--cfg", "job"], "--cfg shows the settings of one training, and -m starts several"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(repository, tmp_path, arguments, line):
    done = command(repository, *arguments, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_hydra_is_shown(repository):
    done = command(repository, "train.py", "--hydra-help")
    assert done.returncode == 0, done.stderr
    assert "--multirun" in done.stdout


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


@pytest.mark.slow
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


def test_a_folder_that_cannot_be_written_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended, errors_on_one_line():
        train(Path("/proc/nowhere"), "fold=0", "trainer.max_epochs=0")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "/proc/nowhere" in line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lr=1e-4", "unknown key 'lr'; did you mean 'fit.learning_rate'?"),
        ("fit.lr=1", "unknown key 'fit.lr'; did you mean 'fit.learning_rate'?"),
        ("epochs=3", "did you mean 'trainer.max_epochs'?"),
        ("dropout=0.1", "did you mean 'model.scratch.dropout'?"),
        ("peft=lora", "did you mean 'adapter'?"),
        ("bs=8", "did you mean 'fit.batch_size'?"),
        ("batch_size=8", "did you mean 'fit.batch_size'?"),
        ("rank=8", "did you mean 'adapter.r', with adapter=lora?"),
        ("adapter.r=8", "did you mean 'adapter.r', with adapter=lora?"),
        ("adapter.rr=8", "did you mean 'adapter'?"),
        ("Max-Length=8", "did you mean 'max_tokens'?"),
        ("model=gemma2-9b", "model=gemma2-9b is not one of its choices; did you mean 'gemma2_9b'?"),
        ("quantization=nf5", "quantization=nf5 is not one of its choices; did you mean 'nf4'?"),
        ("task=jigsaw", "task=jigsaw is not one of its choices; did you mean 'jigsaw_rules'?"),
        ("model=zzz", "model=zzz is not one of its choices; nearest: "),
        ("name=a=b(", "quote a text like this: 'name=\"a=b(\"'"),
        ("input_dir=/data/{x", "quote a text like this: 'input_dir=\"/data/{x\"'"),
    ],
)
def test_a_wrong_override_gets_the_nearest_hint(repository, monkeypatch, override, line):
    monkeypatch.chdir(repository)
    with pytest.raises(UserError) as caught:
        compose("train", [override])
    said = str(caught.value)
    assert line in said
    assert len(said) < 200
    for word in ("pkg://", "Lexer", "viable"):
        assert word not in said


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_a_quoted_text_is_read_as_it_is(text):
    assume("$" not in text)
    shown = typed_override("name", text)
    assert OverridesParser.create().parse_override(shown).value() == (text if shown.endswith('"') else ANY)
