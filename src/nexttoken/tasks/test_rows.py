"""The check of a task's test rows before the training, so that nobody trains for hours and then cannot predict."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nexttoken.errors import MissingFile, UserError
from nexttoken.types import OpenTask, Task

log = logging.getLogger(__name__)


@contextmanager
def without_remarks() -> Iterator[None]:
    """Within this context nothing is said about rows that are read again."""
    tasks_log = logging.getLogger("nexttoken.tasks")
    level = tasks_log.level
    tasks_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        tasks_log.setLevel(level)


def warn_of_test_rows(task: Task | OpenTask) -> None:
    """Read the test rows and log the reason for which predict.py would refuse them; absent files may come later.

    Remarks on the test rows are not logged here: predict.py does.
    """
    try:
        with without_remarks(), suppress(MissingFile):
            task.read("test")
    except UserError as error:
        log.warning("predict.py will refuse the test rows: %s", error)
