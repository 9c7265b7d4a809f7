"""Corrections of label probabilities by what a model prefers whatever it is asked, learnt from a fold's training rows.

A correction is a part of the fold's state, so that a row's probabilities do not depend on the rows asked with it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from nexttoken.errors import UserError, refuse_below_one
from nexttoken.inference.once import Answerer, Inference, Once
from nexttoken.inference.orders import RotationAveraged
from nexttoken.inference.shifts import LEAST, Shift, by_size, fit_shift
from nexttoken.settings import Settings
from nexttoken.transforms.orders import reorder, swap_sides
from nexttoken.types import OPTIONS, Example, LabelPredictions, Swap

Ask = Callable[[Sequence[Example]], LabelPredictions]  # a way of inference with its answerer
MAX_SHOWN = 6  # classes of a printed correction


@dataclass(frozen=True)
class Corrected(Inference):
    """The probabilities of the inference `ask`, shifted by what `learn` finds in at most `num_rows` training rows.

    The rows are drawn by `seed`. Each of them is asked once, or as often as `learn` says, before the held-out rows.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    num_rows: int = 128
    seed: int = 0
    ask: Inference = field(default_factory=Once)
    classes: tuple[str, ...] = ()
    shift: Shift = field(default_factory=Shift)

    def __post_init__(self) -> None:
        refuse_below_one("correction.num_rows", self.num_rows)

    def learn(self, rows: Sequence[Example], train: Sequence[Example], ask: Ask) -> Shift:
        """The shift from a sample `rows` of the training examples `train`."""
        raise NotImplementedError

    def around(self, ask: Inference, settings: Settings) -> Inference:
        """This correction around an inference; inside a gate, which compares corrected answers."""
        if getattr(ask, "is_outermost", False):
            return replace(ask, ask=self.around(ask.ask, settings))  # type: ignore[type-var]
        return replace(self, ask=ask)

    def for_task(self, task: Any) -> Self:
        return replace(self, ask=self.ask.for_task(task), classes=tuple(task.classes))

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        asked = self.ask(examples, answer)
        return replace(asked, probs=self.shift(asked.probs, self.sizes(examples)))

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Self:
        ask = self.ask.fitted(train, dev, answer)
        numbers = random.Random(self.seed).sample(range(len(train)), min(self.num_rows, len(train)))
        rows = [train[number] for number in sorted(numbers)]
        shift = self.learn(rows, train, lambda some: ask(some, answer))
        print(f"correction: {shift.describe(self.classes if len(self.classes) <= MAX_SHOWN else ())}")
        return replace(self, ask=ask, shift=shift)

    def sizes(self, examples: Sequence[Example]) -> np.ndarray:
        """(N,): the number of each example's possible classes."""
        return np.array([example.num_options or len(self.classes) for example in examples], dtype=np.int64)

    @property
    def shows_pool(self) -> bool:  # type: ignore[override]
        return self.ask.shows_pool

    def with_pool(self, examples: Sequence[Example]) -> Self:
        return replace(self, ask=self.ask.with_pool(examples))

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return self.ask.views(examples, train)

    def training_views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return self.ask.training_views(examples, train)

    def state(self) -> dict[str, Any]:
        return {"correction": self.shift.state(), **self.ask.state()}

    def restored(self, state: Mapping[str, Any]) -> Self:
        return replace(self, ask=self.ask.restored(state), shift=Shift.restored(state["correction"]))


@dataclass(frozen=True)
class BatchMean(Corrected):
    """Divide by the mean probabilities of training rows, whose labels are not read.

    Batch calibration (Zhou et al. 2023, arXiv 2309.17249) takes the mean over the rows to answer; that of training rows
    keeps each row's probabilities independent of the others.
    """

    def learn(self, rows: Sequence[Example], train: Sequence[Example], ask: Ask) -> Shift:
        return Shift.against(by_size(ask(rows).probs, self.sizes(rows)))


@dataclass(frozen=True)
class ContentFree(Corrected):
    """Divide by the probabilities of prompts whose fields hold a text without content (Zhao et al. 2021).

    `texts` are these, whose probabilities are averaged. Where a head reads candidates by their own texts, a row's own
    options stay and its question alone has no content, which is asked for each row anew (domain-conditional PMI,
    Holtzman et al. 2021; with length-normalised scores arXiv 2511.14385). `num_rows` has no meaning here.
    """

    texts: tuple[str, ...] = ("N/A", "[MASK]", "")
    reads_options: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.texts or isinstance(self.texts, str):
            raise UserError("correction.texts is empty or one text; expected a list such as [N/A,'']")
        object.__setattr__(self, "texts", tuple(self.texts))

    def around(self, ask: Inference, settings: Settings) -> Inference:
        own = replace(self, reads_options=str(settings.head.get("_target_", "")).endswith(".Candidates"))
        return super(ContentFree, own).around(ask, settings)

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        if not self._by_row(examples):
            return super().__call__(examples, answer)
        asked, number = self.ask(examples, answer), len(examples)
        empty = self.ask([self._emptied(example, text) for text in self.texts for example in examples], answer)
        mean = empty.probs.reshape(-1, *asked.probs.shape).mean(axis=0)
        ratio = asked.probs / np.maximum(mean, LEAST)
        seconds = asked.columns["seconds"] + empty.columns["seconds"].reshape(-1, number).sum(axis=0)
        probs = ratio / ratio.sum(axis=1, keepdims=True)
        return replace(asked, probs=probs, columns={**asked.columns, "seconds": seconds})

    def learn(self, rows: Sequence[Example], train: Sequence[Example], ask: Ask) -> Shift:
        if self._by_row(train):
            return Shift()
        first = dict(zip(self.sizes(train)[::-1].tolist(), train[::-1], strict=True))  # one of each number of options
        empty = [self._emptied(example, text) for example in first.values() for text in self.texts]
        return Shift.against(by_size(ask(empty).probs, self.sizes(empty)))

    def _by_row(self, examples: Sequence[Example]) -> bool:
        return self.reads_options and any(OPTIONS in example.fields for example in examples)

    def _emptied(self, example: Example, text: str) -> Example:
        kept = {OPTIONS} if self.reads_options else set()
        turns = {name: own if name in kept else (text,) * len(own) for name, own in example.fields.items()}
        return replace(example, fields=turns, label=None, votes=())


@dataclass(frozen=True)
class OptionPrior(Corrected):
    """Divide by the model's preference for a place, estimated from the orders of training rows' options or pairs.

    PriDe (Zheng et al. 2024, arXiv 2309.03882): a place's mean log-probability over all rotations of a row, in which
    every option stands there once, says nothing about the options. Of a pair the two answers change places; a class
    without a partner, such as a tie, is left as it is.
    """

    swap: Swap | None = None

    def for_task(self, task: Any) -> Self:
        """Raises UserError where no choices change places, or the inference averages over their places already."""
        offers: frozenset[str] = getattr(task, "offers", frozenset())
        if not offers & {"options", "pairs"}:
            raise UserError(
                "correction=option_prior needs options or pairs that change places, and the task has none; use"
                " correction=batch or correction=fitted"
            )
        if isinstance(self.ask, RotationAveraged) or getattr(self.ask, "swap", None):
            raise UserError("correction=option_prior is for one order, and this inference asks in more; leave it out")
        return replace(super().for_task(task), swap=Swap.of(task) if "pairs" in offers else None)

    def learn(self, rows: Sequence[Example], train: Sequence[Example], ask: Ask) -> Shift:
        asked = ask([order for row in rows for order in self._orders(row)])
        sizes = np.repeat(self.sizes(rows), [len(self._orders(row)) for row in rows])
        means = {n: np.log(np.maximum(probs, LEAST)).mean(axis=0) for n, probs in by_size(asked.probs, sizes).items()}
        return Shift((), {number: self._against(mean) for number, mean in means.items()})

    def _orders(self, example: Example) -> list[Example]:
        if self.swap:
            return [example, swap_sides(example, self.swap)]
        places = range(len(example.fields[OPTIONS]))
        return [reorder(example, [*places[start:], *places[:start]]) for start in places]

    def _against(self, mean: np.ndarray) -> tuple[float, ...]:
        """The offsets against a place's mean log-probability; of a pair's class against the mean with its partner."""
        around = (mean + mean[list(self.swap.classes)]) / 2 if self.swap else mean.mean()
        return tuple((around - mean).tolist())


@dataclass(frozen=True)
class LabelFitted(Corrected):
    """A scale and an offset for each class, fitted on the labels of training rows that the model has not learnt.

    The offsets give the class shares of all training rows: answers that say nothing give the class prior.
    """

    def around(self, ask: Inference, settings: Settings) -> Inference:
        """Raises UserError for a model that is trained: its training rows say nothing about others."""
        if settings.trainer.max_epochs:
            raise UserError(
                "correction=fitted is fitted on training rows, which a trained model knows by heart; use"
                " trainer.max_epochs=0, or correction=none and then python -m nexttoken calibrate run=..."
            )
        return super().around(ask, settings)

    def learn(self, rows: Sequence[Example], train: Sequence[Example], ask: Ask) -> Shift:
        known = [example for example in rows if example.label is not None]
        labels, of_all = (np.array([e.label for e in some if e.label is not None], np.int64) for some in (known, train))
        return fit_shift(ask(known).probs, labels, self.sizes(known), of_all, getattr(self.ask, "swap", None))
