"""A submission that is predicted until a deadline, and written again and again meanwhile."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.models.places import has_launcher
from nexttoken.progress import Deadline
from nexttoken.runs.asking import Asking
from nexttoken.runs.config import Changes
from nexttoken.runs.load import load
from nexttoken.runs.lock import written_alone
from nexttoken.runs.timed.passes import LoadWay
from nexttoken.runs.timed.prediction import TimedPrediction
from nexttoken.runs.timed.shares import Shares
from nexttoken.runs.timed.texts import TimedTexts
from nexttoken.settings import PredictSettings
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.types import Example, LabelPredictions, TextPredictions

READS = ("read", "questions", "_sample")  # methods of tasks that read test files; tables keep their sample themselves


def predict_within(
    asking: Asking, read: Callable[[], list[Example]], path: Path, settings: PredictSettings
) -> tuple[LabelPredictions | TextPredictions, bool]:
    """Write the submission `path` until `settings.within` is over.

    Returns its predictions, and whether a model has answered every row. `read` gives the test examples. The ledger has
    a line for its first state, and one for its last that says what answered how many rows. Raises UserError where
    another command writes the file, and under torchrun or srun.
    """
    if has_launcher():
        raise UserError("within=... starts its own processes, on one machine: devices=... instead of torchrun or srun")
    shares = Shares.of(settings.devices, path.with_name("written") / path.name)
    with nullcontext() if shares.place else written_alone(path):
        if not asking.run.parts.task.classes:
            return _write_within(asking, read, path, Deadline(settings.within or 0.0))
        return _predict_within(asking, read, path, settings, shares)


def _predict_within(
    asking: Asking, read: Callable[[], list[Example]], path: Path, settings: PredictSettings, shares: Shares
) -> tuple[LabelPredictions, bool]:
    """The same for class probabilities."""
    is_first = True
    deadline = Deadline(settings.within or 0.0) if shares.until is None else Deadline.at(shares.until)
    load_way = way_loader(settings) if not asking.settings else None

    def publish(timed: TimedPrediction, is_last: bool) -> None:
        nonlocal is_first
        if shares.place:
            shares.save(timed.answers)
            return
        remark = "" if timed.is_whole else timed.words
        with without_remarks():
            asking.save(timed.answers.predictions, path, remark, is_noted=is_first or is_last)
        is_first = False

    with reading_once(asking.run.parts.task):
        timed = TimedPrediction(asking.run, read(), deadline, publish, load_way, shares)
        answers = timed.finish()
    if shares.place:
        sys.exit(0)  # the first process writes the submission
    print(f"{timed.words}; {deadline.left:.0f} s of {deadline.seconds:.0f} are left")
    return answers.predictions, timed.is_answered


def _write_within(
    asking: Asking, read: Callable[[], list[Example]], path: Path, deadline: Deadline
) -> tuple[TextPredictions, bool]:
    """The same for open answers."""
    is_first = True

    def publish(timed: TimedTexts, is_last: bool) -> None:
        nonlocal is_first
        with without_remarks():
            asking.save(timed.predictions, path, timed.words, is_noted=is_first or is_last)
        is_first = False

    timed = TimedTexts(asking.run, read(), deadline, publish)
    timed.finish()
    print(f"{timed.words or 'all rows'}; {deadline.left:.0f} s of {deadline.seconds:.0f} are left")
    return timed.predictions, timed.is_whole


def way_loader(settings: PredictSettings) -> LoadWay:
    """A function that loads the run in a folder with the paths of these settings, asked as it was scored."""
    own = Changes(folder=Changes.of(settings).folder)
    paths = settings.input_dir, settings.batch_tokens, settings.base
    return lambda folder: load(folder, *paths, own, settings.trust_remote_code)


@contextmanager
def reading_once(task: Any) -> Iterator[None]:
    """Within this context a task reads its test files once, however often it writes a submission of them."""
    known: dict[str, Any] = {}

    def once(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def again(*split: str) -> Any:
            if split == ("train",):
                return read(*split)
            if name not in known:
                known[name] = read(*split)
            return known[name]

        return again

    names = [name for name in READS if callable(getattr(type(task), name, None))]
    for name in names:
        object.__setattr__(task, name, once(name, getattr(task, name)))
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(task, name)
