"""The two trainings of a fold: one on the train rows, whose length the dev rows choose, and one on both for as long."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nexttoken.data.files import read_json, write_json
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.heads import Head
from nexttoken.errors import UserError
from nexttoken.models.load import ModelSpec
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.processes import from_first, is_first, num_ranks, rank
from nexttoken.models.quantized import move_model
from nexttoken.models.sharded import is_sharded, shard
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.training.callbacks import BEST, Curve, read_checkpoint, write_checkpoint
from nexttoken.training.dev_metric import LOG_LOSS, DevMetric
from nexttoken.training.fit import Fitted, fit, rehearse
from nexttoken.training.module import AnswerModule
from nexttoken.training.parallel_gradients import num_learners
from nexttoken.training.steps import Batcher, Course, TrainSteps
from nexttoken.training.time_budget import TimeBudget

LEAST_REFIT = 0.5  # of the steps that the dev rows chose: a second training of fewer would learn less than the first
SHARE = 0.05  # of the training ids, that are learnt in the rehearsal
MIN_STEPS = 8  # of the rehearsal, where the training rows suffice
MAX_SCORED = 256  # rows that a rate is scored on
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the given rate


class Training:
    """Trains `model` in place: `choose`, then `refit` from the same first weights.

    The second takes as many steps as the dev rows chose, and its learning rate decays over these: a step in the middle
    of the first training still had a high one.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: nn.Module,
        head: Head,
        labels: LabelTokens,
        folder: Path,
        dev_metric: DevMetric = LOG_LOSS,
        budget: TimeBudget | None = None,
    ) -> None:
        self.budget = budget
        self.settings, self.model, self.head, self.labels = spec.settings, model, head, labels
        self.precision, self.folder = spec.precision, folder / "checkpoints"
        self.dev_metric, self.curve = dev_metric, Curve(folder / "curve.csv", dev_metric.key)
        self.num_rows = self.num_padding = self.num_places = self.steps_per_epoch = 0
        self.at_once = num_learners(model, self.settings.fit, spec.precision)
        with advice_on_memory(self.settings.batch_tokens):  # on its device: 16 bit are slow on the CPU
            packs = shortcuts(model if self._shards else move_model(model, spec.device)).packs
        if not packs:
            print("rows are padded to the longest of a batch: packed ones would change this model's numbers")
        batch_tokens = self.settings.batch_tokens
        self.batcher = Batcher(head, labels, batch_tokens, rank(), num_ranks(), packs, self.at_once)

    @property
    def _shards(self) -> bool:
        return self.settings.trainer.strategy == "fsdp"

    @property
    def padded_share(self) -> float:
        """The padded share of the training batches."""
        return self.num_padding / max(self.num_places, 1)

    def rehearse(self, train: Sequence[Any], dev: Sequence[Any]) -> dict[str, Any]:
        """Set the learning rate by a rehearsal, which leaves the first weights; return the rate and the losses."""
        first = {name: weight.cpu().clone() for name, weight in self._module(1).state_dict().items()}
        fit_settings = self.settings.fit
        rows = RehearsalRows.of(train, dev, fit_settings.batch_size, self.settings.seed)
        num_steps, scored = len(self._steps(rows.learnt)), self.batcher.batches(rows.scored)

        def loss_at(rate: float) -> float | None:
            self._use_rate(rate, ema=0.0)
            module = self._module(num_steps)
            module.load_state_dict(first)
            options = self._options | {"max_epochs": 1, "logger": []}
            return rehearse(module, self._steps(rows.learnt), scored, options)

        with advice_on_memory(self.settings.batch_tokens):
            found, losses = find_rate(fit_settings.learning_rate, self.folder / "learning_rate.json", loss_at)
        self._module(1).load_state_dict(first)
        self._use_rate(found, fit_settings.ema)
        return {"learning_rate": found, "rehearsed_rates": losses}

    def _use_rate(self, rate: float, ema: float) -> None:
        changed = self.settings.fit.model_copy(update={"learning_rate": rate, "ema": ema})
        self.settings = self.settings.model_copy(update={"fit": changed})

    def choose(self, train: Sequence[Any], dev: Sequence[Any], loggers: list, keep_start: bool) -> dict[str, Any]:
        """Train on `train`, and take the best weights on `dev`, or the last; return the place and the dev scores.

        With `keep_start` the first weights are saved for `refit`.
        """
        steps = self._steps(train)
        self.steps_per_epoch = len(steps)
        module = self._module(len(steps) * self.settings.trainer.max_epochs)
        if keep_start:
            first_weights = module.state_dict()  # in every process: a sharded model is gathered
            if is_first() and not self._start.exists():
                write_checkpoint(first_weights, self._start)
        options = {"max_epochs": self.settings.trainer.max_epochs, "logger": loggers}
        dev_batches = self.batcher.batches(dev) if dev else []
        fitted = self._fit(module, steps, dev_batches, self.folder, options, refits=keep_start)
        measured: dict[str, Any] = {"best_step": fitted.num_steps, "best_epoch": fitted.num_epochs}
        measured |= self.curve.train_losses()
        return measured | (self.dev_metric.measured(fitted.dev_score) if fitted.dev_score else {})

    def refit(self, rows: Sequence[Any], num_steps: int) -> dict[str, Any]:
        """Train on `rows` from the first weights for `num_steps`.

        Where the time suffices for less than half of them, take the weights that the dev rows chose instead.
        """
        module = self._module(num_steps)
        module.load_state_dict(read_checkpoint(self._start))
        self.curve.begin_refit()
        options = {"max_epochs": -1, "max_steps": num_steps, "logger": []}
        fitted = self._fit(module, self._steps(rows), [], self.folder / "refit", options)
        if self.budget and fitted.num_steps < LEAST_REFIT * num_steps and (self.folder / BEST).exists():
            print(f"within: {fitted.num_steps} steps would be too few: the model is that of the train rows alone")
            module.load_state_dict(read_checkpoint(self.folder / BEST))
            return {}
        return {"refit_steps": fitted.num_steps}

    @property
    def _options(self) -> dict[str, Any]:
        return self.settings.trainer.model_dump() | {"precision": self.precision}

    @property
    def _start(self) -> Path:
        return self.folder / "start.ckpt"

    def _steps(self, rows: Sequence[Any]) -> TrainSteps:
        return TrainSteps(rows, self.settings.fit.batch_size, self.settings.seed, self.batcher)

    def _module(self, num_steps: int) -> AnswerModule:
        settings = self.settings
        course = Course(num_steps, settings.seed, self.at_once, self.steps_per_epoch * settings.fit.text_epochs)
        return AnswerModule(self.model, self.head, self.labels, settings.fit, course, self.dev_metric)

    def _fit(
        self,
        module: AnswerModule,
        steps: TrainSteps,
        dev: Sequence[Any],
        folder: Path,
        options: Mapping[str, Any],
        refits: bool = False,
    ) -> Fitted:
        with advice_on_memory(self.settings.batch_tokens):
            if self._shards and not is_sharded(self.model):
                shard(self.model)
            options = self._options | dict(options)
            fitted = fit(module, steps, dev, folder, self.curve, options, self.budget, refits)
        self.num_rows += fitted.num_rows
        self.num_padding += module.num_padding
        self.num_places += module.num_places
        return fitted


@dataclass(frozen=True)
class RehearsalRows:
    """The rows of a rehearsal: those that are learnt, and other ones that are scored."""

    learnt: list[Any]
    scored: list[Any]

    @classmethod
    def of(cls, train: Sequence[Any], dev: Sequence[Any], batch_size: int, seed: int) -> "RehearsalRows":
        """A random 5 % of the training ids, or enough for eight steps; scored on dev rows, else on other ids' rows."""
        ids = np.random.default_rng(seed).permutation(sorted({row.id for row in train})).tolist()
        number = min(max(round(SHARE * len(ids)), MIN_STEPS * batch_size), max(len(ids) // 2, 1))
        learnt, others = set(ids[:number]), set(ids[number : 2 * number])
        scored = dev or [row for row in train if row.id in others]
        return cls([row for row in train if row.id in learnt], list(scored[:MAX_SCORED]))


def find_rate(given: float, path: Path, loss_at: Callable[[float], float | None]) -> tuple[float, dict[str, Any]]:
    """The rate with the lowest `loss_at` among multiples of the `given` one, and the losses by rate as text.

    None is a loss that is not finite. A resumed run reads the losses from `path`. Raises UserError where every rate's
    loss is None.
    """
    rates = [f"{given * factor:.3g}" for factor in FACTORS]
    if is_known := from_first(path.exists):
        losses = from_first(lambda: read_json(path))
    else:
        losses = {rate: loss_at(float(rate)) for rate in rates}
    if is_first() and not is_known:
        write_json(losses, path)
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise UserError(f"no learning rate of {', '.join(rates)} has a finite loss; give a lower fit.learning_rate")
    best = min(finite, key=lambda rate: finite[rate])
    _show(given, best, losses)
    return float(best), losses


def _show(given: float, best: str, losses: Mapping[str, float | None]) -> None:
    print("learning rate  loss in the rehearsal")
    for rate, loss in losses.items():
        print(f"{rate:<13}  {'not finite' if loss is None else f'{loss:.4f}'}{'  <- used' if rate == best else ''}")
    if best in (next(iter(losses)), list(losses)[-1]):
        print(f"the best rate is the last one tried on its side: fit.learning_rate={best} tries others around it")
    print(f"fit.learning_rate={best} instead of {given:g}")
