"""A probe: class probabilities by a logistic regression on a frozen model's hidden states."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from nexttoken.data.files import RETRAIN
from nexttoken.data.whole_files import whole_file
from nexttoken.engine.forward.last_layer import decoder_layers
from nexttoken.engine.heads import Head
from nexttoken.engine.hidden_states import StateReader
from nexttoken.errors import UserError
from nexttoken.prompts.encode_spans import PairSpans, PairTexts, PromptSpans
from nexttoken.prompts.prompt import Prompt
from nexttoken.tasks.baselines.regression import Regression, Scaler
from nexttoken.transforms.counts import pair_features
from nexttoken.types import Example, Swap

FILE = "probe.safetensors"
ARRAYS = ("mean", "components", "scaler_means", "scaler_scales", "weights", "intercepts")
View = tuple[np.ndarray, np.ndarray]  # features (N, F) of the rows in one order, and the class of each column there


class Probe(Head):
    """Reads each text's states once, without training the model; each answer of a pair by itself, behind its context.

    A pair is fitted and answered in both orders, so that swapping its answers swaps the probabilities. `depth` is the
    share of the layers below the states; `strengths` are scikit-learn's C, one of which the dev rows choose.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"states"})

    def __init__(
        self,
        depth: float = 2 / 3,
        components: int = 40,
        strengths: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1),
        counts: bool = True,
        context_tokens: int = 160,
        answer_tokens: int = 384,
    ) -> None:
        if not 0 < depth <= 1:
            raise UserError(
                f"head.depth={depth} is not accepted: expected a share of the layers, above 0 and at most 1"
            )
        sizes = {"components": components, "context_tokens": context_tokens, "answer_tokens": answer_tokens}
        if wrong := [name for name, size in sizes.items() if type(size) is not int or size < 1]:
            raise UserError(f"head.{wrong[0]}={sizes[wrong[0]]} is not accepted: expected a number of at least 1")
        if not strengths or not all(isinstance(one, int | float) and one > 0 for one in strengths):
            raise UserError(f"head.strengths={strengths} is not accepted: expected numbers above 0, such as [0.01]")
        self.depth, self.components, self.strengths, self.counts = depth, components, tuple(strengths), counts
        self.context_tokens, self.answer_tokens = context_tokens, answer_tokens
        self.swap: Swap | None = None
        self.num_classes = 0

    def for_task(self, task: Any) -> "Probe":
        """A copy with the number of the task's classes and, for pairs, what changes places with the answers."""
        fitted = copy.copy(self)
        fitted.num_classes = len(task.classes)
        fitted.swap = Swap.of(task) if "pairs" in getattr(task, "offers", ()) else None
        return fitted

    def label_names(self, prompt: Any) -> tuple[str, ...]:
        return ()

    def encoder(self, tokenizer: Any, prompt: Prompt, max_tokens: int) -> PairSpans | PromptSpans:
        """The encoder of a text for every `states`; pairs have lengths of their own."""
        if self.swap is None:
            return PromptSpans(tokenizer, prompt, max_tokens)
        return PairSpans(tokenizer, prompt, self.swap, self.context_tokens, self.answer_tokens)

    def reader(self, model: nn.Module, batch_tokens: int, made_by: str) -> StateReader:
        """The reader of the mean states, of prompts also of the last token's; `made_by` identifies the weights."""
        layer = max(1, round(self.depth * len(decoder_layers(model))))
        return StateReader(model, batch_tokens, layer, self.swap is None, made_by)

    def numbers(self, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """Counts of pairs that a swap negates (N, S), and that it leaves (N, R); of other examples none."""
        if self.swap is None or not self.counts:
            return np.zeros((len(examples), 0)), np.zeros((len(examples), 0))
        pairs = [PairTexts.of(example, self.swap) for example in examples]
        features = [pair_features(*pair.answers, pair.context) for pair in pairs]
        signed, shared = ([list(getattr(one, name).values()) for one in features] for name in ("signed", "shared"))
        return np.array(signed), np.array(shared)

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        """Shares of the classes (N, K): the votes, or all for the label, or none."""
        shares = np.zeros((len(examples), self.num_classes))
        for row, example in zip(shares, examples, strict=True):
            if example.votes:
                row[: len(example.votes)] = example.votes
            elif example.label is not None:
                row[example.label] = 1.0
        return shares


@dataclass(frozen=True)
class Rows:
    """All that a probe sees of examples: `states` (N, T, D) of their T texts, and `Probe.numbers` of pairs."""

    states: np.ndarray
    signed: np.ndarray
    shared: np.ndarray

    def chosen(self, places: Sequence[int] | slice) -> "Rows":
        return Rows(self.states[places], self.signed[places], self.shared[places])


@dataclass(frozen=True)
class FittedProbe:
    """Principal components (C, D) of centred states, and the regression on them."""

    mean: np.ndarray
    components: np.ndarray
    regression: Regression
    swap: Swap | None = None

    @classmethod
    def fit(cls, head: Probe, rows: Rows, targets: np.ndarray, strength: float) -> "FittedProbe":
        """Fit on rows with targets (N, K); those without a share of any class teach nothing."""
        from sklearn.decomposition import PCA

        known = np.flatnonzero(targets.sum(axis=1))
        if not len(known):
            raise UserError("head=probe got no training row with a label; give rows with labels")
        rows, targets = rows.chosen(known), targets[known]  # type: ignore[arg-type]
        texts = rows.states.reshape(-1, rows.states.shape[-1]).astype(np.float64)
        number = min(head.components, *texts.shape)
        pca = PCA(number, random_state=0).fit(texts)
        views = _views(rows, pca.mean_, pca.components_, head.swap, targets.shape[1])
        tables, labels, weights = [], [], []
        for table, classes in views:
            own = targets[:, classes]
            row, label = np.nonzero(own)
            tables.append(table[row])
            labels.append(label)
            weights.append(own[row, label])
        learnt = (np.concatenate(tables), np.concatenate(labels), targets.shape[1], strength, np.concatenate(weights))
        return cls(pca.mean_, pca.components_, Regression.fit(*learnt), head.swap)

    @property
    def num_weights(self) -> int:
        return self.mean.size + self.components.size + self.regression.model.coef_.size

    def predict(self, rows: Rows, num_options: Sequence[int | None]) -> np.ndarray:
        """Class probabilities (N, K), 0 from a row's number of options on; of pairs the mean over both orders."""
        number = len(self.regression.model.classes_)
        if not len(rows.states):
            return np.zeros((0, number))
        views = _views(rows, self.mean, self.components, self.swap, number)
        probs = np.mean([self.regression.predict(table)[:, classes] for table, classes in views], axis=0)
        limits = np.array([number if limit is None else limit for limit in num_options])
        probs = np.where(np.arange(number) < limits[:, None], probs, 0.0)
        return probs / probs.sum(axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Write probe.safetensors, whole or not at all."""
        scaler, model = self.regression.scaler, self.regression.model
        own = (self.mean, self.components, scaler.means, scaler.scales, model.coef_, model.intercept_)
        arrays = {name: np.ascontiguousarray(one, np.float64) for name, one in zip(ARRAYS, own, strict=True)}
        with whole_file(folder / FILE) as part:
            part.write_bytes(save(arrays))  # `save_file` writes a file of its own first, which a kill would leave

    @classmethod
    def load(cls, folder: Path, head: Probe) -> "FittedProbe":
        """Read the file of `save`. Raises UserError where it is missing, damaged, or of another number of classes."""
        from sklearn.linear_model import LogisticRegression

        path = folder / FILE
        try:
            saved = load_file(path)
            mean, components, means, scales, weights, intercepts = (saved[name] for name in ARRAYS)
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError(f"{path} does not hold a fitted probe ({error}); {RETRAIN}") from None
        if len(weights) != (1 if head.num_classes == 2 else head.num_classes):
            raise UserError(f"{path} is of another number of classes than {head.num_classes}; {RETRAIN}")
        model = LogisticRegression()
        model.classes_, model.coef_, model.intercept_ = np.arange(head.num_classes), weights, intercepts
        return cls(mean, components, Regression(Scaler(means, scales), model), head.swap)


def _views(rows: Rows, mean: np.ndarray, components: np.ndarray, swap: Swap | None, number: int) -> list[View]:
    """The rows' features: of pairs in both orders, which differ in the sign of the first ones."""
    reduced = (rows.states.astype(np.float64) - mean) @ components.T  # (N, T, C)
    if swap is None:
        return [(reduced.reshape(len(reduced), -1), np.arange(number))]
    first, second = reduced[:, 0], reduced[:, 1]
    signed = np.hstack([first - second, rows.signed])
    shared = np.hstack([np.abs(first - second), first + second, rows.shared])
    orders = (np.arange(number), np.array(swap.classes))
    return [(np.hstack([sign * signed, shared]), classes) for sign, classes in zip((1.0, -1.0), orders, strict=True)]
