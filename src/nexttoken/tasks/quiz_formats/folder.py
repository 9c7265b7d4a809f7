"""A folder of quiz files, and which of their rows may be learnt from or answered: the one place that decides it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nexttoken.data.files import matching, refuse_missing
from nexttoken.data.json_lines import Fault, faults_line
from nexttoken.errors import UserError, first_five, nearest
from nexttoken.tasks.quiz_formats import named, recognised
from nexttoken.tasks.quiz_formats.question import Question, remark_lines
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuizFolder:
    """The files of `path`, in the format of this name ("auto": recognised); `genres` are those known, None: any."""

    path: Path
    format: str = "auto"
    genres: Sequence[str] | None = None
    skip_faulty: bool = False

    def matching(self, names: Sequence[str] | str) -> list[Path]:
        return matching(self.path, names, "quiz file")

    def refuse_missing(self, name: str) -> NoReturn:
        refuse_missing(self.path, name, "quiz file")

    def format_of(self, path: Path) -> QuizFormat:
        return recognised(path) if self.format == "auto" else named(self.format)

    def test_questions(self, paths: Sequence[Path]) -> list[Question]:
        """Return every row: all need an answer, so what is merely odd is logged, and a faulty row is refused."""
        questions, faults = self._scan(paths)
        refuse(faults, "every test row needs an answer: mend them")
        if odd := self._odd(questions):
            log.info("%d test questions are odd and are answered all the same: %s", len(odd), first_five(odd))
        return _remarked(questions)

    def train_questions(self, paths: Sequence[Path]) -> list[Question]:
        """Return the rows that a label may rest on; the others are refused, or left out where `skip_faulty` says so."""
        questions, faults = self._scan(paths)
        unanswered = [question for question in questions if question.answer is None]
        faults += self._odd(questions) + [Fault(question.place, "no answer to learn from") for question in unanswered]
        if not self.skip_faulty:
            refuse(faults, "mend them, or leave them out with task.skip_faulty=true")
        if faults:
            log.info("%s; left out of training, for task.skip_faulty=true", faults_line(faults))
        out = {fault.place for fault in faults}
        if not (kept := [question for question in questions if question.place not in out]):
            raise UserError(f"{self.path} has no sound training question: expected some with their answers")
        return _remarked(kept)

    def _scan(self, paths: Sequence[Path]) -> tuple[list[Question], list[Fault]]:
        readings = [self.format_of(path).scan(path) for path in paths]
        questions = [question for reading in readings for question in reading.questions]
        return questions, [fault for reading in readings for fault in reading.faults] + repeated_ids(questions)

    def _odd(self, questions: Sequence[Question]) -> list[Fault]:
        """Return what makes a question doubtful without touching its label; repeated options are real and train."""
        odd = []
        for question in questions:
            reasons = [remark for remark in question.remarks if remark != "repeated options"]
            if self.genres is not None and question.genre not in self.genres:
                reasons.append(f"unknown genre {question.genre!r}; {nearest(question.genre, self.genres)}")
            odd += [Fault(question.place, " and ".join(reasons))] if reasons else []
        return odd


def _remarked(questions: list[Question]) -> list[Question]:
    for line in remark_lines(questions):
        log.info("%s: kept", line)
    return questions


def repeated_ids(questions: Sequence[Question]) -> list[Fault]:
    """Return a fault for every question whose id an earlier one has."""
    first: dict[str, Question] = {}
    return [
        Fault(question.place, f"id {question.id} again, first in {first[question.id].name}")
        for question in questions
        if first.setdefault(question.id, question) is not question
    ]


def refuse(faults: Sequence[Fault], fix: str) -> None:
    """Raise UserError naming the first five of `faults`, where there are any."""
    if faults:
        raise UserError(f"{faults_line(faults)}; {fix}")
