"""Prediction until a deadline: the pass that gains most comes first, and a valid submission is there at every moment.

The prior is written first and replaced as rows are answered. Rows go through the run's whole inference in slices, so
that any way of asking can be stopped. What is left when the time is up keeps a cheaper answer.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.progress import Deadline, Progress, TimeIsUp, time_limit
from nexttoken.runs.fold_baseline import FoldBaseline
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.timed.passes import LoadWay, Step, steps_of
from nexttoken.runs.timed.row_answers import RowAnswers
from nexttoken.runs.timed.row_asker import RowAsker
from nexttoken.runs.timed.shares import Shares
from nexttoken.runs.timed.slices import lengths_of, slices_of
from nexttoken.settings import AUTO
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example

Publish = Callable[["TimedPrediction", bool], None]  # writes the submission of the answers so far; True: the last time

SHARE_OF_WRITING = 0.05  # of the time at most, in which the submission is written again and again
SHARE_FOR_BASELINE = 0.2  # of the time left at most, where the first pass will not reach all rows
SURE_SHARE = 0.8  # of the time left: a longer first pass may not reach all rows, since long ones take more a token
MARGIN_SECONDS, MARGIN_SHARE = 1.0, 0.02  # kept before the deadline, beside the time of writing
MARGIN_WRITES, SLOWER_WRITES, MOST_SLOWER = 2.0, 1.5, 5.0  # times of the latest writing, on a slower machine more


def seconds_before(deadline: Deadline, write_seconds: float, slower: float = 1.0) -> float:
    """The seconds that are left for answers, where the submission took so long to write.

    `slower` is the time that the machine takes now over that of before.
    """
    writing = max(MARGIN_WRITES, SLOWER_WRITES * slower) * write_seconds
    return deadline.left - (MARGIN_SECONDS + MARGIN_SHARE * deadline.seconds + writing)


@dataclass
class TimedPrediction:
    """A prediction of `examples` by a finished run, a blend or a cascade that ends at the deadline.

    Of several processes each asks its own rows, those that `shares` gives it; the first has all answers at the end.
    """

    run: LoadedRun
    examples: Sequence[Example]
    deadline: Deadline
    publish: Publish
    load_way: LoadWay | None = None
    shares: Shares = field(default_factory=Shares)
    cheaper: str = "the prior"  # what rows without an answer have

    def __post_init__(self) -> None:
        self.answers = RowAnswers.of(self.run, self.examples)
        self.lengths = lengths_of(self.examples)
        self._rows = self.shares.own(self.lengths)
        self._asker = RowAsker(self.run, self.examples, self.shares.journals(self.run.changes.folder))
        self._num_made = 0
        self._slower = 1.0  # the time that the latest slice took, over that of those before
        self._extra: dict[str, float] = {}  # shares of this process's rows that were asked in another way, by pass
        self._steps: list[Step] = []

    def finish(self) -> RowAnswers:
        """Publish the prior, then answer until all passes are made or the time is up, and publish the result.

        It is published, too, where the program is told to stop or a model fails.
        """
        self._write()
        self.shares.start(self._left())
        end = self.deadline.left - self._left()
        try:
            if self._left() > 0:
                with suppress(TimeIsUp):
                    self._make_all()
        except Exception:
            if self.deadline.left > end:  # else a library has made another error of TimeIsUp
                raise
        finally:
            self.shares.collect(self.answers)
            self.publish(self, True)
        return self.answers

    def _make_all(self) -> None:
        """Raises TimeIsUp where the time is up before all passes are made."""
        with time_limit(self._left()):
            self._steps = steps_of(self.run, self.load_way)
            for step in self._steps:
                if not self._make(step):
                    break
            if self.shares.others:
                self.shares.wait(self.answers)
                self._make_what_others_left()

    def _make_what_others_left(self) -> None:
        """Make the run's own passes over the rows of processes that failed."""
        for step in self._own_steps:
            self._rows = np.flatnonzero(~self.answers.known(step.sources))
            if len(self._rows) and not self._make(step):
                return

    @property
    def _own_steps(self) -> list[Step]:
        return [step for step in self._steps if not step.is_extra]

    @property
    def is_whole(self) -> bool:
        """True where every pass that the run itself would make has answered all rows, and no further one any."""
        own = self._own_steps
        rows = [step.rows(self.answers) if step.rows else slice(None) for step in own]
        known = [self.answers.known(step.sources)[some].all() for step, some in zip(own, rows, strict=True)]
        return bool(own) and all(known) and not self._extra

    @property
    def is_answered(self) -> bool:
        """True where a model has answered every row; baselines alone suffice where a blend has nothing else."""
        models = [self.answers.known(step.sources) for step in self._steps if isinstance(step.run, LoadedRun)]
        return self.is_whole or bool(models and np.logical_or.reduce(models).all())

    @property
    def words(self) -> str:
        """The passes with their shares of the rows, and the cheaper answers of the rest."""
        own = {step.title: self.answers.known(step.sources).mean() for step in self._own_steps}
        shares = own | self._extra | {self.cheaper: 1 - self.answers.has_answer.mean()}
        return ", ".join(f"{title} {share:.0%}" for title, share in shares.items() if share)

    def _left(self) -> float:
        """Seconds to answer in, without those for writing the submission once more."""
        return seconds_before(self.deadline, self._write_seconds, self._slower)

    def _write(self) -> None:
        start = time.monotonic()
        self.shares.collect(self.answers)
        self.publish(self, False)
        self._written = time.monotonic()
        self._write_seconds = self._written - start

    def _make(self, step: Step) -> bool:
        """Make one pass over the rows in slices, whose time is forecast by those before; False: too little was left."""
        slices = self._slices(step)
        total, seconds, asked = sum(self.lengths[rows].sum() for rows in slices), 0.0, 0
        self._asker.load(step)  # not part of the throughput
        with Progress(sum(map(len, slices)), step.title) as progress:
            for place, rows in enumerate(slices):
                rows = self._fitting(rows, seconds / asked if asked else 0.0)
                if not len(rows):
                    return False
                start = time.monotonic()
                before = seconds / asked if asked else 0.0
                with time_limit(self._left()):  # less than before, where the machine has become slower
                    found = self._asker.ask(step, rows)
                for source, probs in found:
                    self.answers.put(source, rows, probs)
                if step.is_extra:
                    self._extra[step.title] = self._extra.get(step.title, 0.0) + len(rows) / len(self._rows)
                seconds, asked = seconds + time.monotonic() - start, asked + self.lengths[rows].sum()
                if before:
                    pace = (time.monotonic() - start) / self.lengths[rows].sum()
                    self._slower = min(max(pace / before, 1.0), MOST_SLOWER)
                progress.advance(len(rows))
                if not place and not self._num_made:
                    self._forecast(step, seconds * (total / asked - 1))
                if time.monotonic() - self._written > self._write_seconds / SHARE_OF_WRITING:
                    self._write()
        self._num_made += 1
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
        if seconds > SURE_SHARE * left and (found := self._by_baseline(SHARE_FOR_BASELINE * left)) is not None:
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

    def _slices(self, step: Step) -> list[np.ndarray]:
        """Those of this process's rows that the step asks, in slices."""
        given = self.run.batch_tokens if isinstance(step.run, FoldBaseline) else step.run.batch_tokens
        batch_tokens = 1 if given == AUTO else given
        if step.rows is not None:
            wanted = step.rows(self.answers)
            return slices_of(self.lengths, batch_tokens, wanted[np.isin(wanted, self._rows)])
        return [self._rows[places] for places in slices_of(self.lengths[self._rows], batch_tokens)]
