"""Values and interfaces that every part shares: example, message, passage, predictions, metric, baseline and task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from nexttoken.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["train", "test"]

# Names of an example's fields
QUESTION = "question"
OPTIONS = "options"
INSTRUCTION = "instruction"
INPUT = "input"  # material for the instruction; absent or empty where it needs none
DIALOGUE = "dialogue"  # utterances so far, the user's and the assistant's in turn, the user's first and last
PASSAGES = "passages"  # retrieved texts; absent or empty where there are none
CONTEXT = "context"  # texts of the row itself to answer from, shown as passages are; absent where there are none


@dataclass(frozen=True, slots=True)
class Example:
    """One question to the model.

    `fields` maps a field's name to its turns; a field of a single text has one turn, an absent turn is "".
    `label` indexes the task's classes, `answer` is the reference text of an open answer; both are None in test files.
    Scores are also reported by `tags` (genre, file). The prompt shows `demonstrations`, solved examples, before this
    one, the most similar last.
    """

    id: str
    fields: Mapping[str, tuple[str, ...]]
    label: int | None = None
    num_options: int | None = None  # only the task's first `num_options` classes are possible; None: all
    tags: Mapping[str, str] = field(default_factory=dict)
    demonstrations: tuple["Example", ...] = ()
    round: int = 0  # examples with the same id take turns in training, one round an epoch
    answer: str | None = None
    votes: tuple[float, ...] = ()  # shares of the classes, which sum to 1, where people disagree; (): all for `label`
    learns: tuple[bool, ...] = ()  # of a dialogue's answers in turn, `answer` the last: False is read only; (): all

    def is_row(self, other: "Example") -> bool:
        """Return whether both come from one row: ids alone say nothing, since every file may count from 0."""
        file = self.tags.get("file", "")
        return bool(file) and (file, self.id) == (other.tags.get("file", ""), other.id)


@dataclass(frozen=True, slots=True)
class Swap:
    """Fields and classes that change places with the two answers of a pair; a task with pairs has one as its `swap`.

    Class k becomes class `classes[k]`, and a field whose name ends in one of `sides` the field that ends in the other.
    """

    classes: tuple[int, ...]
    sides: tuple[str, str] = ("_a", "_b")

    @classmethod
    def of(cls, task: Any) -> "Swap":
        """The swap that a task states. Raises UserError for none, and for one that is not its own inverse."""
        swap, number = getattr(task, "swap", None), len(task.classes)
        if isinstance(swap, Mapping):
            swap = cls.by_names(swap, task.classes)
        if not isinstance(swap, cls):
            raise UserError(
                f"the task {task.name} does not say which fields and classes change places with a pair's answers; give"
                " its class swap = nexttoken.types.Swap(classes=...), or use train_transforms=none and inference=once"
            )
        if len(swap.classes) != number or any(
            k not in range(number) or swap.classes[k] != own for own, k in enumerate(swap.classes)
        ):
            raise UserError(
                f"the task {task.name} has {number} classes and swap.classes={swap.classes}; expected each class's"
                " partner by its number, or its own number, such as (1, 0, 2) for A, B, tie"
            )
        return swap

    @classmethod
    def by_names(cls, pairs: Mapping[Any, Any], classes: Sequence[str]) -> "Swap":
        """The swap of classes named in pairs, such as {"model_a": "model_b"}; the others keep their places."""
        partners = {str(one): str(other) for one, other in pairs.items()}
        partners |= {other: one for one, other in partners.items()}
        if unknown := [name for name in partners if name not in classes]:
            raise UserError(f"task.swap names {unknown[0]!r}, which is no class; {nearest(unknown[0], classes)}")
        return cls(tuple(classes.index(partners.get(name, name)) for name in classes))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that the model continues."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that a retriever returned because it may help to answer."""

    text: str
    score: float = 0.0  # higher is better; only comparable within one retriever
    source: str = ""  # file and line, or URL


class Retriever(Protocol):
    """Finds texts for queries."""

    def search(self, queries: Sequence[str]) -> list[list[Passage]]: ...  # per query, the best first; [] without a hit


@dataclass(frozen=True, slots=True)
class LabelPredictions:
    """Class probabilities: `probs` is (N, K) float64, row i belongs to `ids[i]`, column k to the task's class k.

    `columns` are further values by name, (N,) each, such as `seconds` and `searched`. Of two classes the second one is
    decided for where its probability is above `threshold`.
    """

    ids: tuple[str, ...]
    probs: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class TextPredictions:
    """Generated answers: `texts[i]` belongs to `ids[i]`.

    `columns`, (N,) each: `num_tokens` generated, `finished` (False where `max_new_tokens` cut the answer), `seconds`.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerLosses:
    """A model's loss on reference answers: `nll` (N,) in nats, summed over an answer's `num_tokens` (N,) tokens.

    Tokenizers can be compared by nats per character (`num_characters`, (N,)), not by nats per token.
    """

    ids: tuple[str, ...]
    nll: np.ndarray
    num_tokens: np.ndarray
    num_characters: np.ndarray


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of predictions, with its direction and the score of a guess.

    `function` takes class probabilities (N, K) and labels (N,), or outputs and references of N texts. It returns a
    score per example, (N,), whose mean is the metric, or one number for all examples, NaN where it has no meaning.

    `by` names a tag: the metric is then the mean over the tag's values, each value's rows scored by themselves.
    `chance` is the expected score of a guess: a number, or a function of the examples' numbers of options (N,). Tables
    show log loss, the task's own metric and every metric with a chance level.
    """

    name: str  # its key in metrics.json, and the expression of `metrics.named`: auc_by(rule)
    function: Callable[[Any, Any], np.ndarray | float]
    higher_is_better: bool
    chance: Callable[[np.ndarray], float] | float | None = None
    heading: str = ""  # of a table's column, instead of the name with spaces
    needs: Literal["probabilities", "ranking", "labels"] = "probabilities"
    by: str = ""

    @property
    def title(self) -> str:
        return self.heading or self.name.replace("_", " ")

    def score(self, probs: np.ndarray, labels: np.ndarray, values: Sequence[str] | None = None) -> float:
        """The metric of all rows, `values` (N,) being those of the tag `by`. NaN where it cannot be computed."""
        if not self.by:
            return float(np.mean(self.function(probs, labels)))
        known = [score for score in self.scores_by(probs, labels, values).values() if not np.isnan(score)]
        return float(np.mean(known)) if known else float("nan")

    def scores_by(self, probs: np.ndarray, labels: np.ndarray, values: Sequence[str] | None) -> dict[str, float]:
        """The score of each value of the tag `by`; NaN for one that has none. Raises UserError without `values`."""
        if values is None or len(values) != len(labels):
            raise UserError(f"{self.name} needs {self.by} of every row that is scored; rows.csv has it as a column")
        tags = np.asarray(values, dtype=object).astype(str)
        masks = {str(value): tags == value for value in np.unique(tags)}
        return {name: float(np.mean(self.function(probs[mask], labels[mask]))) for name, mask in masks.items()}

    def is_better(self, score: float, than: float) -> bool:
        """True where `score` is the better one; a score that could not be computed (NaN) is the worst."""
        is_first = bool(np.isnan(than) and not np.isnan(score))
        return is_first or (score > than if self.higher_is_better else score < than)

    def chance_level(self, num_options: np.ndarray | Sequence[int]) -> float | None:
        """The expected score of a guess, given each example's number of options (N,); None where it is not known."""
        return self.chance(np.asarray(num_options)) if callable(self.chance) else self.chance


class Baseline(Protocol):
    """A simple predictor to compare a language model with; tables call it by its `name` where it has one."""

    def fit(self, examples: Sequence[Example]) -> "Baseline": ...

    def predict(self, examples: Sequence[Example]) -> np.ndarray: ...  # (N, K), rows sum to 1


class OpenTask(Protocol):
    """A competition answered in text: its files, and the examples that must share a fold."""

    @property
    def name(self) -> str: ...  # output/<name>/

    @property
    def classes(self) -> tuple[str, ...]: ...  # (): the answers are open

    def read(self, split: Split) -> list[Example]: ...

    def group_text(self, example: Example) -> str: ...  # examples with (nearly) the same text share a fold

    @property
    def suffix(self) -> str: ...  # of a submission's file name, such as .jsonl

    def write(self, predictions: Any, path: Path) -> None: ...  # TextPredictions, of a `Task` LabelPredictions


class Task(OpenTask, Protocol):
    """A competition answered by one of its classes: label k is `classes[k]`, a column of the submission."""

    def parse(self, frame: "pd.DataFrame") -> list[Example]: ...  # test rows that are already in memory

    def truth(self) -> Mapping[str, tuple[float, ...]]: ...  # known true probabilities by id; usually empty

    def baselines(self) -> Sequence[Baseline]: ...  # at least one; the first is the one to beat

    @property
    def metrics(self) -> Sequence[Metric]: ...  # to score predictions by: its own first, and log loss among them

    @property
    def has_published_scores(self) -> bool: ...  # whether nexttoken.report.published is about this competition

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]: ...  # result.json; [] for none
