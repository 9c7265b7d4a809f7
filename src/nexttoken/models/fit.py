"""Runs Lightning's fit over token-budget steps, with checkpoints that survive a kill and a curve that continues."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from nexttoken.errors import UserError
from nexttoken.files import whole_file
from nexttoken.models.batches import TrainSteps
from nexttoken.models.module import LabelModule
from nexttoken.progress import Progress

LOG_STEPS = 10  # between two points of the curve


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
    checkpoints = folder / "checkpoints"
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    shown = [Curve(folder / "curve.csv"), ShowProgress(steps, trainer_options["max_epochs"])]
    trainer = make_trainer(
        trainer_options, loggers, [*_checkpoint_callbacks(checkpoints, module, bool(dev_batches)), *shown]
    )
    resume = last if last.exists() else None
    if resume:
        print(f"resume: {resume}")
    dev_loader = DataLoader(dev_batches, batch_size=None) if dev_batches else None  # type: ignore[arg-type,var-annotated]
    trainer.fit(module, steps, dev_loader, ckpt_path=resume)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if dev_batches and best.exists():
        module.load_state_dict(torch.load(best, weights_only=True, map_location="cpu")["state_dict"])


def silence_lightning() -> None:
    """Keep Lightning's advertisements and notices out of the run's output; its errors still come as exceptions."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        r".*LeafSpec.*",
        r".*does not have many workers.*",
        r".*Checkpoint directory .* exists.*",
        r".*mid-epoch.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def make_trainer(options: Mapping[str, Any], loggers: list, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that is quiet, keeps its files in the run folder and shows our own progress."""
    defaults = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # steps are sharded by the loader itself
        "log_every_n_steps": LOG_STEPS,
    }
    try:
        return Trainer(**{**defaults, **options}, logger=loggers, callbacks=callbacks, plugins=[WholeFileCheckpoints()])
    except TypeError as error:
        raise UserError(f"trainer: {error}; see Lightning's Trainer for the options it knows") from None


def _checkpoint_callbacks(folder: Path, module: LabelModule, has_dev: bool) -> list[Callback]:
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    last = ModelCheckpoint(filename="last", every_n_train_steps=module.settings.checkpoint_steps, **common)
    best = ModelCheckpoint(filename="best", monitor="dev_log_loss", save_weights_only=True, **common)
    return [best, last] if has_dev else [last]


class WholeFileCheckpoints(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, and are read without running any code they might carry."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with whole_file(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return super().load_checkpoint(path, map_location=map_location, weights_only=True)


class Curve(Callback):
    """Keeps the training curve in the checkpoint, so that a resumed run's curve.csv has no gap and no repetition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % LOG_STEPS == 0:
            self._add(trainer, "train_loss", "learning_rate")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._add(trainer, "dev_log_loss")
        self.write()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.write()

    def write(self) -> None:
        columns = ["step", "epoch", "train_loss", "learning_rate", "dev_log_loss"]
        with whole_file(self.path) as part:
            pd.DataFrame(self.rows, columns=columns).to_csv(part, index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def _add(self, trainer: Trainer, *names: str) -> None:
        measured = {name: trainer.callback_metrics[name].item() for name in names}
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **measured})


class ShowProgress(Callback):
    """Rows per second, time left, the training loss, and the dev loss after each epoch."""

    def __init__(self, steps: TrainSteps, num_epochs: int) -> None:
        self.rows_per_step = len(steps.rows) / len(steps)
        self.progress = Progress(len(steps.rows) * num_epochs, "train")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.progress.start_at(round(trainer.global_step * self.rows_per_step))

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        measured = (
            f"{name} {trainer.callback_metrics[name]:.4f}"
            for name in ("train_loss", "dev_log_loss")
            if name in trainer.callback_metrics
        )
        self.progress.advance(sum(len(micro.ids) for micro in batch), ", ".join(measured))

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.progress.close()
