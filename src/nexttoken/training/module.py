"""The Lightning module: a causal LM that learns to predict the right answer as the next tokens."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.heads import Head
from nexttoken.engine.text_losses import text_loss
from nexttoken.errors import UserError, first_five
from nexttoken.models.adapters import find_misfits
from nexttoken.models.allocator import release_freed_memory
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.processes import gather_lists, num_ranks, rank
from nexttoken.models.sharded import gather_tensor, overwrite_parameter
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import FitSettings
from nexttoken.training.averages import WeightAverage
from nexttoken.training.dev_metric import LOG_LOSS, DevMetric, DevScore, DevTotals
from nexttoken.training.neftune import noisy_embeddings
from nexttoken.training.parallel_gradients import Learners
from nexttoken.training.steps import Course, Step, learning_rate_factor, make_optimizer

MAX_SKIPPED = 20  # steps in a row without a change of weights; the scaler halves its scale after each
RELEASE_STEPS = 8  # optimizer steps between two returns of unused memory, which cost a few per cent of a step each


class NotFinite(UserError):
    """A loss or a gradient that is not finite: the learning rate is too high, or the weights are broken."""


class AnswerModule(LightningModule):
    """One training step is one optimizer step over a list of micro-batches, whose gradients add up to the exact mean.

    Dropout is seeded by the step's number, so that a resumed run equals an uninterrupted one. The module's state holds
    only trained weights: an adapter without its base.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        labels: LabelTokens,
        settings: FitSettings,
        course: Course,
        dev_metric: DevMetric = LOG_LOSS,
    ) -> None:
        super().__init__()
        self.model, self.head, self.labels = model, head, labels
        self.settings, self.course = settings, course
        self.automatic_optimization = False
        self.halves_batches = False  # after an out-of-memory error
        self.dev_metric, self.dev_score = dev_metric, DevScore()
        self.dev_totals = DevTotals()
        self.num_skipped = self.skipped_in_a_row = 0  # steps whose gradients overflowed float16
        self.num_padding = self.num_places = 0  # of the training batches so far
        self.average: WeightAverage | None = None  # from the start of a training on, where there is one
        self.learners: Learners | None = None

    def on_train_start(self) -> None:
        if self.settings.ema and self.average is None:
            self.average = WeightAverage.of(self, self.settings.ema)
        self.learners = Learners(self.model, self.course.at_once) if self.course.at_once > 1 else None

    def on_train_end(self) -> None:
        self.learners = None

    def training_step(self, step: Step, _: int) -> None:
        total = self._accumulate(step)
        if total is None:
            go_on_in_halves()
            total = self._accumulate(step)
        self._clip(step)
        scale = self._scale
        self.optimizers().step()  # type: ignore[union-attr]
        self._count_skipped(is_skipped := self._scale < scale, step)
        if self.average and not is_skipped:
            self.average.update(self)
        schedule = self.lr_schedulers()
        schedule.step()  # type: ignore[union-attr,call-arg]
        if self.device.type == "cpu" and self.global_step % RELEASE_STEPS == 0:
            release_freed_memory()
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        self.log("train_loss", total, batch_size=step.num_rows)
        self.log("skipped_steps", float(self.num_skipped), batch_size=step.num_rows)
        self.log("learning_rate", schedule.get_last_lr()[0], batch_size=step.num_rows)  # type: ignore[union-attr]

    def _accumulate(self, step: Step) -> Tensor | None:
        """Add up the step's gradients; return this process's part of the mean loss.

        None after an out-of-memory error: the step has to be repeated, and from then on batches are halved.
        """
        seed = self.course.seed * 1_000_003 + self.global_step + rank() * 500_009
        torch.manual_seed(seed)
        self.optimizers().zero_grad()  # type: ignore[union-attr]
        batches = [half for batch in step.batches for half in batch.halves] if self.halves_batches else step.batches
        total = torch.zeros((), device=self.device)
        self.num_padding += sum(batch.layout.num_padding for batch in batches)
        self.num_places += sum(batch.layout.token_ids.numel() for batch in batches)
        try:
            losses: Iterable[Tensor]
            if self.learners is None:
                losses = (self._backpropagate(self.model, batch, step, self._backward) for batch in batches)
            else:
                backpropagate = partial(self._backpropagate, step=step, backward=Tensor.backward)
                losses = self.learners.add_up(backpropagate, batches, seed)
            for loss in losses:
                total += loss
        except Exception as error:
            if self.halves_batches or self.trainer.world_size > 1 or not is_out_of_memory(error):
                raise
            self.halves_batches = True
            return None
        return total

    def _backward(self, loss: Tensor) -> None:
        self.manual_backward(loss * self.trainer.world_size)  # DDP averages over processes, and the sum is needed

    def _backpropagate(self, model: nn.Module, batch: Any, step: Step, backward: Callable[[Tensor], None]) -> Tensor:
        skips = nullcontext() if self._learns_text else skipping(model, batch.reads)
        with skips, batch.layout.attending(model):  # until the gradients are computed, since layers may run again
            with noisy_embeddings(model, batch.layout, self.settings.neftune_alpha):
                loss = self.loss(model, batch) / max(step.num_targets, 1)
            if not torch.isfinite(loss):
                raise self._not_finite(f"the loss is {loss.item()}", [batch])
            backward(loss)
        return loss.detach()

    @property
    def _learns_text(self) -> bool:
        return self.global_step < self.course.num_text_steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["halves_batches"] = self.halves_batches
        checkpoint["skipped_steps"] = (self.num_skipped, self.skipped_in_a_row)
        if self.average:
            checkpoint["average"] = self.average.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Several processes need equal numbers of batches, and a batch of one row has no halves.
        self.halves_batches = checkpoint["halves_batches"] and num_ranks() == 1
        self.num_skipped, self.skipped_in_a_row = checkpoint.get("skipped_steps", (0, 0))
        if "average" in checkpoint:
            self.average = WeightAverage(self.settings.ema, **checkpoint["average"])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Cross-entropy summed over the batch's targets; in the first steps on texts, that of the prompts' tokens."""
        return text_loss(model, batch) if self._learns_text else self.head.loss(model, batch, self.labels)

    def swap_average(self) -> None:
        """Exchange the weights and their moving average, if there is one; twice is the identity."""
        if self.average:
            self.average.swap(self)

    def on_validation_epoch_start(self) -> None:
        self.dev_totals = DevTotals(self.dev_metric.needs_rows)
        self.swap_average()

    def validation_step(self, batch: Any, _: int) -> None:
        loss, num_targets, scores = self.head.dev_loss(self.model, batch, self.labels)
        if not torch.isfinite(loss):
            raise self._not_finite(f"the dev loss is {loss.item()}", [batch])
        self.dev_totals.add(loss.detach(), num_targets, batch, scores)

    def on_validation_epoch_end(self) -> None:
        self.swap_average()
        totals = torch.stack([self.dev_totals.loss, self.dev_totals.num_targets]).to(self.device)
        loss, num_targets = self.trainer.strategy.reduce(totals, reduce_op="sum").tolist()
        rows = gather_lists(self.dev_totals.rows) if self.dev_metric.needs_rows else []
        self.dev_score = self.dev_metric.score(loss / num_targets, rows)
        for logger in self.loggers:
            logger.log_metrics(self.dev_score.logged, self.global_step)

    def score_dev(self, batches: Iterable[Any]) -> None:
        """Set `dev_score` by the dev rows in the middle of an epoch, as Lightning has it set at the end of one."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        with torch.no_grad():
            self.on_validation_epoch_start()
            for batch in batches:
                self.validation_step(batch.to(self.device), 0)
            self.on_validation_epoch_end()
        for module, is_training in modes:
            module.training = is_training

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.settings, [p for p in self.parameters() if p.requires_grad])
        factor = learning_rate_factor(self.settings, self.course.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The trained weights; of a sharded model they are gathered, so that every process must call this."""
        return {name: gather_tensor(p.detach()) for name, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> None:  # type: ignore[override]
        """Restore all trained weights. Raises UserError for a state with other names or shapes."""
        if misfits := find_misfits(self.state_dict(), state):
            wrong = first_five(misfits)
            raise UserError(f"the checkpoint does not fit this model ({wrong}); overwrite=true trains this fold again")
        for name, parameter in self.named_parameters():
            if name in state:
                overwrite_parameter(parameter, state[name])

    def _clip(self, step: Step) -> None:
        """Clip the gradient's norm. Raises UserError for a norm that is not finite, before the weights are changed.

        With fp16 the gradients are scaled: the limit is scaled too, and the scaler handles an overflow.
        """
        norm = gather_tensor(nn.utils.clip_grad_norm_(self.parameters(), self.settings.max_grad_norm * self._scale))
        if self._scaler is None and not torch.isfinite(norm):
            raise self._not_finite(f"the gradient's norm is {norm.item()}", step.batches)

    @property
    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def _scale(self) -> float:
        """The loss is multiplied by this before gradients are computed; lowered after a step that overflowed."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _count_skipped(self, is_skipped: bool, step: Step) -> None:
        """Count steps that float16's scaler skips. Raises UserError where nothing would be learnt."""
        self.num_skipped += is_skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0
        if self.skipped_in_a_row == MAX_SKIPPED:
            ids = first_five(dict.fromkeys(row_id for batch in step.batches for row_id in batch.ids))
            raise UserError(
                f"the gradients overflowed float16 in {MAX_SKIPPED} steps in a row, so that no weight was changed (step"
                f" {self.global_step}, ids {ids}); use trainer.precision=bf16-mixed or 32-true"
            )

    def _not_finite(self, what: str, batches: list[Any]) -> NotFinite:
        ids = first_five(dict.fromkeys(row_id for batch in batches for row_id in batch.ids))
        advice = "the last checkpoint is kept; try a lower fit.learning_rate with another name=... or overwrite=true"
        return NotFinite(f"{what} at step {self.global_step}, ids {ids}; {advice}")
