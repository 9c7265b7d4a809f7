"""The instruction JSON of the quiz course: question and options as one text, "2: the option" as its answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import dump_json
from nexttoken.data.row_faults import Place, RowFault, text_of, texts_of
from nexttoken.tasks.quiz_formats.question import AS_WRITTEN, Question, is_unknown
from nexttoken.tasks.quiz_formats.quiz_format import JsonFormat, genre_of, text_id

SENTENCE = "クイズの正解を選択肢から一つ選び、その番号と内容を書いてください。"
CUE = "### 回答:"
QUESTION = re.compile(r"^[ \t　]*(?:#+[ \t　]*)?問題[ \t　]*[:：]", re.MULTILINE)
HEADING = re.compile(r"\n\s*選択肢\s*[:：]?\s*$")
TAIL = re.compile(r"\n\s*(?:###\s*)?(?:回答|答え)\s*[:：]\s*$")
OPTION = re.compile(r"^[ \t　]*(\d{1,2})\s*(?:[:：、)]|[.．](?!\d))[ \t　]*(.*)$")  # 0.5 is no label
OUTPUT = re.compile(r"^\s*(\d{1,2})\s*(?:(?:[:：、)]|[.．](?!\d))\s*(.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """The question in an instruction's text, its options, and the number of the first of them (0 or 1)."""

    text: str
    options: tuple[str, ...]
    first: int


class Instruction(JsonFormat):
    """One JSON array of instruction and output; id and genre are further keys.

    Any sentence may introduce the question. One that is not ours travels on, and is written again as it was. White
    space around, and line breaks within, are not safe in such a text: where it would be misread, `question` and
    `options` stand beside it.
    """

    name = "instruction"
    position = 2
    text_keys = frozenset({*AS_WRITTEN, "question", "options"})
    own_keys: ClassVar[frozenset[str]] = frozenset({*AS_WRITTEN, "id", "genre", "question", "options"})
    known_by = frozenset({"instruction"})

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        parsed = parse("\n".join([text_of(row, "instruction"), text_of(row, "input") if "input" in row else ""]))
        text, options, first = parsed.text, parsed.options, parsed.first
        if "options" in row:
            text, options = text_of(row, "question"), texts_of(row, "options")
            # Ours stand beside a text that is misread, and such a text numbers them from 0.
            first = first if tuple(option.strip() for option in options) == parsed.options else 0
        is_open = is_unknown(row.get("output"), options)
        answer = None if is_open else parse_output(text_of(row, "output"), options, first)
        question = Question(text_id(row, "id", place), text, options, answer, genre_of(row), self.extra(row), place)
        as_written = {key: row[key] for key in AS_WRITTEN if key in row}
        if as_written in [Instruction.rendered(question), InstructionInput.rendered(question)]:
            return question
        return replace(question, extra={**question.extra, **as_written})

    def row(self, question: Question) -> dict[str, Any]:
        own = self._as_written(question) or self.rendered(question)
        if _says(own) != (question.text, question.options):
            own |= {"question": question.text, "options": list(question.options)}
        return self.with_extra({**own, "id": question.id}, question, used=AS_WRITTEN)

    @staticmethod
    def rendered(question: Question) -> dict[str, str]:
        """Return the question in our own words."""
        options, output = _texts(question)
        text = f"{SENTENCE}\n\n問題: {question.text}\n選択肢\n\n{options}\n\n\n{CUE}\n"
        return {"instruction": text, **output}

    def _as_written(self, question: Question) -> dict[str, Any] | None:
        """The texts of the file that it came from, where they still say the same."""
        own = {key: question.extra[key] for key in AS_WRITTEN if key in question.extra}
        try:
            read = self.question({**own, "question": question.text, "options": list(question.options)}, question.place)
        except RowFault:
            return None
        stripped = question.text.strip(), tuple(option.strip() for option in question.options)
        return own if read.answer == question.answer and _says(own) == stripped else None

    def save(self, questions: Sequence[Question], rows: Sequence[Any], path: Path) -> None:
        with whole_file(path) as part:
            part.write_text(dump_json(rows, indent=2) + "\n", encoding="utf-8")


class InstructionInput(Instruction):
    """The other shape: the options stand in `input`."""

    name = "instruction_input"
    position = 1
    known_by = frozenset({"instruction", "input"})

    @staticmethod
    def rendered(question: Question) -> dict[str, str]:
        options, output = _texts(question)
        return {"instruction": f"{SENTENCE}\n問題: {question.text}\n", "input": f"{options}\n\n", **output}


def parse(text: str) -> Parsed:
    """Find the question after the line that begins with 問題: and the options, the last run of numbered lines.

    A run counts 0, 1, 2 … or 1, 2, 3 …; a line without the next number continues the option before it, but not after
    a blank line behind the last one. Raises RowFault where question or options are missing.
    """
    if not (start := QUESTION.search(text)):
        raise RowFault("no line 問題: in the instruction")
    lines = TAIL.sub("", text[start.end() :].rstrip()).split("\n")
    if not (run := _last_run(lines)):
        raise RowFault("no lines such as `0: option` in the instruction")
    begin, first = run[0]
    last_end = next((line for line in range(run[-1][0] + 1, len(lines)) if not lines[line].strip()), len(lines))
    ends = [*[line for line, _ in run[1:]], last_end]
    options = []
    for (line, _), end in zip(run, ends, strict=True):
        found = OPTION.match(lines[line])
        options.append("\n".join([found[2] if found else "", *lines[line + 1 : end]]))
    question = HEADING.sub("", "\n" + "\n".join(lines[:begin]).rstrip())
    return Parsed(question.strip(), tuple(option.strip() for option in options), first)


def _last_run(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return (line, number) of each option.

    1 goes on from 0 only without a text between: a question may hold a line `0: …` before options that begin at 1.
    """
    run: list[tuple[int, int]] = []
    for line, text in enumerate(lines):
        number = int(found[1]) if (found := OPTION.match(text)) else None
        follows = bool(run) and number == run[-1][1] + 1
        if follows and number == 1 and any(between.strip() for between in lines[run[-1][0] + 1 : line]):
            follows = False
        if follows and number is not None:
            run.append((line, number))
        elif number in (0, 1):
            run = [(line, number)]
    return run


def parse_output(output: str, options: Sequence[str], first: int) -> int:
    """Return the option's index from `2: option`, a bare number, or the option alone.

    Raises RowFault where number and text contradict each other, or a bare text may be meant either way.
    """
    texts = [option.strip() for option in options]
    found, bare = OUTPUT.match(output), output.strip()
    number = int(found[1]) - first if found else None
    is_number = number is not None and 0 <= number < len(texts)
    if found and found[2] and number is not None and is_number and found[2].strip() == texts[number]:
        return number
    if bare in texts:
        if is_number and texts[number or 0] != bare and found and not found[2]:
            raise RowFault(f"output {output!r} is the number of one option and the text of another")
        return texts.index(bare)
    if number is None or found is None:
        raise RowFault(f"output {output!r} is neither `number: option` nor an option")
    if not is_number:
        raise RowFault(f"output {output!r} is outside the options {first} to {first + len(texts) - 1}")
    if found[2] and found[2].strip() != texts[number]:
        raise RowFault(f"output {output!r} contradicts option {found[1]}, {texts[number]!r}")
    return number


def _says(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Return the question and options that the row's texts are read as, None where they are misread."""
    try:
        parsed = parse("\n".join([row["instruction"], row.get("input", "")]))
    except RowFault:
        return None
    return parsed.text, parsed.options


def _texts(question: Question) -> tuple[str, dict[str, str]]:
    """Return the numbered options, and the output where the answer is known."""
    answer = question.answer
    output = {} if answer is None else {"output": f"{answer}: {question.options[answer]}"}
    return "\n".join(f"{index}: {option}" for index, option in enumerate(question.options)), output


FORMATS = (InstructionInput(), Instruction())
