"""The classes of a table: their values in the files, the names that the prompt shows, and the label of a row."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.row_faults import RowFault
from nexttoken.errors import UserError, first_five, nearest

OOF_COLUMNS = {"id", "row", "fold", "label", "loss", "group"}  # beside the classes' probabilities
JOINED = ":"  # between the values of several label columns
WHOLE = re.compile(r"-?\d+(\.0)?", re.A)
MAPPING_KEYS = {"file", "value", "name"}
CLASSES_EXPECTED = (
    "a list of values, a mapping such as {'0': 'No', '1': 'Yes'} of values and names, or {file: ..., value: <column>,"
    " name: <column>}; null learns them from the training rows"
)


def named_classes(given: Any, folder: Path) -> dict[str, str]:
    """Return the names of the classes by their values, as the configuration gives them.

    Raises: UserError for anything else, for a class called like a column of oof.csv, and where the table that holds
    the classes lacks a column.
    """
    named = _named(given, folder)
    if taken := sorted(OOF_COLUMNS & set(named)):
        what = f"a class is called {taken[0]!r}, like a column of oof.csv"
        raise UserError(f"{what}; give it another value in the training file, or leave it out of task.classes")
    return named


def _named(given: Any, folder: Path) -> dict[str, str]:
    if isinstance(given, Mapping) and "file" in given:
        if set(given) != MAPPING_KEYS:
            raise UserError(f"task.classes={dict(given)!r}: expected the keys file, value and name")
        table = read_columns(folder / str(given["file"]), [str(given["value"]), str(given["name"])])
        return dict(zip(table[str(given["value"])], table[str(given["name"])], strict=True))
    if isinstance(given, Mapping):
        if unquoted := [value for value, name in given.items() if not isinstance(name, str)]:
            raise UserError(
                f"task.classes: the name of {unquoted[0]!r} is {given[unquoted[0]]!r}; write it in quotes, such as 'No'"
            )
        return {str(value): name for value, name in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str):
        values = [str(value) for value in given]
        if repeated := sorted({value for value in values if values.count(value) > 1}):
            raise UserError(f"task.classes has {first_five(repeated)} more than once; name each class once")
        return {value: value for value in values}
    raise UserError(f"task.classes={given!r} is not accepted: expected {CLASSES_EXPECTED}")


def learnt_classes(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels: in the order of their numbers where all are whole, else in that of their texts.

    Of whole numbers pandas' "7.0" is 7.
    """
    distinct = set(labels)
    if all(WHOLE.fullmatch(label) for label in distinct):
        return sorted({label.removesuffix(".0") for label in distinct}, key=lambda label: (int(label), label))
    return sorted(distinct)


def label_index(text: str, indices: Mapping[str, int], column: str) -> int:
    """Return the place of a row's label among the classes; pandas' "7.0" is 7. Raises RowFault for none of them."""
    found = indices.get(text, indices.get(text.removesuffix(".0")))
    if found is None:
        if not text.strip():
            raise RowFault(f"its label {column} is empty")
        raise RowFault(f"its {column} {text[:40]!r} is none of the {len(indices)} classes; {nearest(text, indices)}")
    return found


def vote_shares(row: Mapping[str, str], columns: Sequence[str]) -> tuple[float, ...]:
    """Return the share of each class from a row's one-hot numbers, counts of votes or probabilities.

    Raises: RowFault where a cell is no number of at least 0, or all are 0.
    """
    try:
        numbers = [float(row[column]) for column in columns]
    except ValueError:
        numbers = [-1.0]
    total = sum(numbers)
    if min(numbers) < 0 or not 0 < total < float("inf"):
        cells = ", ".join(row[column] for column in columns)
        raise RowFault(f"its votes are {cells[:60]!r}, expected a number of at least 0 for each class, not all 0")
    return tuple(number / total for number in numbers)
