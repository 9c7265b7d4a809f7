"""The tables of an unknown competition's folder as columns of text, so that its configuration can be guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import Columns
from nexttoken.data.row_faults import RowFault
from nexttoken.errors import UserError
from nexttoken.tasks.table_rows import ENDINGS, Rows, Unpivot, find_table, read_rows

WORDS = {"train": "train", "test": "test", "sample_submission": "sample"}  # parts of other names of these files


@dataclass(frozen=True)
class TableFiles:
    """The training, test and sample tables of a folder, and those of its other files; {} for an absent table.

    `named` holds the names of files that do not follow the convention, by their key of the task. `unpivot` is the
    setting by which the training and test tables were made longer, or None.
    """

    paths: Mapping[str, Path]
    train: Columns
    test: Columns
    sample: Columns
    others: Mapping[str, Columns]
    named: Mapping[str, str]
    unpivot: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "TableFiles":
        """Raises UserError where there are no training rows."""
        found = {stem: find_file(folder, stem) for stem in WORDS}
        paths = {stem: path for stem, path in found.items() if path}
        if "train" not in paths:
            find_table(folder, None, "train", "train_file")  # refuses
        tables = {stem: columns_of_rows(read_rows(path, [])) for stem, path in paths.items()}
        if not tables["train"]:
            raise UserError(f"{paths['train']} has no row to guess from; expected the training rows")
        keys = {"train": "train_file", "test": "test_file", "sample_submission": "sample_file"}
        named = {keys[stem]: path.name for stem, path in paths.items() if not is_found_alone(folder, stem)}
        train, test, sample = (tables.get(stem, {}) for stem in WORDS)
        unpivot = guess_unpivot(train, test, sample)
        if unpivot:
            make_longer = Unpivot.of(unpivot)
            train, test = (columns_of_rows(make_longer(read_rows(paths[stem], []))) for stem in ("train", "test"))  # type: ignore[misc]
        others = [path for path in tables_in(folder) if path not in paths.values()]
        return cls(paths, train, test, sample, {path.name: read_other(path) for path in others}, named, unpivot)

    def holds_text(self, column: str) -> bool:
        """Return whether the training file has text or numbers there, no lists or bytes, in its first row."""
        if self.unpivot:
            return True
        try:
            return not isinstance(next(iter(read_rows(self.paths["train"], [column])))[1], RowFault)
        except UserError:
            return False


def tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.lower().endswith(ENDINGS) and path.is_file())


def find_file(folder: Path, stem: str) -> Path | None:
    """The file called `stem` with a known ending, else the first with the word for it in its name."""
    exact = [folder / f"{stem}{ending}" for ending in ENDINGS if (folder / f"{stem}{ending}").is_file()]
    others = [word for word in WORDS.values() if word != WORDS[stem]]
    near = [
        path
        for path in tables_in(folder)
        if WORDS[stem] in path.name.lower() and not any(word in path.name.lower() for word in others)
    ]
    return next(iter([*exact, *near]), None)


def is_found_alone(folder: Path, stem: str) -> bool:
    """Return whether the table task finds this file without its name."""
    return sum((folder / f"{stem}{ending}").is_file() for ending in ENDINGS) == 1


def columns_of_rows(rows: Rows) -> Columns:
    """The sound rows as columns; one without a name, such as a saved index, is left out."""
    sound = [row for _, row in rows if not isinstance(row, RowFault)]
    names = dict.fromkeys(name for row in sound for name in row if name.strip())
    return {name: [row.get(name, "") for row in sound] for name in names}


def num_rows(table: Columns) -> int:
    return len(next(iter(table.values()), ()))


def read_other(path: Path) -> Columns:
    """The columns of a file that may be of any kind; {} for one that cannot be read."""
    try:
        return columns_of_rows(read_rows(path, []))
    except UserError:
        return {}


def guess_unpivot(train: Columns, test: Columns, sample: Columns) -> dict[str, Any] | None:
    """The setting that makes rows such as 300_A of QuestionId_Answer, where each answer has its own columns, or None.

    Columns that are named alike for every value, such as AnswerAText to AnswerDText, become one.
    """
    *ids, name = next(iter(sample), "").split("_")
    if not ids or name in test or not {*ids} <= test.keys():
        return None
    values = sorted({cell.rpartition("_")[2] for cell in next(iter(sample.values()))})
    columns = {}
    for column in train:
        for found in re.finditer(re.escape(values[0]), column):
            pattern = f"{column[: found.start()]}{{}}{column[found.end() :]}"
            if len(values) > 1 and all(pattern.replace("{}", value) in train for value in values):
                columns[pattern.replace("{}", "")] = pattern
    if not columns:
        return None
    skipped = [column for column, cells in test.items() if column not in ids and {*cells} <= {*values}]
    made = {"name": name, "values": values, "columns": columns}
    return made | ({"skip_equal_to": skipped[0]} if skipped else {})
