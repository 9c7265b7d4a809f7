"""A competition's folder with a hidden test in the place of the visible one: the visible rows first, then further ones.

Kaggle shows a test of a few rows and runs a notebook with one of tens of thousands.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nexttoken.data.files import matching
from nexttoken.data.hidden_rows import Change, Row, changed, further_ids, further_rows, possible_changes
from nexttoken.data.row_files import RowFile
from nexttoken.data.whole_files import scratch_folder
from nexttoken.errors import MissingFile, UserError, first_five
from nexttoken.tasks.row_keys import ID_NAME
from nexttoken.tasks.table_rows import columns_of, find_table
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.types import OpenTask, Split, Task

ID_KEYS = ("id", "row_id", "qid", "q_id", "task_id", "question_id", "dialogue_id", "conversation_id", "uuid")
MAX_TRAINING_ROWS = 5_000  # of the training file, that further rows are made from


@dataclass(frozen=True)
class HiddenTest:
    """The `task` with a test of `num_rows` rows in its folder: first the `num_visible` given ones.

    `refused` are the changes that no row has, since the task would refuse the row.
    """

    task: Any
    num_rows: int
    num_visible: int
    refused: tuple[Change, ...]


def write_hidden_test(task: Task | OpenTask, folder: Path, num_rows: int, seed: int = 0) -> HiddenTest:
    """Fill the new `folder`. The same seed and files make the same rows.

    Raises: UserError for fewer rows than the visible test has, an id that the visible test repeats, and a test file
    that the task refuses.
    """
    with without_remarks():
        task.read("test")
        *others, test = (RowFile.read(path) for path in _files(task, "test"))
        visible = [row for file in (*others, test) for row in file.rows]
        if num_rows < len(visible):
            raise UserError(f"rows={num_rows:,} is less than the visible {test.path} has, {len(visible):,}; give more")
        id_key = _id_key(task, test)
        pool = _pool(task, test)
        possible = possible_changes(pool, id_key)
        refused = tuple(change for change in possible if not _accepts(task, test, pool, change, folder, id_key))
        ids = further_ids([row[id_key] for row in visible] if id_key else [], num_rows - len(visible))
        changes = [change for change in possible if change not in refused]
        rows = [*test.rows, *further_rows(pool, ids, id_key, changes, seed)]
        _fill(task, test, rows, folder, id_key, shutil.copy2)
        hidden = _at(task, folder)
        hidden.read("test")
    return HiddenTest(hidden, num_rows, len(visible), refused)


def _files(task: Any, split: Split) -> list[Path]:
    """The task's files of a split. Raises MissingFile where there is none."""
    folder = Path(task.input_dir)
    if names := getattr(task, f"{split}_files", None):
        found = matching(folder, names, f"{split} file")
        if not found:
            raise MissingFile(
                f"{folder} has no {split} file ({names}), and a hidden test is made from one; put it there"
            )
        return found
    return [find_table(folder, getattr(task, f"{split}_file", None), split, f"{split}_file")]


def _id_key(task: Any, test: RowFile) -> str | None:
    """The column of the rows' ids; None where rows have none. Raises UserError for ids that are repeated."""
    named = [*columns_of(getattr(task, "id", None)), *ID_KEYS, *filter(ID_NAME.search, test.rows[0])]
    key = next((name for name in named if name in test.rows[0]), None)
    if key and (repeated := [one for one, count in Counter(row.get(key) for row in test.rows).items() if count > 1]):
        raise UserError(f"{test.path} repeats ids in {key}: {first_five(repeated)}; expected each once: mend the file")
    return key


def _pool(task: Any, test: RowFile) -> list[Row]:
    """Rows that further ones are made from: those of the test, and training rows with the test's columns."""
    columns, nothing = list(test.rows[0]), {key for key in test.rows[0] if all(not row.get(key) for row in test.rows)}
    training: list[Row] = []
    with suppress(UserError):  # a prediction needs no training rows
        training = RowFile.read(_files(task, "train")[0], MAX_TRAINING_ROWS).rows
    rows = [row for row in training if row.keys() >= {*columns}]
    return [*test.rows, *({key: test.rows[0][key] if key in nothing else row[key] for key in columns} for row in rows)]


def _accepts(task: Any, test: RowFile, pool: Sequence[Row], change: Change, folder: Path, id_key: str | None) -> bool:
    """Return whether the task reads the test with one row changed so."""
    texts, drawn = {change.column: ["a longer text", "of several parts"]}, random.Random(0)
    given = next((made, row) for row in pool if (made := changed(row, change, texts, drawn)) is not row)[0]
    row = given | ({id_key: test.rows[0][id_key]} if id_key else {})
    with scratch_folder(folder) as part:
        _fill(task, test, [row], part, id_key, _link)
        try:
            _at(task, part).read("test")
        except UserError:
            return False
    return True


def _fill(
    task: Any, test: RowFile, rows: Sequence[Row], folder: Path, id_key: str | None, copy: Callable[[Path, Path], Any]
) -> None:
    """Write the rows as the test, with a sample submission of their ids; `copy` puts the task's other files there."""
    source = Path(task.input_dir)
    samples = [*source.glob("sample_submission.*")]
    own = {test.path, *samples}
    for path in source.rglob("*"):
        if path.is_file() and path not in own:
            other = folder / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            copy(path, other)
    target = folder / test.path.relative_to(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    test.write(rows, target)
    for path in samples:
        sample = RowFile.read(path)
        first = next(iter(sample.rows[0]))
        given, row_ids = ([str(row.get(id_key or "")) for row in some] for some in (test.rows, rows))
        is_by_row = {row[first] for row in sample.rows} == {*given}
        ids = row_ids if is_by_row else [example.id for example in _at(task, folder).read("test")]
        sample.write([sample.rows[0] | {first: row_id} for row_id in ids], folder / path.name)


def _at(task: Any, folder: Path) -> Any:
    return replace(task, input_dir=str(folder))


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)
    except OSError:  # another disk
        shutil.copy2(path, target)
