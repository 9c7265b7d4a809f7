"""A prediction in shards: all rows are checked, each shard is answered once, and the parts become one submission."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexttoken.data.files import hash_text
from nexttoken.errors import UserError, counted
from nexttoken.models.processes import work_alone
from nexttoken.prompts.token_cache import tokens_in_memory
from nexttoken.runs.asking import Asking
from nexttoken.runs.lock import written_alone
from nexttoken.runs.shards.parts import Parts
from nexttoken.runs.shards.plan import Plan, hash_rows
from nexttoken.runs.shards.whole_table import write_csv, write_parquet
from nexttoken.tasks.row_keys import log_unseen
from nexttoken.tasks.shards import Shards
from nexttoken.tasks.submission import find_ids
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example

PARQUET = ".parquet"
POLL_SECONDS = 0.2


def predict_in_shards(asking: Asking, path: Path, size: int) -> int:
    """Write the submission `path` from the test, `size` rows in memory at a time; return the number of its rows.

    The parts are in a folder of the same name beside it. A part that is there and fits is not answered again, so the
    same command goes on after a kill. Of several processes each answers its own shards, and the first one writes the
    submission; the others return 0. Raises UserError for a task whose test is not one table, for files of somebody else
    where the parts go, and before the first answer for faulty rows.
    """
    task: Any = asking.run.parts.task
    if not hasattr(task, "in_shards"):
        what = f"the task {task.name} reads its test whole, and shard_rows={size} is for tables"
        raise UserError(f"{what}; leave shard_rows out")
    shards: Shards = task.in_shards(min(size, sys.maxsize))
    parts = Parts(path.with_suffix(""), identity(asking), shards.form.id_name, task.classes)
    parts.refuse_others()
    prediction = ShardedPrediction(asking, shards, parts, *work_alone())
    if prediction.place:
        prediction.answer_own()
        return 0
    with written_alone(path):
        start = time.monotonic()
        plan = Plan.of(shards)
        print(
            f"{shards.path}: {_words(plan.num_rows, start)}, {counted(len(plan.sizes), 'shard')}, ids unique",
            flush=True,
        )
        prediction.answer_own(plan)
        start = time.monotonic()
        asking.publish(lambda file: prediction.write(plan, file), path)
        parts.remove_after(len(plan.sizes))
        print(f"written and read back: {_words(plan.num_rows, start)}")
    return plan.num_rows


def identity(asking: Asking) -> str:
    """A hash of the trainings that answer, and of how they are asked and calibrated."""
    run: Any = asking.run
    folds = [*run.answering, *(run.larger.answering if hasattr(run, "larger") else ())]
    calibrated = asking.calibration.scaling.values if asking.calibration else {}
    values = [[fold.training_id for fold in folds], asking.settings, calibrated, run.parts.task.classes]
    return hash_text(json.dumps(values, sort_keys=True, default=str))


@dataclass(frozen=True)
class ShardedPrediction:
    """The shards of a test, their parts, and the run that answers them: those of process `place` of `num_processes`."""

    asking: Asking
    shards: Shards
    parts: Parts
    place: int = 0
    num_processes: int = 1
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # of each stage
    unshown: Counter[str] = field(default_factory=Counter)  # rows by the field that the prompt does not show

    def answer_own(self, plan: Plan | None = None) -> None:
        """Answer every shard of this process that has no part that fits.

        Raises UserError where the test is not as it was when `plan` was made.
        """
        num_kept = 0
        with tokens_in_memory(), without_remarks():
            for number, make in enumerate(self.shards):
                if number % self.num_processes != self.place:
                    continue
                start = time.monotonic()
                examples = make()
                rows = hash_rows(examples)
                if plan and plan.hashes[number : number + 1] != (rows,):
                    raise UserError(f"{self.shards.path} was changed meanwhile: predict again")
                self.seconds["read the rows"] += time.monotonic() - start
                if self.parts.read(number, rows) is None:
                    self._answer(number, examples, rows)
                else:
                    num_kept += 1
        log_unseen(self.unshown)
        if num_kept:
            verb = "was" if num_kept == 1 else "were"
            print(f"{counted(num_kept, 'shard')} {verb} answered before ({self.parts.folder})")
        print("seconds: " + "; ".join(f"{stage} {seconds:,.1f}" for stage, seconds in self.seconds.items()), flush=True)

    def _answer(self, number: int, examples: list[Example], rows: str) -> None:
        start, run = time.monotonic(), self.asking.run
        asked = apply_transforms(examples, run.parts.transforms)
        self.unshown.update(run.parts.prompt.count_unshown(asked))
        found, ids = run.answer(asked), [example.id for example in examples]
        probs = found.probs[find_ids("the predictions", found.ids, self.shards.path.name, ids)]
        answered, in_model = time.monotonic() - start, float(found.columns["seconds"].sum())
        self.parts.write(number, rows, ids, probs)
        written = time.monotonic() - start - answered
        self.seconds["load the model, render, tokenise"] += answered - in_model
        self.seconds["run the model"] += in_model
        self.seconds["write the parts"] += written
        print(f"shard {number + 1:,}: {_words(len(ids), start)}", flush=True)

    def write(self, plan: Plan, path: Path) -> None:
        """Write the whole submission, waiting for the parts of other processes."""
        write = write_parquet if path.suffix == PARQUET else write_csv
        write(self.shards.form.header, lambda: self._columns(plan), path)

    def _columns(self, plan: Plan) -> Iterator[Sequence[Sequence[Any]]]:
        form, threshold = self.shards.form, self.asking.run.threshold
        for number, rows in enumerate(plan.hashes):
            while (part := self.parts.read(number, rows)) is None:
                if number % self.num_processes == self.place:
                    raise UserError(f"{self.parts.path(number)} was changed meanwhile: predict again")
                time.sleep(POLL_SECONDS)
            ids, probs = part
            yield [ids, *form.cells(probs, self.shards.decide(probs, threshold))]


def _words(num_rows: int, start: float) -> str:
    seconds = time.monotonic() - start
    return f"{counted(num_rows, 'row')} in {seconds:,.1f} s, {num_rows / max(seconds, 1e-9):,.0f} rows/s"
