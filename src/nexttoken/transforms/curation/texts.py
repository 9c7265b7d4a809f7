"""The texts of a row that curation looks at: what is asked, and what is answered."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

Side = Literal["asked", "answered"]
SIDES: tuple[Side, ...] = ("asked", "answered")
CURATED = (INSTRUCTION, INPUT, DIALOGUE)  # other fields, such as a rubric, are left alone


def texts_of(example: Example, side: Side) -> tuple[str, ...]:
    """Texts of one side that hold anything: the instruction, its input and the user's turns, or the assistant's."""
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
    """Return `example` with `change` done to every text of both sides; itself where that changes nothing."""
    fields = {name: tuple(map(change, turns)) for name, turns in example.fields.items() if name in CURATED}
    answer = None if example.answer is None else change(example.answer)
    if answer == example.answer and all(example.fields[name] == turns for name, turns in fields.items()):
        return example
    return replace(example, fields={**example.fields, **fields}, answer=answer)


def excerpt(example: Example, length: int) -> str:
    """`the question … | the answer …` on one line, each cut to `length` characters."""
    sides = (" ".join(side_text(example, side)[: 2 * length].split()) for side in SIDES)
    return " | ".join(text[:length] + ("…" if len(text) > length else "") for text in sides)
