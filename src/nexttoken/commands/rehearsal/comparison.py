"""A rehearsed submission beside that of predict.py for the visible rows: equal lines, and how far numbers differ."""

from dataclasses import dataclass
from pathlib import Path

from nexttoken.data.row_files import RowFile
from nexttoken.errors import UserError

# In other batches half precision gives other last digits, and a near tie another label.
MAX_DIFFERENCE, MAX_OTHER_TEXTS = 0.02, 0.02


@dataclass(frozen=True)
class Comparison:
    """The visible rows of two submissions: how many are equal byte for byte, and what the others differ by.

    `difference` is the largest between two numbers, `other_texts` counts the rows with another text.
    """

    num_rows: int
    equal: int
    difference: float
    other_texts: int

    def __str__(self) -> str:
        if self.equal == self.num_rows:
            return f"all {self.num_rows:,} visible rows equal those of predict.py, byte for byte"
        numbers = f"the numbers of the others differ by at most {self.difference:.1e}"
        texts = f", {self.other_texts:,} have another text" if self.other_texts else ""
        equal = f"{self.equal:,} of {self.num_rows:,} visible rows equal those of predict.py, byte for byte"
        return f"{equal}; {numbers}{texts}, since other rows stand in their batches"

    @property
    def is_same(self) -> bool:
        """True where nothing but rounding differs."""
        return self.difference <= MAX_DIFFERENCE and self.other_texts <= MAX_OTHER_TEXTS * self.num_rows


def compare(submission: Path, reference: Path) -> Comparison:
    """Compare the first rows of a submission with all of `reference`. Raises UserError for other columns or ids."""
    given = RowFile.read(reference).rows
    own = RowFile.read(submission, len(given)).rows
    equal, others, difference = 0, 0, 0.0
    for row, other in zip(own, given, strict=True):
        key = next(iter(other))
        if [*row] != [*other] or row[key] != other[key]:
            raise UserError(f"{submission} has {first_cells(row)} where predict.py writes {first_cells(other)}")
        equal += row == other
        pairs = [(row[name], other[name]) for name in other if row[name] != other[name]]
        distances = [_distance(str(one), str(two)) for one, two in pairs]
        difference = max([difference, *(one for one in distances if one is not None)])
        others += None in distances
    return Comparison(len(given), equal, difference, others)


def first_cells(row: dict) -> str:
    return ", ".join(f"{name}={str(value)[:30]}" for name, value in [*row.items()][:2])


def _distance(one: str, two: str) -> float | None:
    """The distance of two numbers; None of two texts."""
    try:
        return abs(float(one) - float(two))
    except ValueError:
        return None
