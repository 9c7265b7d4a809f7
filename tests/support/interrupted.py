"""Training in a process of its own that is killed at a chosen moment: the other half of training/test_resume.py."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = [
    "fold=0",
    "name=x",
    "limit_rows=20",
    "max_tokens=96",
    "trainer.max_epochs=2",
    "fit.batch_size=5",
    "fit.checkpoint_steps=2",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
    "model.scratch.dropout=0.1",
]


def train(output_dir: str, moment: str, number: int, *overrides: str) -> None:
    """Train the small run with `overrides`; SIGKILL this process at the `number`-th `moment` (never for "none")."""
    import torch
    from hydra import compose, initialize_config_dir

    from nexttoken import pipeline

    torch.set_num_threads(1)
    die_at(moment, number)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        places = (f"input_dir={REPOSITORY / 'input/sample-preferences'}", f"output_dir={output_dir}")
        cfg = compose("train", [*SMALL, *places, *overrides])
    pipeline.train(cfg)


def die_at(moment: str, number: int) -> None:
    """Wrap the function that a moment is named after, so that its `number`-th call kills the process half-way."""
    from nexttoken.data import whole_files
    from nexttoken.engine.journal import Journal
    from nexttoken.runs import folder as runs
    from nexttoken.training import callbacks
    from nexttoken.training import learner as learn
    from nexttoken.training.module import AnswerModule

    places: dict[str, tuple[object, str]] = {
        "step": (AnswerModule, "_clip"),  # gradients computed, weights not yet moved
        "checkpoint": (callbacks.torch, "save"),  # the part file is open, nothing is in it
        "rename": (whole_files.os, "replace"),  # the part file is whole, its name is not yet
        "model": (learn, "save_trained"),
        "answer": (Journal, "_append"),  # of the held-out rows
        "scores": (runs.FoldFolder, "save_oof"),
    }
    if moment in places:
        owner, name = places[moment]
        setattr(owner, name, killing(getattr(owner, name), number))


def killing(function: Callable, number: int) -> Callable:
    calls = 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return counted


@pytest.fixture(scope="session")
def server():
    """A server process with everything imported: each training starts in a fraction of a second, in a clean process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["nexttoken.pipeline", "nexttoken.training.learner", "transformers.models.llama.modeling_llama"]
    )
    return context


def run(server, output_dir: Path, moment: str = "none", number: int = 0, *overrides: str) -> int:
    process = server.Process(target=train, args=(str(output_dir), moment, number, *overrides))
    process.start()
    process.join()
    return process.exitcode
