"""Prediction until a deadline: the pass that gains most comes first, and a valid submission is there at every moment.

The prior is written first and replaced as rows are answered. Rows go through the run's whole inference in slices, so
that any way of asking can be stopped. What is left when the time is up keeps a cheaper answer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.inference.once import AnsweredOnce
from nexttoken.progress import Deadline, Progress, TimeIsUp, time_limit
from nexttoken.runs.answer_steps import LoadWay, Step, steps_of
from nexttoken.runs.fold_baseline import FoldBaseline
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.row_answers import RowAnswers
from nexttoken.runs.slices import lengths_of, slices_of
from nexttoken.settings import AUTO
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example

Publish = Callable[["TimedPrediction", bool], None]  # writes the submission of the answers so far; True: the last time

SHARE_OF_WRITING = 0.05  # of the time at most, in which the submission is written again and again
SHARE_FOR_BASELINE = 0.2  # of the time left at most, where the first pass will not reach all rows
MARGIN_SECONDS, MARGIN_SHARE = 1.0, 0.02  # kept before the deadline, beside the time of writing twice


@dataclass
class TimedPrediction:
    """A prediction of `examples` by a finished run, or a blend, that ends at the deadline.

    `done` has the share of the rows that each pass has answered, by its title.
    """

    run: LoadedRun
    examples: Sequence[Example]
    deadline: Deadline
    publish: Publish
    load_way: LoadWay | None = None
    done: dict[str, float] = field(default_factory=dict)
    cheaper: str = "the prior"  # what rows without an answer have

    def __post_init__(self) -> None:
        self.answers = RowAnswers.of(self.run, self.examples)
        self.lengths = lengths_of(self.examples)
        self._asked: dict[tuple[str, int], AnsweredOnce] = {}
        self._inferences: dict[int, dict[int | str, Inference]] = {}  # by the run's id and the fold's number
        self._in_memory: LoadedRun | None = None
        self._made: list[str] = []  # titles of the passes that are complete
        self._steps: list[Step] = []

    def finish(self) -> RowAnswers:
        """Publish the prior, then answer until all passes are made or the time is up, and publish the result.

        It is published, too, where the program is told to stop or a model fails.
        """
        self._write()
        try:
            if self._left() > 0:
                self._make_all()
        except (TimeIsUp, Exception):
            if self._left() > 0:  # else a library has made another error of TimeIsUp
                raise
        finally:
            self.publish(self, True)
        return self.answers

    def _make_all(self) -> None:
        """Raises TimeIsUp where the time is up before all passes are made."""
        with time_limit(self._left()):
            self._steps = steps_of(self.run, self.load_way)
            for step in self._steps:
                if not self._make(step):
                    return

    @property
    def is_whole(self) -> bool:
        """True where every pass that the run itself would make has answered all rows, and no further one any."""
        own = [step.title for step in self._steps if not step.is_extra]
        return bool(own) and own == [title for title in self._made if title in own] and len(self.done) == len(own)

    @property
    def words(self) -> str:
        """The passes with their shares of the rows, and the cheaper answers of the rest."""
        passes = [f"{title} {share:.0%}" for title, share in self.done.items()]
        rest = 1 - self.answers.has_answer.mean()
        return ", ".join([*passes, *([f"{self.cheaper} {rest:.0%}"] if rest else [])])

    def _left(self) -> float:
        """Seconds to answer in, without those for writing the submission once more."""
        margin = MARGIN_SECONDS + MARGIN_SHARE * self.deadline.seconds + 2 * self._write_seconds
        return self.deadline.left - margin

    def _write(self) -> None:
        start = time.monotonic()
        self.publish(self, False)
        self._written = time.monotonic()
        self._write_seconds = self._written - start

    def _make(self, step: Step) -> bool:
        """Make one pass over the rows in slices, whose time is forecast by those before; False: too little was left."""
        rows = None if step.rows is None else step.rows(self.answers)
        slices = slices_of(self.lengths, self._batch_tokens(step), rows)
        total, seconds, asked = self.lengths[np.concatenate(slices)].sum(), 0.0, 0
        self._load(step)  # not part of the throughput
        with Progress(len(self.examples), step.title) as progress:
            for place, rows in enumerate(slices):
                rows = self._fitting(rows, seconds / asked if asked else 0.0)
                if not len(rows):
                    return False
                start = time.monotonic()
                self._ask(step, rows)
                seconds, asked = seconds + time.monotonic() - start, asked + self.lengths[rows].sum()
                self.done[step.title] = self.done.get(step.title, 0.0) + len(rows) / len(self.examples)
                progress.advance(len(rows))
                if not place and not self._made:
                    self._forecast(step, seconds * (total / asked - 1))
                if time.monotonic() - self._written > self._write_seconds / SHARE_OF_WRITING:
                    self._write()
        self._made.append(step.title)
        return True

    def _fitting(self, rows: np.ndarray, seconds_per_character: float) -> np.ndarray:
        """The rows that the time left suffices for, the shortest ones of them; all where that is not known yet."""
        order = rows[np.argsort(self.lengths[rows], kind="stable")]
        fits = np.cumsum(self.lengths[order]) * seconds_per_character < self._left()
        return rows if fits.all() else np.sort(order[fits])

    def _forecast(self, step: Step, seconds: float) -> None:
        """Say what the first pass will reach; where that is not all rows, have the baseline answer first."""
        left = self._left()
        print(f"{step.title}: {seconds:.0f} s more for all rows, {left:.0f} s are left")
        if seconds > left and (found := self._by_baseline(SHARE_FOR_BASELINE * left)) is not None:
            self.answers.fallback, self.cheaper = found, "the baseline"
            print("rows that it does not reach have the baseline's probabilities")

    def _by_baseline(self, seconds: float) -> np.ndarray | None:
        """The probabilities (N, K) of the task's own baseline, fitted on the training file.

        None where that file is not there, it takes longer, or it was no better than the prior.
        """
        task: Any = self.run.parts.task
        saved = self.run.folds[0].metrics()
        if not saved.get("baseline_log_loss", np.inf) < saved.get("prior_log_loss", 0.0):
            return None
        with suppress(TimeIsUp, UserError), time_limit(seconds):
            train = apply_transforms(task.read("train"), self.run.parts.transforms)
            return task.baselines()[0].fit(train).predict(self.examples)
        return None

    def _batch_tokens(self, step: Step) -> int:
        given = self.run.batch_tokens if isinstance(step.run, FoldBaseline) else step.run.batch_tokens
        return 1 if given == AUTO else given

    def _ask(self, step: Step, rows: np.ndarray) -> None:
        examples = [self.examples[row] for row in rows]
        for source, ids, probs in self._answer(step, examples):
            if ids != tuple(example.id for example in examples):
                raise UserError(f"{step.title}: its transforms leave other rows; use within= with runs that keep all")
            self.answers.put(source, rows, probs)

    def _answer(self, step: Step, examples: list[Example]) -> Iterator[tuple]:
        """The answers of each of the step's sources: the source, the ids, and calibrated probabilities (n, K)."""
        run = step.run
        if isinstance(run, FoldBaseline):
            found = run.answer(examples)
            yield step.sources[0], found.ids, found.probs
            return
        own = examples if run is self.run or step.is_extra else apply_transforms(examples, run.parts.transforms)
        inferences = self._inferences.setdefault(id(run), {})
        for source, fold in zip(step.sources, step.folds, strict=True):
            once = self._asking_once(run, fold)
            if fold.number not in inferences:
                inferences[fold.number] = run.inference(fold, self.examples)
            found = inferences[fold.number](own, once)
            yield source, found.ids, run.calibration.scaling(found.probs) if run.calibration else found.probs

    def _asking_once(self, run: LoadedRun, fold: FoldFolder) -> AnsweredOnce:
        """The fold's answerer, which remembers what it was asked before, also in another way."""
        from nexttoken.engine.journal import JournalFolder

        answerer, key = run.answerer(fold), (fold.training, run.parts.settings.max_tokens)
        answerer.journals = JournalFolder(run.changes.folder, fold.training, None)
        before = self._asked.get(key)
        same = next((one for one in self._asked.values() if one.answer is answerer), None)  # nothing was trained
        self._asked[key] = same or AnsweredOnce(answerer, before.known if before else {})
        return self._asked[key]

    def _load(self, step: Step) -> None:
        if isinstance(step.run, LoadedRun):
            self._keep_in_memory(step.run)
            step.run.answerer(step.folds[0])

    def _keep_in_memory(self, run: LoadedRun) -> None:
        """Free the models of another run, but for those that this one shares."""
        before, self._in_memory = self._in_memory, run
        if before is not None and before is not run and not run.share_models(before):
            before.release()
