"""JAQKET, the quizzes of AI王, JSON lines: qid, question, up to twenty candidate entities and the one that is right."""

from collections.abc import Mapping
from typing import Any

from nexttoken.data.json_lines import Place, RowFault, text_of, texts_of
from nexttoken.tasks.quiz_formats.csv_rows import index_of
from nexttoken.tasks.quiz_formats.question import Question
from nexttoken.tasks.quiz_formats.quiz_format import JsonFormat, genre_of, id_of

GENRE_KEYS = ("genre", "section", "competition")  # the first that is there


class Jaqket(JsonFormat):
    """The answer is written as its text; `answer_index` is added only where an earlier option has the same text.

    original_question, original_answer and all other keys travel as they are.
    """

    name = "jaqket"
    max_options = 20
    answer_columns = ("qid", "answer_entity")
    answer_suffix = "jsonl"
    own_keys = frozenset({"qid", "question", "answer_entity", "answer_candidates", "answer_index", "genre"})
    known_by = frozenset({"question", "answer_candidates"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        text, options = text_of(row, "question"), texts_of(row, "answer_candidates")
        extra = self.extra(row)
        genre = genre_of(row) or _section(extra)
        return Question(id_of(row, "qid", place), text, options, _answer(row, options), genre, extra, place)

    def row(self, question: Question) -> dict[str, Any]:
        own: dict[str, Any] = {"qid": question.id, "question": question.text}
        if question.answer is not None:
            entity = question.options[question.answer]
            if not entity:
                raise RowFault("its answer is an empty option, which means an unknown answer there")
            own["answer_entity"] = entity
            if question.options.index(entity) != question.answer:
                own["answer_index"] = question.answer
        own["answer_candidates"] = list(question.options)
        is_section = question.genre == _section(question.extra)
        row = self.with_extra(own, question)
        return {key: value for key, value in row.items() if key != "genre" or not is_section}

    def option_names(self, question: Question) -> list[str]:
        return list(question.options)


def _section(extra: Mapping[str, Any]) -> str:
    return next((str(extra[key]) for key in GENRE_KEYS[1:] if extra.get(key)), "")


def _answer(row: Mapping[str, Any], options: tuple[str, ...]) -> int | None:
    if row.get("answer_entity") in (None, ""):
        return None
    entity, index = text_of(row, "answer_entity"), index_of(row, "answer_index")
    if entity not in options:
        raise RowFault(f"answer_entity {entity!r} is not among the candidates")
    if index is not None and (not 0 <= index < len(options) or options[index] != entity):
        raise RowFault(f"answer_index {index} is not the candidate {entity!r}")
    return options.index(entity) if index is None else index
