"""Callbacks of training: checkpoints that survive a kill, a curve that continues, progress."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nexttoken.data.files import whole_file
from nexttoken.errors import FULL_DISK, UserError, one_line
from nexttoken.models.processes import is_first
from nexttoken.progress import Progress
from nexttoken.settings import FitSettings
from nexttoken.training.dev_metric import DevScore
from nexttoken.training.steps import TrainSteps

BEST = "best.ckpt"
LOG_STEPS = 10  # between two points of the curve
CURVE_COLUMNS = ["step", "epoch", "train_loss", "learning_rate", "dev_log_loss", "skipped_steps", "refit"]
RETRAIN = "overwrite=true trains this fold again"


class Checkpoints(Callback):
    """`last.ckpt`, the complete state to continue from, and `best.ckpt`, the weights with the best dev score.

    That is the best by the task's metric, and where it is log loss or cannot be computed, the lowest dev log loss.

    The last one is written every `checkpoint_steps` optimizer steps and at the end of each epoch, after the best one,
    whose score it holds. It is never written between an epoch's last step and its validation: Lightning would resume
    after the validation.
    """

    def __init__(self, folder: Path, settings: FitSettings, steps: TrainSteps) -> None:
        self.last, self.best = folder / "last.ckpt", folder / BEST
        self.settings, self.steps = settings, steps
        self.found, self.best_step, self.best_epoch, self.num_worse = DevScore(), 0, 0, 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.steps.next_step = trainer.global_step  # Lightning loses a loader's state between epochs
        self._stop_if_patience_ends(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step % self.settings.checkpoint_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.last)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        self.choose(trainer, module)
        trainer.save_checkpoint(self.last)

    def choose(self, trainer: Trainer, module: Any) -> None:
        """Keep the weights, or their moving average, if the dev rows just scored are better than ever before.

        Asks to stop where they were not for `fit.patience` times in a row.
        """
        if math.isinf(module.dev_score.loss) or trainer.current_epoch < self.settings.text_epochs:
            return
        self.num_worse += 1
        if module.dev_metric.is_better(module.dev_score, self.found):
            self.found, self.best_step, self.num_worse = module.dev_score, trainer.global_step, 0
            self.best_epoch = trainer.current_epoch + 1
            module.swap_average()
            state = module.state_dict()  # in every process: a sharded model is gathered
            if trainer.is_global_zero:
                write_checkpoint(state, self.best)
            module.swap_average()
        self._stop_if_patience_ends(trainer)

    def _stop_if_patience_ends(self, trainer: Trainer) -> None:
        if self.settings.patience and self.num_worse >= self.settings.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        places = {"best_step": self.best_step, "best_epoch": self.best_epoch, "num_worse": self.num_worse}
        return asdict(self.found) | places

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_step, self.best_epoch = state["best_step"], state["best_epoch"]
        self.num_worse = state.get("num_worse", 0)
        loss = state["loss"] if "loss" in state else state["lowest"]  # as an earlier version called it
        self.found = DevScore(loss, state.get("score", math.nan), state.get("threshold"), state.get("softened"))


class DevScores(Callback):
    """Scores the dev rows within an epoch, every `fit.dev_every` of its steps; at its end Lightning does.

    It stands before `Checkpoints`, so that a checkpoint of the same step holds the choice.
    """

    def __init__(self, batches: Sequence[Any], every: float, curve: "Curve", checkpoints: Checkpoints) -> None:
        self.batches, self.curve, self.checkpoints = batches, curve, checkpoints
        number = len(checkpoints.steps) if batches else 0  # of an epoch
        self.places = {round(place * every * number) for place in range(1, math.ceil(1 / every))}

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step % len(self.checkpoints.steps) in self.places - {0}:
            module.score_dev(self.batches)
            self.curve.on_validation_end(trainer, module)
            self.checkpoints.choose(trainer, module)


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint files: written completely or not at all, and read without executing any code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        checkpoint = read_checkpoint(Path(path))
        if not {"state_dict", "loops", "optimizer_states", "callbacks"} <= checkpoint.keys():
            raise UserError(f"{path} is not a checkpoint of this project; {RETRAIN}")
        return checkpoint


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    with whole_file(path) as part:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # raised by torch for a full disk
            raise UserError(f"{path} could not be written ({str(error).splitlines()[0]}); {FULL_DISK}") from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values onto the CPU. Raises UserError for a file that is altered or holds code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with ZipFile(path) as archive:  # torch compares no checksums
            if (damaged := archive.testzip()) is None:
                return state
        reason = f"{damaged} in it was changed after it was written"
    except pickle.UnpicklingError:
        reason = "it holds code, which is refused"
    except Exception as error:  # a broken archive can fail in any way
        reason = one_line(error, 100) or "it ends too early"
    raise UserError(f"{path} cannot be loaded ({reason}); {RETRAIN}")


class Curve(Callback):
    """The training curve (curve.csv), saved with the checkpoints so that a resumed run has no gap and no repetition.

    A point's training loss is the mean over the steps since the point before. Skipped steps, whose gradients overflowed
    float16, are counted from the start. `own` is the column of the task's metric on the dev rows, after each epoch; ""
    where that is log loss. `refit` is 1 for points of the second training, on train and dev rows, whose
    steps count from 0 again.
    """

    def __init__(self, path: Path, own: str = "") -> None:
        self.path, self.own, self.refit = path, own, 0
        self.rows: list[dict[str, float]] = []
        self.losses: list[float] = []

    def train_losses(self) -> dict[str, float]:
        """The mean training loss of the first and of the last fifth of the points; empty for fewer than five."""
        losses = [row["train_loss"] for row in self.rows if "train_loss" in row]
        if not (fifth := len(losses) // 5):
            return {}
        first, last = (sum(some) / fifth for some in (losses[:fifth], losses[-fifth:]))
        return {"first_train_loss": first, "last_train_loss": last}

    def begin_refit(self) -> None:
        self.refit, self.losses = 1, []

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.losses.append(trainer.callback_metrics["train_loss"].item())
        if trainer.global_step % LOG_STEPS == 0:
            measured = {name: trainer.callback_metrics[name].item() for name in ("learning_rate", "skipped_steps")}
            self._add(trainer, train_loss=sum(self.losses) / len(self.losses), **measured)
            self.losses = []

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        if any("dev_log_loss" in row and row["step"] == trainer.global_step for row in self.rows[-1:]):
            return  # scored within the epoch already, which ends here for want of patience
        own = {self.own: module.dev_score.score} if self.own else {}
        self._add(trainer, dev_log_loss=module.dev_score.loss, **own)
        self.save()

    def save(self) -> None:
        """Write curve.csv, at the end also where a killed run had already trained all its steps."""
        if is_first():
            with whole_file(self.path) as part:
                columns = [*CURVE_COLUMNS, *[self.own] * bool(self.own)]
                pd.DataFrame(self.rows, columns=columns).to_csv(part, index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.losses = list(state["rows"]), list(state["losses"])

    def _add(self, trainer: Trainer, **measured: float) -> None:
        place = {"step": trainer.global_step, "epoch": trainer.current_epoch, "refit": self.refit}
        self.rows.append(place | measured)


class ShowProgress(Callback):
    """Rows per second, time left, the training loss, and the dev loss after each epoch."""

    def __init__(self, steps: TrainSteps, num_steps: int, what: str) -> None:
        what = f"{what}, {steps.num_rows(len(steps)):,} rows an epoch"  # fewer than all where rounds take turns
        self.steps, self.progress = steps, Progress(steps.num_rows(num_steps), what)

    @property
    def num_rows(self) -> int:
        """Rows since the start of this process."""
        return self.progress.done - self.progress.first

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.progress.start_at(self.steps.num_rows(trainer.global_step))

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        notes = [f"loss {trainer.callback_metrics['train_loss']:.2f}"]  # of one batch
        if not math.isinf(module.dev_score.loss):
            notes += [f"{name} {value:.4f}" for name, value in module.dev_score.logged.items()]
        self.progress.advance(batch.num_rows, ", ".join(notes))

    def teardown(self, *_: Any, **__: Any) -> None:
        self.progress.close()
