"""Lightning's fit over optimizer steps of token-budget batches, which continues after a kill."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.utils.data import DataLoader

from nexttoken.errors import UserError, one_line
from nexttoken.models.places import num_local, num_machines, num_ranks
from nexttoken.models.processes import choose_device, from_first
from nexttoken.training.callbacks import (
    LOG_STEPS,
    CheckpointFiles,
    Checkpoints,
    Curve,
    DevScores,
    ShowProgress,
    read_checkpoint,
)
from nexttoken.training.dev_metric import DevScore
from nexttoken.training.module import AnswerModule, NotFinite
from nexttoken.training.steps import TrainSteps
from nexttoken.training.time_budget import Shortening, TimeBudget


class ShardedStrategy(DDPStrategy):
    """Lightning's DDP without its wrapper: sharded modules exchange weights and gradients themselves."""

    def configure_ddp(self) -> None:
        """Do nothing: gradients are averaged already."""

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, on the CPU, in the first process; all processes must call this."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(self.lightning_module.model, plain, options=options)  # type: ignore

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        options = StateDictOptions(full_state_dict=True)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self.lightning_module.model, optimizer, state, options=options)  # type: ignore


@dataclass(frozen=True)
class Fitted:
    """The end of a training: which step's weights were taken, and by what score on the dev rows."""

    num_rows: int  # trained by this process, without those before a kill
    num_steps: int
    num_epochs: int
    dev_score: DevScore | None  # None without dev rows


def fit(
    module: AnswerModule,
    steps: TrainSteps,
    dev_batches: Sequence,
    folder: Path,
    curve: Curve,
    trainer_options: Mapping[str, Any],
    budget: TimeBudget | None = None,
    refits: bool = False,
) -> Fitted:
    """Train `module` in place and give it the best weights on the dev rows (the last ones without dev rows).

    A `budget` shortens it; `refits` says that a second training of as many steps follows. Continues from
    `folder/last.ckpt` when that exists. `trainer_options` hold `max_epochs` or `max_steps`.
    """
    silence_lightning()
    checkpoints = Checkpoints(folder, module.settings, steps)
    num_steps = trainer_options.get("max_steps") or len(steps) * trainer_options["max_epochs"]
    progress = ShowProgress(steps, num_steps, "refit" if curve.refit else "train")
    dev_scores = DevScores(dev_batches, module.settings.dev_every, curve, checkpoints)
    shortening = [Shortening(budget, steps, num_steps, refits)] if budget else []
    callbacks = [curve, progress, dev_scores, *shortening, checkpoints]  # checkpoints hold the state of the others
    trainer = make_trainer(trainer_options, callbacks)
    resume = checkpoints.last if from_first(checkpoints.last.exists) else None  # which it may just have removed
    if resume:
        print(f"resume: {resume}")
    dev_loader = DataLoader(dev_batches, batch_size=None) if dev_batches else None  # type: ignore[arg-type,var-annotated]
    try:
        trainer.fit(module, steps, dev_loader, ckpt_path=resume)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {one_line(error, 1000)}") from None
    except SystemExit:  # Lightning turns Ctrl-C into this
        raise KeyboardInterrupt from None
    curve.save()
    if shortening and shortening[0].num_steps < num_steps:
        print(f"within: {trainer.global_step:,} of {num_steps:,} steps, so that the time suffices for the rest")
    module.zero_grad(set_to_none=True)  # free the gradients' memory
    if not from_first(checkpoints.best.exists):
        module.swap_average()
        return Fitted(progress.num_rows, trainer.global_step, trainer.current_epoch, None)
    module.load_state_dict(read_checkpoint(checkpoints.best))
    return Fitted(progress.num_rows, checkpoints.best_step, checkpoints.best_epoch, checkpoints.found)


def rehearse(
    module: AnswerModule, steps: TrainSteps, dev_batches: Sequence, trainer_options: Mapping[str, Any]
) -> float | None:
    """Train `module` in place without checkpoints; return the loss on the dev rows, None where one was not finite."""
    silence_lightning()
    trainer = make_trainer(trainer_options, [])
    try:
        trainer.fit(module, steps, DataLoader(dev_batches, batch_size=None))  # type: ignore[arg-type]
    except NotFinite:
        return None
    except SystemExit:  # Lightning turns Ctrl-C into this
        raise KeyboardInterrupt from None
    module.zero_grad(set_to_none=True)
    return module.dev_score.compared_loss


def silence_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # no advertisements; errors are exceptions
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step")  # a skipped first step; the curve counts it


class ScaledGradients(MixedPrecision):
    """Scales the loss, since small gradients are zero in float16, and skips steps whose gradients overflow.

    The model computes in its own context (models/precision.py), which ends before the backward pass.
    """

    def forward_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def make_trainer(options: Mapping[str, Any], callbacks: list[Callback]) -> Trainer:
    """A quiet Lightning trainer with our own checkpoints and progress. Raises UserError for wrong `options`."""
    precision, plugins = options["precision"], list[Any]([CheckpointFiles()])
    if precision == "16-mixed":
        plugins.append(ScaledGradients(precision, choose_device().type))
    options = {
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": LOG_STEPS,
        "inference_mode": options["strategy"] != "fsdp",  # its layers would remain inference tensors
        "use_distributed_sampler": False,  # it would repeat rows; the batcher shares them out
        **{key: value for key, value in options.items() if value is not None},
        "devices": num_local(),
        "num_nodes": num_machines(),
        "precision": None,  # the model's own context (models/precision.py)
    }
    # Lightning would start or count processes by what it finds of SLURM; RANK and the like are set by every launcher.
    plugins.append(TorchElasticEnvironment() if num_ranks() > 1 else LightningEnvironment())
    if num_ranks() > 1:
        options["strategy"] = ShardedStrategy() if options.get("strategy") == "fsdp" else "ddp"
    try:
        return Trainer(**options, callbacks=callbacks, plugins=plugins)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {one_line(error, 1000)}; see Lightning's Trainer for its options") from None
