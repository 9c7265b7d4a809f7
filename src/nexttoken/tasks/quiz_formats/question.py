"""A question as every quiz format holds it: its options, the right one, and its place in the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nexttoken.data.row_faults import UNFIT_ID, Place, RowFault
from nexttoken.errors import first_five
from nexttoken.tasks.row_keys import contexts_of, unseen_keys

AS_WRITTEN = ("instruction", "input", "output")  # further keys that say the question again, as its file has it
MIN_OPTIONS, MAX_OPTIONS = 2, 200
LETTERS = "ABCDEFGHIJKLMNOPQRST"  # as many as the largest file's candidates


@dataclass(frozen=True, slots=True)
class Question:
    """One question; equal to another where all but the place is equal.

    `answer` indexes `options`, None where it is unknown. `extra` is whatever else the row holds, by key, so that
    writing it in its own format loses nothing.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: int | None = None
    genre: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: Place = field(default=Place(), compare=False)

    def check(self, max_options: int = MAX_OPTIONS) -> "Question":
        """Return the question itself. Raises RowFault for an id that no submission can hold, or impossible options."""
        if not self.id.strip() or UNFIT_ID.search(self.id):
            raise RowFault(f"id {self.id[:40]!r}, expected one line of text without lone surrogates")
        if len(self.options) < MIN_OPTIONS:
            raise RowFault(f"{len(self.options)} options, at least {MIN_OPTIONS} are needed")
        if len(self.options) > max_options:
            raise RowFault(f"{len(self.options)} options, at most {max_options} are allowed")
        if self.answer is not None and not 0 <= self.answer < len(self.options):
            raise RowFault(f"answer {self.answer} is outside the options 0 to {len(self.options) - 1}")
        return self

    @property
    def remarks(self) -> tuple[str, ...]:
        """Reasons to look at the question, though its label is sure."""
        texts = [option.strip() for option in self.options]
        kinds = {
            "an empty question": not self.text.strip(),
            "an empty option": "" in texts,
            "repeated options": len(set(self.options)) < len(self.options),
        }
        return tuple(kind for kind, is_so in kinds.items() if is_so)

    @property
    def context(self) -> tuple[str, ...]:
        """Texts to answer from that stand beside the question."""
        return tuple(text for texts in contexts_of(self.extra).values() for text in texts)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Further keys that the model does not see."""
        return unseen_keys(self.extra, {*AS_WRITTEN, *contexts_of(self.extra)})

    @property
    def name(self) -> str:
        """Its name in an error: the place, or the id of a question that was not read from rows."""
        return str(self.place) if self.place.row else f"id {self.id}"


def remark_lines(questions: Sequence[Question]) -> list[str]:
    """Return one line per kind of remark: how many questions, and the first five places."""
    places: dict[str, list[str]] = {}
    for question in questions:
        for kind in question.remarks:
            places.setdefault(kind, []).append(question.name)
    return [f"{len(names):,} questions have {kind}: {first_five(names)}" for kind, names in sorted(places.items())]


def is_unknown(answer: Any, options: Sequence[str] = ()) -> bool:
    """Return whether an answer is not published: absent, empty or -1, which is no answer unless it is an option."""
    return answer in (None, "", -1) or (answer in ("-1", "-1.0") and answer not in options)


def letter_index(cell: str, num_options: int) -> int | None:
    """0 for A and so on, None for an unknown answer. Raises RowFault for anything but one of the options' letters."""
    letter = cell.strip().upper()
    if is_unknown(letter):
        return None
    if letter not in [*LETTERS[:num_options]]:
        raise RowFault(f"answer {cell!r} is outside the options A to {LETTERS[:num_options][-1:]}")
    return LETTERS.index(letter)
