"""A folder of quiz files, or rows in memory: the rows that may be learnt from or answered."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.files import matching, refuse_missing
from nexttoken.data.row_faults import Faults, Place, RowFault, Tally
from nexttoken.data.tables_in_memory import rows_in_memory
from nexttoken.errors import UserError, nearest
from nexttoken.tasks.open_files import refuse_faults
from nexttoken.tasks.quiz_formats import named, recognised
from nexttoken.tasks.quiz_formats.question import Question, remark_lines
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat
from nexttoken.tasks.row_keys import log_unseen
from nexttoken.types import Split

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

    def paths(self, names: Sequence[str] | str) -> list[Path]:
        """Raises UserError where no file has one of the names."""
        return self.matching(names) or refuse_missing(self.path, str(names), "quiz file")

    def format_of(self, path: Path) -> QuizFormat:
        return recognised(path) if self.format == "auto" else named(self.format)

    def questions(self, paths: Sequence[Path], split: Split) -> list[Question]:
        """Return the rows that a label may rest on, or all test rows: those that are merely odd are answered, too.

        Raises: UserError naming the faulty rows; `skip_faulty` leaves them out of training, and says so.
        """
        faults, odd = Faults(), Tally()

        def checked(question: Question, _: str) -> Question:
            faults.claim_id(question.id, question.place)
            reasons = self._odd(question)
            if split == "train" and (reasons or question.answer is None):
                raise RowFault(" and ".join(reasons) or "no answer to learn from")
            if reasons:
                odd.add(f"{question.name} ({' and '.join(reasons)})")
            return question

        scanned = [question for path in paths for question in self.format_of(path).scan(path, faults)]
        questions = list(faults.sound_rows(((question.name, question) for question in scanned), checked))
        refuse_faults(faults, split, self.skip_faulty)
        if not questions:
            raise UserError(f"{self.path} has no sound {split} question: expected some with their answers")
        if odd.count:
            log.info("%d test questions are odd and are answered all the same: %s", odd.count, odd)
        for line in remark_lines(questions):
            log.info("%s: kept", line)
        log_unseen(Counter(key for question in questions for key in question.unseen))
        return questions

    def _odd(self, question: Question) -> list[str]:
        """Return what makes a question doubtful without touching its label; repeated options are real and train."""
        reasons = [remark for remark in question.remarks if remark != "repeated options"]
        if self.genres is not None and question.genre not in self.genres:
            reasons.append(f"unknown genre {question.genre!r}; {nearest(question.genre, self.genres)}")
        return reasons


def questions_in_memory(rows: Iterable[Mapping[Any, Any]], format_name: str) -> list[Question]:
    """Read rows with the columns of a format; with `question` and `options`, or by "auto", of the project's own.

    Raises: UserError naming faulty rows by their number.
    """
    faults = Faults()

    def question_of(row: dict[str, Any], place: Place) -> Question:
        is_plain = format_name == "auto" or {"question", "options"} <= row.keys()
        quiz_format = named("plain" if is_plain else format_name)
        question = quiz_format.from_memory(row, place).check(quiz_format.max_options)
        faults.claim_id(question.id, place)
        return question

    texts = named("plain" if format_name == "auto" else format_name).text_keys | named("plain").text_keys
    questions = list(faults.sound_rows(rows_in_memory(rows, texts), question_of))
    faults.refuse("mend them in the table")
    log_unseen(Counter(key for question in questions for key in question.unseen))
    return questions
