"""The Lightning module: a causal LM that learns to put its next-token probability on the right answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from nexttoken.engine.forward.output_head import token_losses
from nexttoken.engine.forward.packed_attention import ROOT
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.heads import Head
from nexttoken.engine.label_scores import UNKNOWN, Batch
from nexttoken.errors import UserError, first_five
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.processes import num_ranks, rank
from nexttoken.models.sharded import put, whole
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import FitSettings
from nexttoken.training.neftune import noisy_embeddings
from nexttoken.training.optimizers import learning_rate_factor, make_optimizer
from nexttoken.training.parallel_gradients import Learners
from nexttoken.training.steps import Step


class AnswerModule(LightningModule):
    """One training step is one optimizer step over a list of micro-batches, whose gradients add up to the exact mean.

    The noise of a step (dropout) is seeded by the step's number: a resumed run draws what the uninterrupted one drew.
    `at_once` micro-batches are learnt from side by side. Its state is what is trained: with an adapter, a checkpoint
    holds the adapter and never the base.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        labels: LabelTokens,
        settings: FitSettings,
        num_steps: int,
        seed: int,
        at_once: int = 1,
    ) -> None:
        super().__init__()
        self.model, self.head, self.labels = model, head, labels
        self.settings, self.num_steps, self.seed = settings, num_steps, seed
        self.automatic_optimization = False
        self.halves_batches = False  # once memory was too short for a batch
        self.dev_total = torch.zeros(2)  # summed loss and targets of the dev part so far
        self.num_padding = self.num_places = 0  # of the training batches so far
        self.at_once, self.learners = at_once, None  # type: tuple[int, Learners | None]

    def on_train_start(self) -> None:
        self.learners = Learners(self.model, self.at_once) if self.at_once > 1 else None

    def on_train_end(self) -> None:
        self.learners = None

    def training_step(self, step: Step, _: int) -> None:
        total = self._accumulate(step)
        if total is None:
            go_on_in_halves()
            total = self._accumulate(step)
        self._clip(step)
        self.optimizers().step()  # type: ignore[union-attr]
        schedule = self.lr_schedulers()
        schedule.step()  # type: ignore[union-attr,call-arg]
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        self.log("train_loss", total, batch_size=step.num_rows)
        self.log("learning_rate", schedule.get_last_lr()[0], batch_size=step.num_rows)  # type: ignore[union-attr]

    def _accumulate(self, step: Step) -> Tensor | None:
        """Add up the step's gradients; return this process's part of the mean loss.

        None when memory was too short: from then on batches go through in halves, and the step starts again.
        """
        seed = self.seed * 1_000_003 + self.global_step + rank() * 500_009
        torch.manual_seed(seed)
        self.optimizers().zero_grad()  # type: ignore[union-attr]
        batches = [half for batch in step.batches for half in batch.halves] if self.halves_batches else step.batches
        total = torch.zeros((), device=self.device)
        self.num_padding += sum(batch.layout.num_padding for batch in batches)
        self.num_places += sum(batch.layout.token_ids.numel() for batch in batches)
        try:
            for loss in self._losses(batches, step, seed):
                total += loss
        except Exception as error:
            if self.halves_batches or self.trainer.world_size > 1 or not is_out_of_memory(error):
                raise
            self.halves_batches = True
            return None
        return total

    def _losses(self, batches: Sequence[Any], step: Step, seed: int) -> Iterator[Tensor]:
        """Each batch's part of the mean loss, its gradients added up; several at once where that is faster."""
        parallel = partial(self._learn, step=step, backward=Tensor.backward)
        if self.learners is not None:
            yield from self.learners.add_up(parallel, batches, seed)
            return
        for batch in batches:
            yield self._learn(self.model, batch, step, self._go_back)

    def _go_back(self, loss: Tensor) -> None:
        self.manual_backward(loss * self.trainer.world_size)  # averaged over processes, we want the sum

    def _learn(self, model: nn.Module, batch: Any, step: Step, backward: Callable[[Tensor], None]) -> Tensor:
        with self._computing(model, batch):
            with noisy_embeddings(model, batch.layout, self.settings.neftune_alpha):
                loss = self.loss(model, batch) / max(step.num_targets, 1)
            if not torch.isfinite(loss):
                raise self._not_finite(f"the loss is {loss.item()}", [batch])
            backward(loss)
        return loss.detach()

    @contextmanager
    def _computing(self, model: nn.Module, batch: Any) -> Iterator[None]:
        """What a batch computes of the model; it lasts until the gradients are there, for layers may run again."""
        learns_text = self.current_epoch < self.settings.text_epochs
        with nullcontext() if learns_text else skipping(model, batch.reads), batch.layout.attending(model):
            yield

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["halves_batches"] = self.halves_batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Several processes have to make equally many batches, and a batch of one row has no halves.
        self.halves_batches = checkpoint["halves_batches"] and num_ranks() == 1

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Cross-entropy summed over the batch's targets; before that, epochs of the texts' own tokens."""
        if self.current_epoch < self.settings.text_epochs:
            return text_loss(model, batch)
        return self.head.loss(model, batch, self.labels)

    def on_validation_epoch_start(self) -> None:
        self.dev_total = torch.zeros(2, device=self.device)

    def validation_step(self, batch: Any, _: int) -> None:
        loss, num_targets = self.head.dev_loss(self.model, batch, self.labels)
        if not torch.isfinite(loss):
            raise self._not_finite(f"the dev loss is {loss.item()}", [batch])
        self.dev_total += torch.stack([loss.detach(), num_targets])

    def on_validation_epoch_end(self) -> None:
        loss, num_targets = self.trainer.strategy.reduce(self.dev_total, reduce_op="sum")
        self.log("dev_log_loss", loss / num_targets)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.settings, [p for p in self.parameters() if p.requires_grad])
        factor = learning_rate_factor(self.settings, self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """What is trained, whole: with a sharded model every process has to ask, and gets it."""
        trained = ((name, p) for name, p in self.named_parameters() if p.requires_grad)
        return {name: whole(parameter.detach()) for name, parameter in trained}

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> None:  # type: ignore[override]
        """Put trained weights back, each of them. Raises UserError for any that is missing or foreign."""
        own = self.state_dict()
        wrong = [name for name in {*own, *state} if name not in own or name not in state]
        wrong += [name for name in own if name in state and own[name].shape != state[name].shape]
        if wrong:
            raise UserError(
                f"the checkpoint does not fit this model ({first_five(sorted(wrong))}); overwrite=true trains this fold"
                " again"
            )
        for name, parameter in self.named_parameters():
            if name in own:
                put(parameter, state[name])

    def _clip(self, step: Step) -> None:
        """Clip the gradient's norm; a norm that is not finite stops the run before it reaches the weights.

        Under fp16 the gradients are scaled, so the limit is scaled with them, and the scaler deals with overflow.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler is not None else 1.0
        norm = whole(nn.utils.clip_grad_norm_(self.parameters(), self.settings.max_grad_norm * scale))
        if scaler is None and not torch.isfinite(norm):
            raise self._not_finite(f"the gradient's norm is {norm.item()}", step.batches)

    def _not_finite(self, what: str, batches: list[Any]) -> UserError:
        ids = first_five(dict.fromkeys(row_id for batch in batches for row_id in batch.ids))
        advice = "the last checkpoint is kept; try a lower fit.learning_rate with another name=... or overwrite=true"
        return UserError(f"{what} at step {self.global_step}, ids {ids}; {advice}")


def text_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Each row's mean next-token cross-entropy, summed over the rows that count: the language before the labels."""
    layout = batch.layout
    texts = [piece for piece, parent in enumerate(layout.parents) if parent == ROOT]  # not the labels behind them
    spans = [torch.arange(layout.lengths[piece] - 1) + layout.starts[piece] for piece in texts]
    device = layout.token_ids.device
    reads = torch.cat(spans).to(device)
    losses = token_losses(model, layout, reads, layout.token_ids.flatten()[reads + 1]).split(list(map(len, spans)))
    total = losses[0].new_zeros(())
    for row, own in enumerate(np.array_split(np.arange(len(texts)), len(batch.ids))):
        means = [losses[number].sum() / max(len(losses[number]), 1) for number in own]
        total = total + torch.stack(means).mean() * (batch.labels[row] != UNKNOWN)
    return total
