"""The project's own quiz format, JSON lines: id, genre, question, options, and the answer's index or null."""

from collections.abc import Mapping
from typing import Any

from nexttoken.data.json_lines import Place, text_of, texts_of
from nexttoken.tasks.quiz_formats.csv_rows import index_of
from nexttoken.tasks.quiz_formats.question import LETTERS, Question
from nexttoken.tasks.quiz_formats.quiz_format import JsonFormat, genre_of, id_of


class Plain(JsonFormat):
    """`{"id": "q1", "genre": "history", "question": "...", "options": ["...", "..."], "answer": 0}` a line."""

    name = "plain"
    max_options = len(LETTERS)  # whatever any other format holds
    own_keys = frozenset({"id", "genre", "question", "options", "answer"})
    known_by = frozenset({"question", "options"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        text, options, answer = text_of(row, "question"), texts_of(row, "options"), index_of(row, "answer")
        return Question(id_of(row, "id", place), text, options, answer, genre_of(row), self.extra(row), place)

    def row(self, question: Question) -> dict[str, Any]:
        own = {
            "id": question.id,
            "genre": question.genre,
            "question": question.text,
            "options": list(question.options),
            "answer": question.answer,
        }
        return self.with_extra(own, question)
