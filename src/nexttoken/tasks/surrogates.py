"""Lone surrogates, halves of a character that no tokenizer takes, replaced in examples and counted."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from nexttoken.data.text_files import SURROGATE
from nexttoken.types import Example

log = logging.getLogger(__name__)


def replace_surrogates(example: Example) -> tuple[Example, int]:
    """Return the example with U+FFFD for each lone surrogate, and how many there were."""
    turns = [turn for turns in example.fields.values() for turn in turns]
    text = "".join([*turns, example.answer or "", *example.tags.values()])
    try:
        text.encode()  # several times faster than a search, and every text of a gigabyte is checked
        return example, 0
    except UnicodeEncodeError:
        count = len(SURROGATE.findall(text))
    return replace(
        example,
        fields={name: tuple(map(replaced, turns)) for name, turns in example.fields.items()},
        tags={name: replaced(text) for name, text in example.tags.items()},
        answer=None if example.answer is None else replaced(example.answer),
    ), count


def without_surrogates(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with U+FFFD for each lone surrogate; their number is logged."""
    cleaned = [replace_surrogates(example) for example in examples]
    log_surrogates(sum(count for _, count in cleaned))
    return [example for example, _ in cleaned]


def log_surrogates(count: int) -> None:
    if count:
        log.info("%d lone surrogates (halves of a character) became U+FFFD", count)


def replaced(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)
