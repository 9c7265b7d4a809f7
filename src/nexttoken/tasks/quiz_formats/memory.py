"""Questions of rows that are in memory already: a notebook's table, or dictionaries."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from nexttoken.data.json_lines import Fault, Place, RowFault
from nexttoken.tasks.quiz_formats import named
from nexttoken.tasks.quiz_formats.folder import refuse, repeated_ids
from nexttoken.tasks.quiz_formats.question import Question


def questions_in_memory(rows: Iterable[Mapping[Any, Any]], format_name: str) -> list[Question]:
    """Read rows with the columns of a format; with `question` and `options`, or by "auto", of the project's own.

    Raises UserError naming faulty rows by their number.
    """
    from pandas import NA

    questions, faults = [], []
    for number, row in enumerate(rows, start=1):
        known = {str(key): value for key, value in row.items() if value is not NA and not _is_nan(value)}
        is_plain = format_name == "auto" or {"question", "options"} <= known.keys()
        quiz_format = named("plain" if is_plain else format_name)
        try:
            question = quiz_format.from_memory(known, Place("row", number, number))
            questions.append(question.check(quiz_format.max_options))
        except RowFault as fault:
            faults.append(Fault(f"row {number}", str(fault)))
    refuse([*faults, *repeated_ids(questions)], "mend them in the table")
    return questions


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
