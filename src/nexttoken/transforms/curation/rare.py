"""A step that drops rows with characters that are rare in the whole set: mostly typing errors or broken bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import Drop, Fetch, Judge, Step, Verdict, whole_text
from nexttoken.types import Example

NUM_POINTS = 0x110000
NUM_SAMPLED = 5_000  # evenly spaced rows for the estimate of the loss; a smaller set is used whole
NUM_SHOWN = 50  # rare characters in the notes
NEVER = np.iinfo(np.int64).max  # count of a character that drops no row


@dataclass(frozen=True)
class DropRareCharacters(Step):
    """Drops rows with a character that occurs at most `at_most` times in the set that reaches this step.

    In a small set most kanji are rare: counts of 19 or 9, which suit 100,000 rows, would drop nearly all rows. So the
    count is lowered until at most the share `most_rows` of the rows is lost, estimated on `NUM_SAMPLED` rows. This is
    done for usual characters, those of `encodings`, and separately for all others, with the share `most_unusual`. The
    report has the counts that were used; 0 drops nothing.
    """

    surveys = True
    at_most: int = 19
    most_rows: float = 0.01
    most_unusual: float = 0.1
    encodings: Sequence[str] = ("cp932", "shift_jis")  # JIS X 0208, Windows' additions, both wave dashes

    def __post_init__(self) -> None:
        if self.at_most < 1 or not (0 <= self.most_rows <= 1 and 0 <= self.most_unusual <= 1):
            raise UserError(
                f"DropRareCharacters: at_most={self.at_most}, most_rows={self.most_rows},"
                f" most_unusual={self.most_unusual}; expected a count of at least 1 and shares of the rows, 0 to 1"
            )
        for encoding in self.encodings:
            try:
                encodable(encoding)
            except (LookupError, UnicodeError):
                raise UserError(f"DropRareCharacters: unknown encoding {encoding!r}; write cp932 or latin-1") from None

    def survey(self, examples: Sequence[Example]) -> tuple[int, np.ndarray, np.ndarray]:
        """Return the number of rows, their code points, and the points' counts."""
        counts = np.bincount(code_points("".join(map(whole_text, examples))), minlength=1)
        points = np.flatnonzero(counts)
        return len(examples), points.astype(np.uint32), counts[points]

    def judge(self, surveys: Iterable[tuple[int, np.ndarray, np.ndarray]], fetch: Fetch) -> Judge:
        totals, num_rows = np.zeros(NUM_POINTS, dtype=np.int64), 0
        for rows, points, counts in surveys:
            totals[points] += counts
            num_rows += rows
        usual = np.any([encodable(encoding) for encoding in self.encodings], axis=0)
        sample = sample_rows(num_rows, fetch)
        rare: list[str] = []
        for kind, chosen, most in (("usual", usual, self.most_rows), ("unusual", ~usual, self.most_unusual)):
            used = self._affordable(np.where(chosen & (totals > 0), totals, NEVER), sample, most)
            self._add_note(kind, used, most, num_rows)
            rare += [chr(point) for point in np.flatnonzero(chosen & (totals > 0) & (totals <= used))]
        self.tally.notes |= {"num_characters": len(rare), "characters": "".join(rare[:NUM_SHOWN])}
        return partial(_drop_with, frozenset(rare))

    def _affordable(self, totals: np.ndarray, sample: Sequence[np.ndarray], most: float) -> int:
        """Return the largest count up to `at_most` that loses at most the share `most` of the rows."""
        rarest = np.array([totals[points].min(initial=NEVER) for points in sample])
        lost = (rarest[:, None] <= np.arange(1, self.at_most + 1)).sum(axis=0)  # rows by count, in ascending order
        return int((lost <= most * len(sample)).sum())

    def _add_note(self, kind: str, used: int, most: float, num_rows: int) -> None:
        self.tally.notes[f"at_most_{kind}"] = used
        if used < self.at_most:
            notice = (
                f"{kind} characters at most {used} times instead of {self.at_most}, for {used + 1} would cost more"
                f" than {most:.1%} of {num_rows:,} rows"
            )
            self.tally.notes["notice"] = "; ".join(filter(None, (self.tally.notes.get("notice"), notice)))


@cache
def encodable(encoding: str) -> np.ndarray:
    """Return a mask (0x110000,) of the characters of `encoding`. Raises LookupError for an unknown encoding."""
    characters = "".join(chr(point) for point in range(NUM_POINTS) if not 0xD800 <= point < 0xE000)  # no surrogates
    has = np.zeros(NUM_POINTS, dtype=bool)
    has[code_points(characters.encode(encoding, "ignore").decode(encoding, "ignore"))] = True
    return has


def sample_rows(num_rows: int, fetch: Fetch) -> list[np.ndarray]:
    """Return the distinct code points of each of NUM_SAMPLED evenly spaced rows."""
    positions = np.linspace(0, num_rows, min(num_rows, NUM_SAMPLED), endpoint=False, dtype=np.int64)
    return [np.unique(code_points(whole_text(fetch(int(position))))) for position in positions]


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _drop_with(characters: frozenset[str], position: int, example: Example) -> Verdict:
    text = whole_text(example)
    if characters.isdisjoint(text):
        return example
    found = next(character for character in text if character in characters)
    return Drop("a rare character", f"{found!r} (U+{ord(found):04X})")
