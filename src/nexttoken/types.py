"""The nouns every part shares, as frozen values: example, message, predictions, and the task that owns them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["train", "test"]

# Fields that more than one part knows by name.
QUESTION = "question"
OPTIONS = "options"
INSTRUCTION = "instruction"
INPUT = "input"  # what the instruction is about; absent or empty where it says everything itself
DIALOGUE = "dialogue"  # utterances so far, the user's and the assistant's in turn, the user's first and last
PASSAGES = "passages"  # what retrieval found; absent or empty unless it did


@dataclass(frozen=True, slots=True)
class Example:
    """One question to the model.

    `fields` maps a field's name to its turns; a field of a single text has one turn, an absent turn is "".
    `label` indexes the task's classes, `answer` is the wanted text where answers are open; None where it is unknown
    (test rows). `tags` say what it is scored under (genre, file). `demonstrations` are solved questions to be shown
    before it, the most similar last.
    """

    id: str
    fields: Mapping[str, tuple[str, ...]]
    label: int | None = None
    num_options: int | None = None  # this question has only the task's first so many classes; None: all of them
    tags: Mapping[str, str] = field(default_factory=dict)
    demonstrations: tuple["Example", ...] = ()
    round: int = 0  # rounds of an id take turns in training, one an epoch
    answer: str | None = None  # the wanted text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that the model continues."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that may help to answer, as a retriever found it."""

    text: str
    score: float = 0.0  # higher is better; only comparable within one retriever
    source: str = ""  # file and line, or address


class Retriever(Protocol):
    """Finds texts for queries."""

    def search(self, queries: Sequence[str]) -> list[list[Passage]]: ...  # per query, the best first; [] without a hit


@dataclass(frozen=True, slots=True)
class LabelPredictions:
    """Class probabilities: `probs` is (N, K) float64, row i belongs to `ids[i]`, column k to the task's class k.

    `columns` hold what else is known of each row, (N,) each: `seconds` that it took, `searched`, and the like.
    """

    ids: tuple[str, ...]
    probs: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextPredictions:
    """Written answers: `texts[i]` belongs to `ids[i]`.

    `columns` hold what else is known of each row, (N,) each: `num_tokens` written, `finished` (False where the answer
    was stopped at its longest length), `seconds`.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerLosses:
    """What known answers cost a model: `nll` (N,) in nats, summed over an answer's `num_tokens` (N,) tokens.

    Tokens of different tokenizers are not comparable; nats per character (`num_characters`, (N,)) are.
    """

    ids: tuple[str, ...]
    nll: np.ndarray
    num_tokens: np.ndarray
    num_characters: np.ndarray


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of predictions: its direction, and the score of a guess.

    `function` takes class probabilities (N, K) and labels (N,), or outputs and references of N texts. It returns a
    score per example, (N,), whose mean is the metric, or one number for all examples. Only the former can be compared
    between runs with intervals.

    `chance` is the expected score of a guess: a number, or a function of the examples' numbers of options (N,). Tables
    show log loss and every metric with a chance level.
    """

    name: str  # its key in metrics.json
    function: Callable[[Any, Any], np.ndarray | float]
    higher_is_better: bool
    chance: Callable[[np.ndarray], float] | float | None = None
    heading: str = ""  # of a table's column, where the name with spaces does not do

    @property
    def title(self) -> str:
        return self.heading or self.name.replace("_", " ")

    def score(self, probs: np.ndarray, labels: np.ndarray) -> float:
        return float(np.mean(self.function(probs, labels)))

    def chance_level(self, num_options: np.ndarray | Sequence[int]) -> float | None:
        """The score of a guess among each example's options, (N,) numbers; None where it is not known."""
        return self.chance(np.asarray(num_options)) if callable(self.chance) else self.chance


class Baseline(Protocol):
    """A cheap model that a language model has to beat."""

    def fit(self, examples: Sequence[Example]) -> "Baseline": ...

    def predict(self, examples: Sequence[Example]) -> np.ndarray: ...  # (N, K), rows sum to 1


class OpenTask(Protocol):
    """A competition answered in text: its files, and what may not cross a fold."""

    @property
    def name(self) -> str: ...  # output/<name>/

    @property
    def classes(self) -> tuple[str, ...]: ...  # (): the answers are open

    def read(self, split: Split) -> list[Example]: ...

    def group_text(self, example: Example) -> str: ...  # rows with (nearly) the same text share a fold

    @property
    def suffix(self) -> str: ...  # of a submission's file name, such as .jsonl

    def write(self, predictions: TextPredictions, path: Path) -> None: ...


class Task(Protocol):
    """A competition answered by one of its classes: its files, its classes, and what may not cross a fold."""

    @property
    def name(self) -> str: ...  # output/<name>/

    @property
    def classes(self) -> tuple[str, ...]: ...  # the submission's columns; label k is classes[k]

    def read(self, split: Split) -> list[Example]: ...

    def parse(self, frame: "pd.DataFrame") -> list[Example]: ...  # test rows that are already in memory

    def truth(self) -> Mapping[str, tuple[float, ...]]: ...  # known true probabilities by id; usually empty

    def group_text(self, example: Example) -> str: ...  # rows with (nearly) the same text share a fold

    def baseline(self) -> Baseline: ...

    @property
    def metrics(self) -> Sequence[Metric]: ...  # what predictions are scored by, log loss among them

    @property
    def has_published_scores(self) -> bool: ...  # whether nexttoken.report.published is about this competition

    @property
    def suffix(self) -> str: ...  # of a submission's file name, such as .csv

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]: ...  # result.json; [] for none

    def write(self, predictions: LabelPredictions, path: Path) -> None: ...
