"""A rehearsal of several learning rates: short trainings from the same first weights, compared on other rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.files import read_json, write_json
from nexttoken.errors import UserError
from nexttoken.models.processes import from_first, is_first

SHARE = 0.05  # of the training ids, that are learnt in the rehearsal
MIN_STEPS = 8  # of the rehearsal, where the training rows suffice
MAX_SCORED = 256  # rows that a rate is scored on
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the given rate


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
