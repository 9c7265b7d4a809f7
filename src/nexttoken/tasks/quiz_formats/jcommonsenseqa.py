"""JCommonsenseQA (JGLUE), JSON lines: q_id, question, choice0 to choice4, and the label where it is published."""

import re
from collections.abc import Mapping
from typing import Any

from nexttoken.data.json_lines import Place, RowFault, text_of
from nexttoken.tasks.quiz_formats.csv_rows import index_of
from nexttoken.tasks.quiz_formats.question import Question
from nexttoken.tasks.quiz_formats.quiz_format import JsonFormat, genre_of, id_of

NUMBER = re.compile("0|[1-9][0-9]{0,4299}")  # Python takes no more digits for a number; longer ids stay text
CHOICES = tuple(f"choice{index}" for index in range(5))


class JCommonsenseQA(JsonFormat):
    """Exactly five options; a q_id of digits is a number, as in the published files; a genre is a further key."""

    name = "jcommonsenseqa"
    answer_columns = ("q_id", "label")
    own_keys = frozenset({"q_id", "question", *CHOICES, "label", "genre"})
    known_by = frozenset({"question", "choice0", "choice4"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        options = tuple(text_of(row, choice) for choice in CHOICES)
        text, answer = text_of(row, "question"), index_of(row, "label")
        return Question(id_of(row, "q_id", place), text, options, answer, genre_of(row), self.extra(row), place)

    def row(self, question: Question) -> dict[str, Any]:
        if len(question.options) != len(CHOICES):
            raise RowFault(f"{len(question.options)} options where exactly {len(CHOICES)} are needed")
        is_number = NUMBER.fullmatch(question.id)
        own: dict[str, Any] = {"q_id": int(question.id) if is_number else question.id, "question": question.text}
        own |= dict(zip(CHOICES, question.options, strict=True))
        if question.answer is not None:
            own["label"] = question.answer
        return self.with_extra(own, question)
