"""The base of curation steps: which texts of a row they read, what they decide, and how their decisions are counted."""

from abc import ABC, abstractmethod
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
NUM_EXAMPLES = 5  # dropped rows that are shown
NUM_REASONS = 20  # the most frequent reasons that are reported
EXCERPT = 80  # characters of each side of a shown row


@dataclass(frozen=True, slots=True)
class Drop:
    """The row is left out: a reason of which few exist, and the detail of this row."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The row stays, and `note` is counted."""

    example: Example
    note: str


Verdict = Example | Kept | Drop  # the row, changed or not; the row with a note to count; the reason for dropping it
Judge = Callable[[int, Example], Verdict]  # of a row and its position in the surveyed set; can be pickled
Fetch = Callable[[int], Example]  # the row at a position of the surveyed set
Placed = tuple[int, Example]  # a row and its position in the surveyed set


@dataclass(slots=True)
class Tally:
    """Counts of one step; those of a set's parts can be added in their order."""

    kept: int = 0
    dropped: int = 0
    changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kept_with: Counter[str] = field(default_factory=Counter)  # such as rows without a mark
    examples: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # other results, such as the characters that were rare

    def clear(self) -> None:
        self.kept = self.dropped = self.changed = 0
        for counts in (self.reasons, self.kept_with, self.examples, self.notes):
            counts.clear()

    def drop(self, example: Example, why: Drop) -> None:
        self.dropped += 1
        self.reasons[why.reason] += 1
        if len(self.examples) < NUM_EXAMPLES:
            reason = f"{why.reason}: {why.detail}" if why.detail else why.reason
            self.examples.append({"id": example.id, "reason": reason, "text": excerpt(example, EXCERPT)})

    def add(self, other: "Tally") -> None:
        self.kept += other.kept
        self.dropped += other.dropped
        self.changed += other.changed
        self.reasons.update(other.reasons)
        self.kept_with.update(other.kept_with)
        self.examples.extend(other.examples[: NUM_EXAMPLES - len(self.examples)])
        self.notes.update(other.notes)

    def report(self) -> dict[str, Any]:
        """Counts, the most frequent reasons, examples {id, reason, text}; `kept_with` and `notes` if not empty."""
        report: dict[str, Any] = {"kept": self.kept, "dropped": self.dropped, "changed": self.changed}
        report |= {"reasons": dict(self.reasons.most_common(NUM_REASONS)), "examples": list(self.examples)}
        more = {"kept_with": dict(self.kept_with), "notes": dict(self.notes)}
        return report | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class Step(ABC):
    """A transform over training rows, in a list or as a stream. `report` has the last call's counts.

    A step that needs the whole set first has `surveys = True`: `survey` is called for every chunk, in any process,
    and `judge` once, with the surveys in the rows' order.
    """

    surveys: ClassVar[bool] = False
    tally: Tally = field(default_factory=Tally, init=False, repr=False, compare=False)

    def survey(self, examples: Sequence[Example]) -> Any:
        """Summary of these rows for `judge`; small, and can be pickled."""
        raise NotImplementedError(f"{type(self).__name__} surveys nothing")

    @abstractmethod
    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge: ...

    def check(self) -> None:  # noqa: B027 -- most steps have nothing to check
        """Raises UserError for what would stop the step later, such as a missing table."""

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        self.tally.clear()
        chunks = (examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK))
        judge = self.judge(map(self.survey, chunks) if self.surveys else (), examples.__getitem__)
        return [row for _, row in judge_rows(judge, enumerate(examples), self.tally)]

    def report(self) -> dict[str, Any]:
        return self.tally.report()


@dataclass(frozen=True)
class RowStep(Step):
    """A step that decides on each row alone."""

    @abstractmethod
    def look(self, example: Example) -> Verdict: ...

    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge:
        return self._look_at

    def _look_at(self, position: int, example: Example) -> Verdict:
        return self.look(example)


def judge_rows(judge: Judge, rows: Iterable[Placed], tally: Tally) -> list[Placed]:
    """Return the rows that stay; count all of them in `tally`."""
    kept = []
    for position, example in rows:
        verdict = judge(position, example)
        if isinstance(verdict, Drop):
            tally.drop(example, verdict)
            continue
        if isinstance(verdict, Kept):
            tally.kept_with[verdict.note] += 1
            verdict = verdict.example
        tally.changed += verdict is not example
        kept.append((position, verdict))
    tally.kept += len(kept)
    return kept


def require_sides(sides: Sequence[str]) -> None:
    if not sides or set(sides) - set(SIDES):
        raise UserError(f"sides={list(sides)} is not accepted: choose from {', '.join(SIDES)}")


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
    """Both sides, each text on lines of its own."""
    return "\n".join((*texts_of(example, "asked"), *texts_of(example, "answered")))


def change_texts(example: Example, change: Callable[[str], str]) -> Example:
    """Return `example` with `change` applied to every text of both sides; the same object if nothing changed."""
    fields = {name: tuple(map(change, turns)) for name, turns in example.fields.items() if name in CURATED}
    answer = None if example.answer is None else change(example.answer)
    if answer == example.answer and all(example.fields[name] == turns for name, turns in fields.items()):
        return example
    return replace(example, fields={**example.fields, **fields}, answer=answer)


def excerpt(example: Example, length: int) -> str:
    """`the question … | the answer …` on one line, each cut to `length` characters."""
    sides = (" ".join(side_text(example, side)[: 2 * length].split()) for side in SIDES)
    return " | ".join(text[:length] + ("…" if len(text) > length else "") for text in sides)
