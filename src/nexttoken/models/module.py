"""The Lightning module: a causal LM that learns to put its next-token probability on the right label."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.labels import LabelTokens
from nexttoken.models.readout import Batch, answer_logits, label_scores
from nexttoken.settings import FitSettings


class LabelModule(LightningModule):
    """One training step is one optimizer step over a list of micro-batches, whose gradients add up to the exact mean.

    The noise of a step (dropout) is seeded by the step's number: a resumed run draws what the uninterrupted one drew.
    """

    def __init__(self, model: nn.Module, labels: LabelTokens, settings: FitSettings, num_steps: int, seed: int) -> None:
        super().__init__()
        self.model, self.labels, self.settings, self.num_steps, self.seed = model, labels, settings, num_steps, seed
        self.automatic_optimization = False

    def training_step(self, step: list[Batch], _: int) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        num_rows = sum(len(batch.ids) for batch in step)
        total = 0.0
        for batch in step:
            loss = self.loss(batch) * (len(batch.ids) / num_rows)
            if not torch.isfinite(loss):
                raise self._not_finite(f"the loss is {loss.item()}", [batch])
            self.manual_backward(loss)
            total += loss.item()
        self._clip(step)
        optimizer.step()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr,call-arg]
        self.log("train_loss", total, batch_size=num_rows)
        self.log("learning_rate", schedule.get_last_lr()[0], batch_size=num_rows)  # type: ignore[union-attr]

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the batch's labels, over the labels' softmax or over the whole vocabulary."""
        if self.current_epoch < self.settings.text_epochs:
            return text_loss(self.model, batch)
        whole = self.settings.loss == "vocabulary"
        scores = label_scores(answer_logits(self.model, batch), self.labels, whole_vocabulary=whole)
        if whole:
            return -scores.gather(1, batch.labels[:, None]).mean()
        return nn.functional.cross_entropy(scores, batch.labels)

    def validation_step(self, batch: Batch, _: int) -> None:
        scores = label_scores(answer_logits(self.model, batch), self.labels)
        loss = nn.functional.cross_entropy(scores, batch.labels)
        if not torch.isfinite(loss):
            raise self._not_finite(f"the dev loss is {loss.item()}", [batch])
        self.log("dev_log_loss", loss, batch_size=len(batch.ids), on_epoch=True)

    def configure_optimizers(self) -> Any:
        trainable = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))
        factor = learning_rate_factor(self.settings, self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}

    def _clip(self, step: list[Batch]) -> None:
        """Clip the gradient's norm; a norm that is not finite stops the run before it reaches the weights.

        Under fp16 the gradients are scaled, so the limit is scaled with them, and the scaler deals with overflow.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler is not None else 1.0
        norm = nn.utils.clip_grad_norm_(self.parameters(), self.settings.max_grad_norm * scale)
        if scaler is None and not torch.isfinite(norm):
            raise self._not_finite(f"the gradient's norm is {norm.item()}", step)

    def _not_finite(self, what: str, step: list[Batch]) -> UserError:
        ids = first_five(dict.fromkeys(row_id for batch in step for row_id in batch.ids))
        advice = "the last checkpoint is kept; try a lower fit.learning_rate with another name=... or overwrite=true"
        return UserError(f"{what} at step {self.global_step}, ids {ids}; {advice}")


def text_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean next-token cross-entropy over all tokens of the rows: the model learns the language before the labels."""
    logits = model(input_ids=batch.token_ids, use_cache=False).logits[:, :-1].float()  # (R, T-1, V)
    targets = batch.token_ids[:, 1:].clone()
    targets[torch.arange(1, batch.token_ids.shape[1], device=targets.device) >= batch.lengths[:, None]] = -100
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def learning_rate_factor(settings: FitSettings, num_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then linear or cosine decay to zero (or none), as a factor of the learning rate."""
    warmup = max(1, round(settings.warmup_fraction * num_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[settings.decay]

    return factor
