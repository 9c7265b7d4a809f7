"""Quizzes: questions of 2 to 200 options in any of the `quiz_formats`, and their submission."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nexttoken.data.near_duplicates import normalise
from nexttoken.data.row_faults import is_whole
from nexttoken.errors import UserError, nearest
from nexttoken.metrics.named import metrics_of
from nexttoken.metrics.rankings import QUIZ_METRICS
from nexttoken.tasks.quiz_formats import named
from nexttoken.tasks.quiz_formats.candidates import choose_options, draw_options
from nexttoken.tasks.quiz_formats.folder import QuizFolder, questions_in_memory
from nexttoken.tasks.quiz_formats.question import MAX_OPTIONS, MIN_OPTIONS, Question
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat
from nexttoken.tasks.submission import check_probs, find_ids, write_submission
from nexttoken.tasks.surrogates import without_surrogates
from nexttoken.types import CONTEXT, Baseline, Example, LabelPredictions, Metric, Split

if TYPE_CHECKING:
    import pandas as pd

TAGS = ("genre", "file")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quiz:
    """The quiz files of `input_dir`: names or patterns, each read to its end.

    Where no file matches `test_files`, the share `test_share` of the questions of `train_files` is the test, drawn by
    question, so that equal questions stay together. `genres` lists those that are known; None takes any.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"labels", "options"})
    needs: ClassVar[frozenset[str]] = frozenset({"shown options"})

    name: str
    input_dir: str | os.PathLike[str]
    format: str = "auto"  # or a name of nexttoken.tasks.quiz_formats
    train_files: Sequence[str] = ("train.jsonl",)
    test_files: Sequence[str] = ("test.jsonl",)
    num_options: int = 5
    genres: Sequence[str] | None = None
    skip_faulty: bool = False
    seed: int = 0
    test_share: float = 0.0
    metric: str = "log_loss"  # an expression of nexttoken.metrics.named, by which runs are ranked

    is_quiz: ClassVar[bool] = True
    has_published_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        genres = self.genres
        is_list = genres is None or (not isinstance(genres, str) and all(isinstance(genre, str) for genre in genres))
        num_options, limits = self.num_options, f"a whole number from {MIN_OPTIONS} to {MAX_OPTIONS}"
        is_share = isinstance(self.test_share, int | float) and 0 <= self.test_share < 1
        expected = {
            "num_options": (is_whole(num_options) and MIN_OPTIONS <= num_options <= MAX_OPTIONS, limits),
            "seed": (is_whole(self.seed), "a whole number"),
            "genres": (is_list, "a list such as [law] of texts, or null"),
            "skip_faulty": (isinstance(self.skip_faulty, bool), "true or false"),
            "test_share": (is_share, "a share of at least 0 and below 1"),
        }
        for name, (is_right, wanted) in expected.items():
            if not is_right:
                raise UserError(f"task.{name}={getattr(self, name)}: expected {wanted}")
        if self.format != "auto":
            named(self.format)
        if (by := metrics_of(self.metric)[0].by) not in ("", *TAGS):
            raise UserError(f"task.metric={self.metric}: questions have no {by}; {nearest(by, TAGS)}")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(self.num_options))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's own first; MAP@3 is always among them."""
        metrics = metrics_of(self.metric)
        return (*metrics, *(metric for metric in QUIZ_METRICS if metric.name not in {m.name for m in metrics}))

    @property
    def suffix(self) -> str:
        """The suffix of the submission's file name: .csv, or .jsonl."""
        return self._format.answer_suffix

    @property
    def _folder(self) -> QuizFolder:
        return QuizFolder(Path(self.input_dir), self.format, self.genres, self.skip_faulty)

    @property
    def _format(self) -> QuizFormat:
        return self._folder.format_of(self._paths("test")[0])

    def read(self, split: Split) -> list[Example]:
        """Return one example per question. Raises UserError naming the first five faulty rows by file and line."""
        return self._examples(self.questions(split))

    def questions(self, split: Split) -> list[Question]:
        """Return the questions as the files have them, with all their candidates."""
        if split == "test" and not self._shares:
            return self._folder.questions(self._paths("test"), "test")
        questions = self._folder.questions(self._paths("train"), "train")
        if not self._shares:
            return questions
        return [question for question in questions if self._is_test(question) == (split == "test")]

    def parse(self, frame: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> list[Example]:
        """Return the examples of rows in memory: a table, or dictionaries, with the columns of the task's format.

        Rows with `question` and `options` are taken in any task. Raises UserError naming rows by their number.
        """
        return self._examples(questions_in_memory(frame, self.format))  # type: ignore[arg-type]

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        return {}

    def group_text(self, example: Example) -> str:
        return example.fields["question"][0]

    def baselines(self) -> tuple[Baseline, ...]:
        from nexttoken.tasks.baselines.options import OptionBaseline

        return (OptionBaseline(self.num_options),)

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write the competition's own submission in the order of the test files; options are named as in the files."""
        (questions, rows), quiz_format = self._test_rows(predictions), self._format
        answers = []
        for question, probs in zip(questions, predictions.probs[rows], strict=True):
            indices = draw_options(question, self.num_options, self.seed)
            best = np.argsort(-probs[: len(indices)], kind="stable")[: quiz_format.num_answers]
            names = quiz_format.option_names(question)
            answers.append((question.id, " ".join(names[indices[place]] for place in best)))
        write_submission(quiz_format.answer_columns, answers, path, quiz_format.answer_suffix)

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        """Return one row per test question for result.json; `answer` and `correct` where the answer is known.

        `prediction` and `answer` index `options`, the options as they were asked; `probs` are theirs.
        """
        (questions, rows), quiz_format = self._test_rows(predictions), self._format
        names = [quiz_format.option_names(question) for question in self._asked(questions)]
        columns = [{key: values[row].item() for key, values in predictions.columns.items()} for row in rows]
        parts = zip(self._examples(questions), names, predictions.probs[rows], columns, strict=True)
        return [_result(*part) for part in parts]

    def _test_rows(self, predictions: LabelPredictions) -> tuple[list[Question], list[int]]:
        """Return the test questions with each one's row of the predictions."""
        check_probs("the predictions", predictions.ids, predictions.probs, self.classes)
        questions = self.questions("test")
        ids = [question.id for question in questions]
        return questions, find_ids("the predictions", predictions.ids, "the test files", ids)

    def _asked(self, questions: Sequence[Question]) -> list[Question]:
        return choose_options(questions, self.num_options, self.seed)

    def _examples(self, questions: Sequence[Question]) -> list[Example]:
        return without_surrogates([_example(question) for question in self._asked(questions)])

    @property
    def _shares(self) -> bool:
        """True where the test is a share of the training files, since it has no files."""
        return self.test_share > 0 and not self._folder.matching(self.test_files)

    def _is_test(self, question: Question) -> bool:
        digest = hashlib.sha256(f"{self.seed}:{normalise(question.text)}".encode(errors="replace")).digest()
        return int.from_bytes(digest[:8]) < self.test_share * 2**64

    def _paths(self, split: Split) -> list[Path]:
        names = self.train_files if split == "train" or self._shares else self.test_files
        return self._folder.paths(names)


def _result(example: Example, names: Sequence[str], probs: np.ndarray, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of result.json; options with the same name in a submission (equal candidates) are right alike."""
    probs = probs[: example.num_options]
    best = int(probs.argmax())
    result: dict[str, Any] = {"id": example.id, "tags": dict(example.tags), "question": example.fields["question"][0]}
    result |= {"options": list(example.fields["options"]), "prediction": best, "probs": probs.tolist(), **columns}
    if example.label is not None:
        result |= {"answer": example.label, "correct": names[best] == names[example.label]}
    return result


def _example(question: Question) -> Example:
    fields = {"question": (question.text,), "options": question.options}
    fields |= {CONTEXT: question.context} if question.context else {}
    tags = dict(zip(TAGS, (question.genre, question.place.file), strict=True))
    return Example(question.id, fields, question.answer, len(question.options), tags)
