"""Data is never a special token: look-alikes such as '</s>' in a text are broken, so that they stay text."""

import re
from dataclasses import replace
from typing import Any

from nexttoken.types import Example

ZERO_WIDTH_SPACE = "\u200b"


class Disarm:
    """Breaks look-alikes of one tokenizer's special tokens with a zero-width space, in examples and demonstrations."""

    def __init__(self, tokenizer: Any) -> None:
        specials = {str(t) for t in tokenizer.all_special_tokens} | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        self.special = re.compile("|".join(map(re.escape, sorted(filter(None, specials)))) or r"(?!)")

    def __call__(self, example: Example) -> tuple[Example, int]:
        """Return the example with harmless fields and answer, and how many look-alikes they held."""
        count = 0

        def broken(match: re.Match) -> str:
            nonlocal count
            count += 1
            return match[0][0] + ZERO_WIDTH_SPACE + match[0][1:]

        fields = {
            name: tuple(self.special.sub(broken, turn) for turn in turns) for name, turns in example.fields.items()
        }
        shown = [self(demonstration) for demonstration in example.demonstrations]
        answer = None if example.answer is None else self.special.sub(broken, example.answer)
        clean = replace(example, fields=fields, answer=answer, demonstrations=tuple(one for one, _ in shown))
        return clean, count + sum(number for _, number in shown)
