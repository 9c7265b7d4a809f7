"""A submission of written answers: JSON lines of task_id and output, written whole, checked by reading it back."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import SURROGATE, dump_json, json_rows
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.submission import check_same_ids
from nexttoken.types import TextPredictions

log = logging.getLogger(__name__)

# Line ends to some readers of a JSON line, though not to JSON.
LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def write_answers(asked: Sequence[tuple[str, int | str]], predictions: TextPredictions, path: Path) -> None:
    """Write a line for each (id, original id) of `asked`, in that order; the original keeps its type, 7 or "007".

    A lone surrogate, which stricter readers refuse, becomes U+FFFD, counted.

    Raises: UserError where a prediction is missing, given twice, of no row, or no text; nothing is written then.
    """
    texts = _checked([row_id for row_id, _ in asked], predictions)
    if halves := sum(len(SURROGATE.findall(text)) for text in texts.values()):
        log.info("%d lone surrogates (halves of a character) in the answers became U+FFFD", halves)
    rows = [(original, SURROGATE.sub("\ufffd", texts[row_id])) for row_id, original in asked]
    with whole_file(path) as part:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_line(original, text) for original, text in rows)
        written = [(row["task_id"], row["output"]) for _, row in json_rows(part)]
        if [(type(original), original, text) for original, text in written] != [(type(o), o, t) for o, t in rows]:
            raise UserError(f"{path} does not read back as it was written; is the disk full? Write it again")


def _line(original: int | str, text: str) -> str:
    line = dump_json({"task_id": original, "output": text})
    return LINE_ENDS.sub(lambda end: f"\\u{ord(end.group()):04x}", line) + "\n"


def _checked(asked: Sequence[str], predictions: TextPredictions) -> dict[str, str]:
    """Return the texts by id."""
    if len(predictions.texts) != len(predictions.ids):
        raise UserError(f"{len(predictions.ids)} ids have {len(predictions.texts)} answers; expected one each")
    if repeated := [row_id for row_id, count in Counter(predictions.ids).items() if count > 1]:
        raise UserError(f"the answers hold ids more than once: {first_five(repeated)}; expected one answer each")
    check_same_ids("the answers", predictions.ids, "the test files", asked)
    texts = dict(zip(predictions.ids, predictions.texts, strict=True))
    if wrong := [row_id for row_id, text in texts.items() if not isinstance(text, str)]:
        raise UserError(f"the answers of ids {first_five(wrong)} are no text; generate them again")
    return texts
