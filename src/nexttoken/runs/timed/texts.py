"""Open answers until a deadline: a valid submission is there from the start, and rows get their texts as they come."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.progress import Deadline, TimeIsUp, time_limit
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.timed.prediction import SHARE_OF_WRITING, seconds_before
from nexttoken.types import Example, TextPredictions

NUM_LEARNT = 1000  # training rows among which the most common answer is looked for


@dataclass
class TimedTexts:
    """Texts for `examples` by one fold of a run; a row without an answer has the most common training answer.

    `publish` writes the submission of the texts so far, the last time with True.
    """

    run: LoadedRun
    examples: list[Example]
    deadline: Deadline
    publish: "Callable[[TimedTexts, bool], None]"
    written: dict[str, Any] = field(default_factory=dict)  # `GeneratedText` by id

    def __post_init__(self) -> None:
        self.fallback = common_answer(self.run.parts.task)
        self._write_seconds = 0.0

    @property
    def is_whole(self) -> bool:
        return all(example.id in self.written for example in self.examples)

    @property
    def words(self) -> str:
        """The share of the rows that the model has not answered, in words; "" where it has answered all."""
        missing = np.mean([example.id not in self.written for example in self.examples])
        return f"the most common answer {missing:.0%}" if missing else ""

    @property
    def predictions(self) -> TextPredictions:
        """A text for each example, with the columns of `generate`."""
        known = [self.written.get(example.id) for example in self.examples]
        columns = {
            "num_tokens": np.array([one.num_tokens if one else 0 for one in known], dtype=np.int64),
            "finished": np.array([one.finished if one else True for one in known], dtype=bool),
            "seconds": np.array([one.seconds if one else 0.0 for one in known], dtype=np.float64),
        }
        texts = tuple(one.output if one else self.fallback for one in known)
        return TextPredictions(tuple(example.id for example in self.examples), texts, columns)

    def finish(self) -> None:
        """Publish the fallback, then write until all rows have a text or the time is up, and publish the result."""
        self._write()
        fold = self.run.fold(self.run.changes.fold)
        print(f"written by {fold.path}; texts cannot be averaged over folds, fold=... chooses another", flush=True)
        hidden = [replace(example, answer=None) for example in self.examples]
        try:
            with suppress(TimeIsUp), time_limit(self._left()):
                self.run.generate(fold, hidden, self._take)
        except Exception:
            if self._left() > 0:  # else a library has made another error of TimeIsUp
                raise
        finally:
            self.publish(self, True)

    def _left(self) -> float:
        return seconds_before(self.deadline, self._write_seconds)

    def _take(self, answer: Any) -> None:
        self.written[answer.id] = answer
        if time.monotonic() - self._written_at > self._write_seconds / SHARE_OF_WRITING:
            self._write()

    def _write(self) -> None:
        start = time.monotonic()
        self.publish(self, False)
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - start


def common_answer(task: Any) -> str:
    """The most common answer of the first training rows, of several the shortest; "" without a training file."""
    with suppress(UserError):
        rows = islice(task.stream("train") if hasattr(task, "stream") else task.read("train"), NUM_LEARNT)
        counts = Counter(example.answer for example in rows if example.answer)
        return min(counts, key=lambda text: (-counts[text], len(text), text), default="")
    return ""
