"""Candidates of a question as options: all of them, or the right one among others drawn by the question's id alone."""

import random
from collections.abc import Sequence
from dataclasses import replace

from nexttoken.data.row_faults import Faults, RowFault
from nexttoken.tasks.quiz_formats.question import MAX_OPTIONS, MIN_OPTIONS, Question


def draw_options(question: Question, num_options: int, seed: int) -> tuple[int, ...]:
    """Return the indices of at most `num_options` options, in the order to be shown.

    Options that fit stay as they are. Of more, each text counts once and the right one is among those drawn; the others
    and the order of all follow from `seed` and the question's id, whatever the order of the rows.

    Raises: RowFault where the right one is not known, or all candidates are the same.
    """
    count, answer = len(question.options), question.answer
    if count <= num_options:
        return tuple(range(count))
    first = {option: index for index, option in reversed([*enumerate(question.options)])}
    distinct = sorted((first | ({} if answer is None else {question.options[answer]: answer})).values())
    if len(distinct) < MIN_OPTIONS:
        raise RowFault(f"all candidates are the same, {question.options[0][:40]!r}")
    if answer is None:
        if len(distinct) <= num_options:
            return tuple(distinct)
        raise RowFault(f"{len(distinct)} options for num_options={num_options}, and the right one is not known")
    numbers = random.Random(f"{seed}:{question.id}")  # text is hashed by SHA-512: the same on every machine
    others = [index for index in distinct if index != answer]
    chosen = [answer, *numbers.sample(others, min(num_options - 1, len(others)))]
    return tuple(numbers.sample(chosen, len(chosen)))


def choose(question: Question, indices: tuple[int, ...]) -> Question:
    """Return the question with only these options, in this order."""
    answer = None if question.answer is None else indices.index(question.answer)
    return replace(question, options=tuple(question.options[index] for index in indices), answer=answer)


def choose_options(questions: Sequence[Question], num_options: int, seed: int, fix: str = "") -> list[Question]:
    """Return the questions with the drawn options. Raises UserError, with `fix`, where those cannot be drawn."""
    faults, refused = Faults(), list[Question]()

    def chosen(question: Question, _: str) -> Question:
        try:
            return choose(question, draw_options(question, num_options, seed))
        except RowFault:
            refused.append(question)
            raise

    kept = list(faults.sound_rows(((question.name, question) for question in questions), chosen))
    faults.refuse(fix or _fix(refused))
    return kept


def _fix(refused: Sequence[Question]) -> str:
    needed = max((len({*question.options}) for question in refused if question.answer is None), default=0)
    if needed < MIN_OPTIONS:
        return "give them different candidates"
    limits = f"at least {needed} when training (at most {MAX_OPTIONS})"
    fix = f"questions without an answer need task.num_options of {limits}"
    return fix if needed <= MAX_OPTIONS else f"{fix}: give them fewer candidates, or their answers"
