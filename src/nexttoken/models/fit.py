"""Runs Lightning's fit over token-budget steps, with checkpoints that survive a kill and a curve that continues."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from nexttoken.errors import UserError
from nexttoken.models.batches import TrainSteps
from nexttoken.models.callbacks import LOG_STEPS, Checkpoints, Continue, Curve, ShowProgress, WholeFileCheckpoints
from nexttoken.models.module import LabelModule


def fit(
    module: LabelModule,
    steps: TrainSteps,
    dev_batches: Sequence,
    folder: Path,
    trainer_options: Mapping[str, Any],
    loggers: list,
) -> None:
    """Train `module` in place and leave it with the best weights on the dev rows (the last ones without dev rows).

    Continues from `folder/checkpoints/last.ckpt` when that exists.
    """
    silence_lightning()
    checkpoints = Checkpoints(folder / "checkpoints", module.settings.checkpoint_steps)
    curve, progress = Curve(folder / "curve.csv"), ShowProgress(steps, trainer_options["max_epochs"])
    # The checkpoints hold the curve, so they come behind it.
    trainer = make_trainer(trainer_options, loggers, [Continue(steps), curve, progress, checkpoints])
    resume = checkpoints.last if checkpoints.last.exists() else None
    if resume:
        print(f"resume: {resume}")
    dev_loader = DataLoader(dev_batches, batch_size=None) if dev_batches else None  # type: ignore[arg-type,var-annotated]
    trainer.fit(module, steps, dev_loader, ckpt_path=resume)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if dev_batches:
        module.load_state_dict(torch.load(checkpoints.best, weights_only=True, map_location="cpu"))


def silence_lightning() -> None:
    """Keep Lightning's advertisements and notices out of the run's output; its errors still come as exceptions."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def make_trainer(options: Mapping[str, Any], loggers: list, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that is quiet, keeps its files in the run folder and shows our own progress."""
    defaults = {
        "devices": 1,
        "enable_checkpointing": False,  # our own survive a kill
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # steps are sharded by the loader itself
        "log_every_n_steps": LOG_STEPS,
    }
    if options.get("devices", 1) not in (1, "1", [0]):
        raise UserError(f"trainer.devices={options['devices']}: a fold trains on one device; run one fold per device")
    try:
        return Trainer(**{**defaults, **options}, logger=loggers, callbacks=callbacks, plugins=[WholeFileCheckpoints()])
    except TypeError as error:
        raise UserError(f"trainer: {error}; see Lightning's Trainer for the options it knows") from None
