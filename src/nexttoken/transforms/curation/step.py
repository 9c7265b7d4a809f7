"""The base of curation steps: the texts of a row, the decisions about it, and their counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from nexttoken.errors import UserError
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

Side = Literal["asked", "answered"]
SIDES: tuple[Side, ...] = ("asked", "answered")
CURATED = (INSTRUCTION, INPUT, DIALOGUE)  # other fields, such as a rubric, are left alone
CHUNK = 1_000  # rows that are surveyed or judged at once
NUM_EXAMPLES = 3  # dropped rows of a reason, in a report: a bad word shows in them
NUM_REASONS = 20  # the most frequent ones, in a report
EXCERPT = 80  # characters of question and answer of a row in a report


@dataclass(frozen=True, slots=True)
class Drop:
    """A row is dropped: one of a few reasons, and the detail of this row."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A row is kept, and `note` is counted."""

    example: Example
    note: str


Verdict = Example | Kept | Drop  # the row, changed or not; the row and a note; the reason to drop it
Judge = Callable[[int, Example], Verdict]  # of a row and its position in the surveyed set; can be pickled
Fetch = Callable[[int], Example]  # the row at a position of the surveyed set
Placed = tuple[int, Example]  # a row and its position in the surveyed set


@dataclass(slots=True)
class Tally:
    """Counts of one step; the counts of consecutive chunks can be added."""

    rows: Counter[str] = field(default_factory=Counter)  # kept, dropped, changed
    reasons: Counter[str] = field(default_factory=Counter)
    kept_with: Counter[str] = field(default_factory=Counter)  # such as rows without a mark
    notes: dict[str, Any] = field(default_factory=dict)  # other results, such as the rare characters
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # by reason

    def clear(self) -> None:
        for counts in (self.rows, self.reasons, self.kept_with, self.notes, self.examples):
            counts.clear()

    def drop(self, example: Example, why: Drop) -> None:
        self.rows["dropped"] += 1
        self.reasons[why.reason] += 1
        if len(examples := self.examples.setdefault(why.reason, [])) < NUM_EXAMPLES:
            reason = f"{why.reason}: {why.detail}" if why.detail else why.reason
            examples.append({"id": example.id, "reason": reason, "text": excerpt(example)})

    def add(self, other: "Tally") -> None:
        self.rows.update(other.rows)
        self.reasons.update(other.reasons)
        self.kept_with.update(other.kept_with)
        self.notes.update(other.notes)
        for reason, examples in other.examples.items():
            self.examples[reason] = [*self.examples.get(reason, ()), *examples][:NUM_EXAMPLES]

    def report(self) -> dict[str, Any]:
        """Counts, the most frequent reasons, examples {id, reason, text} of each; `kept_with` and `notes` if any."""
        report: dict[str, Any] = {name: self.rows[name] for name in ("kept", "dropped", "changed")}
        reasons = dict(self.reasons.most_common(NUM_REASONS))
        report |= {"reasons": reasons, "examples": [one for reason in reasons for one in self.examples[reason]]}
        more = {"kept_with": dict(self.kept_with), "notes": dict(self.notes)}
        return report | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class Step:
    """A transform of training rows, in a list or as a stream. `report` returns the last call's counts.

    A step that decides on each row alone implements `look`. A step that needs the whole set first has `surveys = True`
    and implements `survey`, which is called for every chunk, in any process, and `judge`, which is called once, with
    the surveys in the rows' order.
    """

    surveys: ClassVar[bool] = False
    tally: Tally = field(default_factory=Tally, init=False, repr=False, compare=False)

    def survey(self, examples: Sequence[Example]) -> Any:
        """Summarise these rows for `judge`; the summary is small and can be pickled."""
        raise NotImplementedError

    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge:
        return lambda _, example: self.look(example)

    def look(self, example: Example) -> Verdict:
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for what would stop the step later, such as a missing table."""

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        self.tally.clear()
        chunks = (examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK))
        judge = self.judge(map(self.survey, chunks) if self.surveys else (), examples.__getitem__)
        return [row for _, row in judge_rows(judge, enumerate(examples), self.tally)]

    def report(self) -> dict[str, Any]:
        return self.tally.report()


def judge_rows(judge: Judge, rows: Iterable[Placed], tally: Tally) -> list[Placed]:
    """Return the rows that are kept; count all rows in `tally`."""
    kept = []
    for position, example in rows:
        verdict = judge(position, example)
        if isinstance(verdict, Drop):
            tally.drop(example, verdict)
            continue
        if isinstance(verdict, Kept):
            tally.kept_with[verdict.note] += 1
            verdict = verdict.example
        tally.rows["changed"] += verdict is not example
        kept.append((position, verdict))
    tally.rows["kept"] += len(kept)
    return kept


def require_sides(sides: Sequence[str]) -> None:
    if not sides or set(sides) - set(SIDES):
        raise UserError(f"sides={list(sides)}: choose from {', '.join(SIDES)}")


def texts_of(example: Example, side: Side) -> tuple[str, ...]:
    """Non-empty texts of one side: the instruction, its input and the user's turns, or the assistant's turns."""
    turns = example.fields.get(DIALOGUE, ())
    if side == "asked":
        texts = (*example.fields.get(INSTRUCTION, ()), *example.fields.get(INPUT, ()), *turns[0::2])
    else:
        texts = (*turns[1::2], *(() if example.answer is None else (example.answer,)))
    return tuple(text for text in texts if text)


def side_text(example: Example, side: Side) -> str:
    return "\n".join(texts_of(example, side))


def whole_text(example: Example) -> str:
    """All texts of the row, each on lines of its own."""
    return "\n".join(text for side in SIDES for text in texts_of(example, side))


def change_texts(example: Example, change: Callable[[str], str]) -> Example:
    """Apply `change` to every text of `example`; return the same object if nothing changed."""
    fields = {name: tuple(map(change, turns)) for name, turns in example.fields.items() if name in CURATED}
    answer = None if example.answer is None else change(example.answer)
    if answer == example.answer and all(example.fields[name] == turns for name, turns in fields.items()):
        return example
    return replace(example, fields={**example.fields, **fields}, answer=answer)


def excerpt(example: Example) -> str:
    """Return `the question … | the answer …` on one line, each cut to EXCERPT characters."""
    texts = (" ".join(side_text(example, side)[: 2 * EXCERPT].split()) for side in SIDES)
    return " | ".join(text[:EXCERPT] + ("…" if len(text) > EXCERPT else "") for text in texts)
