"""Texts of rows for the page: hidden characters made visible, long ones cut, as many rows as a budget holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nexttoken.errors import UNSHOWN
from nexttoken.types import CONTEXT, DIALOGUE, OPTIONS, PASSAGES, Example, Swap

MAX_CHARACTERS = 1_500  # of a turn
BUDGET = 1_400_000  # bytes of a chapter's texts
ZERO_WIDTH_SPACE = "\u200b"
KINDS = {OPTIONS: "options", DIALOGUE: "dialogue", PASSAGES: "passages", CONTEXT: "passages"}


def shown_text(text: str, limit: int | None = MAX_CHARACTERS) -> str:
    """The text with marks such as ⟨U+202E⟩ for what browsers hide or obey, cut to `limit` characters; None: whole."""
    more = len(text) - limit if limit is not None else 0
    if more > 0:
        text = text[:limit]
    text = UNSHOWN.sub(_mark, text.replace("\r\n", "\n")).replace(ZERO_WIDTH_SPACE, "⟨U+200B⟩")
    return f"{text} … cut, {more:,} characters more" if more > 0 else text


def _mark(found: Any) -> str:
    return f"⟨U+{ord(found.group()):04X}⟩"


@dataclass(frozen=True)
class RowTexts:
    """Field names with the way to show them, and of each row its turns by field; None for a row without texts."""

    fields: tuple[dict[str, Any], ...]
    rows: list[list[list[str]] | None]

    @classmethod
    def of(cls, examples: Sequence[Example | None], order: Iterable[int], task: Any, every: bool) -> "RowTexts":
        """The texts of the rows, those first in `order` (places) while BUDGET lasts; `every`: all, whole."""
        names = list(dict.fromkeys(name for one in examples if one is not None for name in one.fields))
        rows: list[list[list[str]] | None] = [None] * len(examples)
        left, limit = BUDGET, None if every else MAX_CHARACTERS
        for place in order:
            example = examples[place]
            if example is None:
                continue
            texts = [[shown_text(turn, limit) for turn in example.fields.get(name, ())] for name in names]
            left -= sum(len(turn.encode()) + 4 for turns in texts for turn in turns)
            if left < 0 and not every:
                break
            rows[place] = texts
        return cls(tuple(field_of(name, task) for name in names), rows)


def field_of(name: str, task: Any) -> dict[str, Any]:
    """A field's name, its kind (text, options, dialogue, passages, side), and which side of a pair it is on."""
    swap = getattr(task, "swap", None) if "pairs" in getattr(task, "offers", ()) else None
    for side, ending in enumerate(Swap.of(task).sides if swap is not None else ()):
        if name.endswith(ending):
            return {"name": name, "kind": "side", "side": side}
    return {"name": name, "kind": KINDS.get(name, "text")}


def tags_of(examples: Sequence[Example | None]) -> Mapping[str, list[str]]:
    """The tags that tell rows apart, by name, with "" for rows without one."""
    names = dict.fromkeys(name for one in examples if one is not None for name in one.tags)
    columns = {name: [one.tags.get(name, "") if one is not None else "" for one in examples] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}
