"""A run that was killed at any moment and started again ends with the weights, scores and curve of one never killed."""

import signal
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from support.interrupted import run

pytestmark = pytest.mark.slow

FILES = ("model/model.safetensors", "oof.csv", "curve.csv", "labels.json", "config.yaml")
MOMENTS = [
    *(("step", number) for number in range(1, 9)),
    *(("checkpoint", number) for number in (1, 2, 4)),
    *(("rename", number) for number in range(1, 12, 2)),
    ("model", 1),
    ("answer", 3),
    ("scores", 1),
]


def contents(output_dir: Path, files: tuple[str, ...] = FILES) -> dict[str, bytes]:
    fold = output_dir / "lmsys" / "x" / "fold0"
    return {name: (fold / name).read_bytes().replace(bytes(output_dir), b"") for name in files}


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(server, folder) == 0
    return contents(folder)


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_killed_run_continues_exactly(server, uninterrupted, tmp_path, moment, number):
    assert run(server, tmp_path, moment, number) == -signal.SIGKILL
    fold = tmp_path / "lmsys" / "x" / "fold0"
    assert not (fold / "metrics.json").exists()
    assert run(server, tmp_path) == 0
    assert contents(tmp_path) == uninterrupted
    left = [path for path in fold.parent.rglob("*") if path.name.startswith(".") or path.name == "answered"]
    assert not left


# Of rank 128, since bitsandbytes keeps the states of matrices below 4,096 numbers in 32 bit.
QLORA = ("adapter=lora", "quantization=nf4", "adapter.r=128", "fit.neftune_alpha=5", "max_tokens=160")
ADAPTER_FILES = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", *FILES[1:])


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_a_killed_qlora_run_continues_exactly(server, base_dir, tmp_path, optimizer):
    """LoRA dropout, embedding noise and 8-bit states included; the base is quantised again at every start."""
    overrides = (*QLORA, f"model.name_or_path={base_dir}", f"fit.optimizer={optimizer}")
    assert run(server, tmp_path / "whole", "none", 0, *overrides) == 0
    whole = contents(tmp_path / "whole", ADAPTER_FILES)
    for moment, number in (("step", 4), ("rename", 5), ("model", 1)):
        killed = tmp_path / moment
        assert run(server, killed, moment, number, *overrides) == -signal.SIGKILL
        assert run(server, killed, "none", 0, *overrides) == 0
        assert contents(killed, ADAPTER_FILES) == whole
    assert (torch.uint8 in state_dtypes(tmp_path / "whole")) == (optimizer == "adamw_8bit")


def state_dtypes(output_dir: Path) -> set[torch.dtype]:
    """The dtypes of the optimizer's states in the last checkpoint."""
    path = output_dir / "lmsys" / "x" / "fold0" / "checkpoints" / "last.ckpt"
    (optimizer,) = torch.load(path, weights_only=True)["optimizer_states"]
    return {value.dtype for value in tree_leaves(optimizer["state"]) if torch.is_tensor(value)}


def test_run_killed_twice(server, uninterrupted, tmp_path):
    for moment, number in (("step", 5), ("step", 2)):
        assert run(server, tmp_path, moment, number) == -signal.SIGKILL
    assert run(server, tmp_path) == 0
    assert contents(tmp_path) == uninterrupted


def test_finished_fold_is_not_trained_again(server, tmp_path):
    assert run(server, tmp_path) == 0
    weights = tmp_path / "lmsys" / "x" / "fold0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run(server, tmp_path, "step", 1) == 0, "a step was taken although the fold is finished"
    assert weights.stat().st_mtime_ns == before


CHOICES = (
    "fit.ema=0.9",
    "fit.dev_every=0.4",
    "fit.patience=3",
    "fit.choose_after_temperature=true",
    "fit.batch_size=2",
)


def test_a_killed_run_goes_on_with_its_average_and_its_choice(server, tmp_path):
    """Dev rows are scored within epochs, so that checkpoints of the same step are written after the choice."""
    assert run(server, tmp_path / "whole", "none", 0, *CHOICES) == 0
    whole = contents(tmp_path / "whole")
    for moment, number in (("step", 7), ("checkpoint", 2), ("rename", 8)):
        killed = tmp_path / f"{moment}{number}"
        assert run(server, killed, moment, number, *CHOICES) == -signal.SIGKILL
        assert run(server, killed, "none", 0, *CHOICES) == 0
        assert contents(killed) == whole
