"""A step of the curation: the same code judges rows of a list and rows of a stream, and counts what it did."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from nexttoken.transforms.curation.counted import EXCERPT, Drop, Kept, Tally
from nexttoken.transforms.curation.texts import excerpt
from nexttoken.types import Example

CHUNK = 1_000  # rows that are surveyed or judged at once
Fetch = Callable[[int], Example]  # the row at a position of the surveyed set


Verdict = Example | Kept | Drop  # the row, changed or not; the row and what is counted of it; why it is dropped


class Judge(Protocol):
    """Decides on one row, by its position in the surveyed set where that matters. Can be pickled."""

    def __call__(self, position: int, example: Example) -> Verdict: ...


@dataclass(frozen=True)
class Step(ABC):
    """A transform over training rows. The last call's counts are its `report`; it holds no rows.

    A step that has to see the whole set first has `surveys = True`: `survey` is called for every chunk, in any process,
    and `judge` once, with what that returned in the rows' order.
    """

    surveys: ClassVar[bool] = False
    tally: Tally = field(default_factory=Tally, init=False, repr=False, compare=False)

    def survey(self, examples: Sequence[Example]) -> Any:
        """What the step needs to know of these rows; small, and can be pickled."""
        raise NotImplementedError(f"{type(self).__name__} surveys nothing")

    @abstractmethod
    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge: ...

    def check(self) -> None:  # noqa: B027 -- most steps have nothing to check
        """Raises UserError for what would stop the step later, such as a table that is not there."""

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        self.tally.clear()
        chunks = (examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK))
        judge = self.judge(map(self.survey, chunks) if self.surveys else (), examples.__getitem__)
        return [row for _, row in judge_rows(judge, enumerate(examples), self.tally)]

    def report(self) -> dict[str, Any]:
        return self.tally.report()


@dataclass(frozen=True)
class RowStep(Step):
    """A step that needs to know one row only."""

    @abstractmethod
    def look(self, example: Example) -> Verdict: ...

    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge:
        return Look(self)


@dataclass(frozen=True)
class Look:
    """The judge of a step that does not mind where a row stands."""

    step: RowStep

    def __call__(self, position: int, example: Example) -> Verdict:
        return self.step.look(example)


Placed = tuple[int, Example]  # a row and its position in the surveyed set


def judge_rows(judge: Judge, rows: Iterable[Placed], tally: Tally) -> list[Placed]:
    """Return the rows that are kept, counted in `tally`."""
    kept = []
    for position, example in rows:
        verdict = judge(position, example)
        if isinstance(verdict, Drop):
            tally.drop(example.id, excerpt(example, EXCERPT), verdict)
            continue
        if isinstance(verdict, Kept):
            tally.kept_with[verdict.note] += 1
            verdict = verdict.example
        tally.changed += verdict is not example
        kept.append((position, verdict))
    tally.kept += len(kept)
    return kept
