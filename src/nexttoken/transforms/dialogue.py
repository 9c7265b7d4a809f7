"""Windows of a dialogue's turns for training and prediction, and a persona before the user's first words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from nexttoken.errors import UserError
from nexttoken.types import DIALOGUE, Example

PREFIX = "persona_prefix"  # tag with the text before the user's first words


@dataclass(frozen=True)
class Windows:
    """Cut each dialogue into windows of `num_utterances` turns; each starts with the user and ends with an answer.

    Windows move by one answer; only the `first` ones are used (None: all), and none without an answer that is learnt. A
    shorter dialogue is one window. Ids become `<id>#<k>`. An example without an answer stays as it is.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts", "dialogues"})

    num_utterances: int = 2
    first: int | None = None

    def __post_init__(self) -> None:
        _check_length(self.num_utterances)
        if self.first is not None and self.first < 1:
            raise UserError(f"first={self.first}: expected at least 1 window of a dialogue, or null for all")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [window for example in examples for window in self._windows(example)]

    def _windows(self, example: Example) -> list[Example]:
        if example.answer is None:
            return [example]
        last_start = max(0, len(example.fields[DIALOGUE]) + 1 - self.num_utterances)
        windows = (_window(example, start, start + self.num_utterances) for start in range(0, last_start + 1, 2))
        return _numbered([window for window in windows if _learns_any(window)][: self.first])


@dataclass(frozen=True)
class Persona:
    """Put `prefix` before the user's first words of a dialogue, and of each window that is cut from it later.

    No space is added: end the prefix with one where the language needs it. It replaces the system message for models
    without a system role.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"dialogues"})

    prefix: str

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [self._add_prefix(example) for example in examples]

    def _add_prefix(self, example: Example) -> Example:
        opening, *further = example.fields[DIALOGUE]
        fields = {**example.fields, DIALOGUE: (self.prefix + opening, *further)}
        tags = {**example.tags, PREFIX: self.prefix + example.tags.get(PREFIX, "")}
        return replace(example, fields=fields, tags=tags)


def replies(examples: Sequence[Example], num_utterances: int) -> list[Example]:
    """Return one window per answer of the assistant, with at most `num_utterances` turns and that answer last.

    Held-out dialogues are thus predicted in the same way, whatever windows a model was trained on. Ids are `<id>#<k>`
    for the k-th answer; one that is not to be learnt is no answer to be asked for. An example without an answer gives
    only its last window, under its own id.
    """
    _check_length(num_utterances)
    return [reply for example in examples for reply in _replies(example, num_utterances)]


def _replies(example: Example, num_utterances: int) -> list[Example]:
    ends = range(2, len(example.fields[DIALOGUE]) + 2, 2)
    windows = [_window(example, max(0, end - num_utterances), end) for end in ends]
    if example.answer is None:
        return windows[-1:]
    return [window for window in _numbered(windows) if not window.learns or window.learns[-1]]


def _numbered(windows: Sequence[Example]) -> list[Example]:
    return [replace(window, id=f"{window.id}#{number}") for number, window in enumerate(windows, start=1)]


def _window(example: Example, start: int, end: int) -> Example:
    """Return the turns `start` to `end`, the last of them the answer; `start` is even, so the user begins."""
    turns = example.fields[DIALOGUE]
    answer = example.answer if end > len(turns) else turns[end - 1]
    prefix = example.tags.get(PREFIX, "") if start else ""
    fields = {**example.fields, DIALOGUE: (prefix + turns[start], *turns[start + 1 : end - 1])}
    learns = example.learns[start // 2 : end // 2]
    return replace(example, fields=fields, answer=answer, learns=() if all(learns) else learns)


def _learns_any(example: Example) -> bool:
    return not example.learns or any(example.learns)


def _check_length(num_utterances: int) -> None:
    if not isinstance(num_utterances, int) or num_utterances < 2 or num_utterances % 2:
        raise UserError(f"num_utterances={num_utterances}: expected an even number from 2, turns and their answers")
