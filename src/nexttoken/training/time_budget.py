"""A training that ends in time to be scored: fewer steps than planned, over which the learning rate still decays."""

import time
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer

from nexttoken.models.processes import from_first
from nexttoken.progress import Deadline
from nexttoken.training.steps import TrainSteps, learning_rate_factor

WARMUP_STEPS, MEASURED_STEPS = 2, 3  # the first steps take longer, those after them make the first forecast
MARGIN_SHARE, MARGIN_SECONDS = 0.03, 3.0  # of the time, and besides, for saving the weights and the scores
TOLERANCE = 0.02  # a forecast that differs by so much changes nothing: times of steps vary


@dataclass(frozen=True)
class TimeBudget:
    """The deadline of a training, and the number of held-out rows that are scored after it."""

    deadline: Deadline
    num_scored: int

    def steps_in_time(self, done: int, step_seconds: float, rows_per_step: float, refits: bool) -> int:
        """The number of steps, those `done` among them, after which the time suffices for what follows.

        A held-out row takes as long as a training row in this: a third of it, or two thirds in two orders. With
        `refits` a second training of as many steps follows.
        """
        scoring = self.num_scored * step_seconds / rows_per_step
        left = self.deadline.left - scoring - MARGIN_SECONDS - MARGIN_SHARE * self.deadline.seconds
        more = max(left, 0.0) / step_seconds
        return int((done + more) / 2) if refits else int(done + more)


class Shortening(Callback):
    """Shortens a training to the steps that its time suffices for, as it is forecast again after every step."""

    def __init__(self, budget: TimeBudget, steps: TrainSteps, num_steps: int, refits: bool) -> None:
        self.budget, self.num_steps, self.planned, self.refits = budget, num_steps, num_steps, refits
        self.rows_per_step = steps.num_rows(len(steps)) / len(steps)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.first = trainer.global_step + WARMUP_STEPS
        if self.num_steps < self.planned:  # resumed
            self._use(module)

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        step, now = trainer.global_step, time.monotonic()
        if step <= self.first:
            self.start = now
            return
        if (done := step - self.first) >= MEASURED_STEPS:
            seconds = (now - self.start) / done
            found = from_first(lambda: self.budget.steps_in_time(step, seconds, self.rows_per_step, self.refits))
            found = min(max(found, step), self.planned)
            if abs(found - self.num_steps) > TOLERANCE * self.num_steps or found == step:
                self.num_steps = found
                self._use(module)
        if step >= self.num_steps < self.planned:
            trainer.should_stop = True  # after the dev rows are scored

    def _use(self, module: Any) -> None:
        """Have the learning rate decay over the steps that are left."""
        schedule = module.lr_schedulers()
        schedule.lr_lambdas = [learning_rate_factor(module.settings, self.num_steps)] * len(schedule.lr_lambdas)

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_steps = state["num_steps"]
