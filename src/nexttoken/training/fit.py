"""Runs Lightning's fit over token-budget steps, with checkpoints that survive a kill and a curve that continues."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from nexttoken.errors import UserError
from nexttoken.models.collective import wait
from nexttoken.models.processes import num_ranks
from nexttoken.models.sharded import ShardedStrategy
from nexttoken.training.callbacks import (
    LOG_STEPS,
    Checkpoints,
    Continue,
    Curve,
    ShowProgress,
    WholeFileCheckpoints,
    read_checkpoint,
)
from nexttoken.training.module import AnswerModule
from nexttoken.training.steps import TrainSteps


def fit(
    module: AnswerModule,
    steps: TrainSteps,
    dev_batches: Sequence,
    folder: Path,
    trainer_options: Mapping[str, Any],
    loggers: list,
) -> int:
    """Train `module` in place and leave it with the best weights on the dev rows (the last ones without dev rows).

    Returns the number of rows trained on now. Continues from `folder/checkpoints/last.ckpt` when that exists.
    """
    wait()  # nobody looks for a checkpoint that the first process is about to remove
    silence_lightning()
    checkpoints = Checkpoints(folder / "checkpoints", module.settings)
    curve, progress = Curve(folder / "curve.csv"), ShowProgress(steps, trainer_options["max_epochs"])
    # The checkpoints hold the curve, so they come behind it.
    trainer = make_trainer(trainer_options, loggers, [Continue(steps), curve, progress, checkpoints])
    resume = checkpoints.last if checkpoints.last.exists() else None
    if resume:
        print(f"resume: {resume}")
    dev_loader = DataLoader(dev_batches, batch_size=None) if dev_batches else None  # type: ignore[arg-type,var-annotated]
    try:
        trainer.fit(module, steps, dev_loader, ckpt_path=resume)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {one_line(error)}") from None
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    if checkpoints.best.exists():
        module.load_state_dict(read_checkpoint(checkpoints.best))
    module.zero_grad(set_to_none=True)  # gradients would travel with the model
    return progress.num_rows


def silence_lightning() -> None:
    """Keep Lightning's advertisements and notices out of the run's output; its errors still come as exceptions."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def make_trainer(options: Mapping[str, Any], loggers: list, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that is quiet, keeps its files in the run folder and shows our own progress."""
    defaults = {
        "enable_checkpointing": False,  # our own survive a kill
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": LOG_STEPS,
        "inference_mode": options["strategy"] != "fsdp",  # whose layers would stay inference tensors
        "use_distributed_sampler": False,  # it would repeat rows; the batcher shares them out itself
    }
    options = {**options, "devices": num_ranks()}
    if num_ranks() > 1:
        options["strategy"] = ShardedStrategy() if options["strategy"] == "fsdp" else "ddp"
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return Trainer(**{**defaults, **given}, logger=loggers, callbacks=callbacks, plugins=[WholeFileCheckpoints()])
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {one_line(error)}; see Lightning's Trainer for its options") from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
