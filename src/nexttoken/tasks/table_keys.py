"""The kinds of values that the keys of a table task take: names of columns, lists of them, and mappings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nexttoken.errors import UserError
from nexttoken.tasks.table_rows import columns_of
from nexttoken.types import OPTIONS, PASSAGES

COLUMNS = "a column, or a list of different columns such as [title, body]; a number in quotes"
NAME = "a text; a number in quotes"
MAPPING = "a mapping such as {model_a: model_b}"
EXPECTED = {
    **dict.fromkeys(("id", "fields", "label", "votes", "group_by", "tags"), COLUMNS),
    **dict.fromkeys(("name", "labels_by", "metric", "train_file", "test_file", "sample_file"), NAME),
    **dict.fromkeys(("submission", "swap"), MAPPING),
}
# Columns of rows.csv beside tags.
ROWS_COLUMNS = {
    "num_options",
    "seconds",
    "recalled",
    "found",
    "searched",
    "second_taken",
    "swapped",
    "truncated",
    "outside",
}
REQUIRED = ("name", "id", "fields", "metric")  # may not be null


def check_keys(given: Mapping[str, Any]) -> None:
    """Raise UserError for the first key whose value is of another kind, and for a field that a prompt cannot show."""
    for key, expected in EXPECTED.items():
        value = given[key]
        if value is None and key not in REQUIRED:
            continue
        if not _is_of_kind(value, expected) and not (key == "tags" and value in ([], ())):
            raise UserError(f"task.{key}={value!r:.200} is not accepted: expected {expected}")
    fields = [given["fields"]] if isinstance(given["fields"], str) else given["fields"]
    if own := {*fields} & {OPTIONS, PASSAGES}:
        what = f"task.fields has {min(own)}, a name that a prompt uses for another thing"
        raise UserError(f"{what}; rename this column in the files")
    answer = {*columns_of(given["label"], given["votes"])}
    for key in ("fields", "labels_by"):
        if told := answer & {*columns_of(given[key])}:
            raise UserError(f"task.{key} has {min(told)}, the answer itself, which test rows do not have; leave it out")
    if given["swap"] and not any(name.endswith("_a") and f"{name[:-2]}_b" in fields for name in fields):
        what = "task.swap is for pairs, and task.fields has no two columns such as response_a and response_b"
        raise UserError(f"{what}; add them, or leave task.swap out")


def refuse_taken(tags: Iterable[str]) -> None:
    """Raise UserError for a tag, or a column of a metric, of the labels or of the groups, that rows.csv has, too."""
    if taken := sorted(ROWS_COLUMNS.intersection(tags)):
        what = f"the task reads the column {taken[0]} as a tag, and rows.csv has another column of this name"
        raise UserError(f"{what}; rename it in the files")


def _is_of_kind(value: Any, expected: str) -> bool:
    if expected == MAPPING:
        return isinstance(value, Mapping)
    names = [value] if isinstance(value, str) else value
    is_list = isinstance(names, Sequence) and (isinstance(value, str) or expected == COLUMNS)
    sound = is_list and all(isinstance(name, str) and name.strip() for name in names)
    return bool(sound and names and len({*names}) == len(names))
