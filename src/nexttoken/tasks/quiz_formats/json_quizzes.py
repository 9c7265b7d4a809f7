"""Quizzes as JSON lines of options in keys of their own: JAQKET, JCommonsenseQA, and the project's plain format."""

import re
from collections.abc import Mapping
from typing import Any

from nexttoken.data.row_faults import Place, RowFault, text_of, texts_of
from nexttoken.tasks.quiz_formats.question import MAX_OPTIONS, Question, is_unknown
from nexttoken.tasks.quiz_formats.quiz_format import JsonFormat, genre_of, index_of, text_id

GENRE_KEYS = ("section", "competition")  # of JAQKET's rows without a genre: the first that is there
NUMBER = re.compile("0|[1-9][0-9]{0,4299}")  # Python takes no more digits for a number; longer ids stay text
CHOICES = tuple(f"choice{index}" for index in range(5))


class Jaqket(JsonFormat):
    """JAQKET, the quizzes of AI王: qid, question, up to twenty candidate entities and the one that is right.

    The answer is written as its text; `answer_index` is added only where an earlier option has the same text.
    original_question, original_answer and all other keys travel as they are.
    """

    name = "jaqket"
    max_options = 20
    answer_columns = ("qid", "answer_entity")
    answer_suffix = ".jsonl"
    text_keys = frozenset({"question", "answer_candidates", "answer_entity"})
    own_keys = frozenset({"qid", "question", "answer_entity", "answer_candidates", "answer_index", "genre"})
    known_by = frozenset({"question", "answer_candidates"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        text, options = text_of(row, "question"), texts_of(row, "answer_candidates")
        extra = self.extra(row)
        genre = genre_of(row) or _section(extra)
        return Question(text_id(row, "qid", place), text, options, _answer(row, options), genre, extra, place)

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
    return next((str(extra[key]) for key in GENRE_KEYS if extra.get(key)), "")


def _answer(row: Mapping[str, Any], options: tuple[str, ...]) -> int | None:
    if is_unknown(row.get("answer_entity"), options):
        return None
    entity, index = text_of(row, "answer_entity"), index_of(row, "answer_index")
    if entity not in options:
        raise RowFault(f"answer_entity {entity!r} is not among the candidates")
    if index is not None and (not 0 <= index < len(options) or options[index] != entity):
        raise RowFault(f"answer_index {index} is not the candidate {entity!r}")
    return options.index(entity) if index is None else index


class JCommonsenseQA(JsonFormat):
    """JCommonsenseQA (JGLUE): q_id, question, choice0 to choice4, and the label where it is published.

    Exactly five options; a q_id of digits is a number, as in the published files; a genre is a further key.
    """

    name = "jcommonsenseqa"
    answer_columns = ("q_id", "label")
    text_keys = frozenset({"question", *CHOICES})
    own_keys = frozenset({"q_id", "question", *CHOICES, "label", "genre"})
    known_by = frozenset({"question", "choice0", "choice4"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        options = tuple(text_of(row, choice) for choice in CHOICES)
        text, answer = text_of(row, "question"), index_of(row, "label")
        return Question(text_id(row, "q_id", place), text, options, answer, genre_of(row), self.extra(row), place)

    def row(self, question: Question) -> dict[str, Any]:
        if len(question.options) != len(CHOICES):
            raise RowFault(f"{len(question.options)} options where exactly {len(CHOICES)} are needed")
        is_number = NUMBER.fullmatch(question.id)
        own: dict[str, Any] = {"q_id": int(question.id) if is_number else question.id, "question": question.text}
        own |= dict(zip(CHOICES, question.options, strict=True))
        if question.answer is not None:
            own["label"] = question.answer
        return self.with_extra(own, question)


class Plain(JsonFormat):
    """The project's own: `{"id": "q1", "genre": "art", "question": "...", "options": ["...", "..."], "answer": 0}`."""

    name = "plain"
    position = 3  # any other format may hold these keys beside its own
    max_options = MAX_OPTIONS  # whatever any other format holds
    own_keys = frozenset({"id", "genre", "question", "options", "answer"})
    known_by = frozenset({"question", "options"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        text, options, answer = text_of(row, "question"), texts_of(row, "options"), index_of(row, "answer")
        return Question(text_id(row, "id", place), text, options, answer, genre_of(row), self.extra(row), place)

    def row(self, question: Question) -> dict[str, Any]:
        own = {
            "id": question.id,
            "genre": question.genre,
            "question": question.text,
            "options": list(question.options),
            "answer": question.answer,
        }
        return self.with_extra(own, question)


FORMATS = (Jaqket(), JCommonsenseQA(), Plain())
