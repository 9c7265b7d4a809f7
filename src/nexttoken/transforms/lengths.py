"""The length that a prompt requests for an answer, from the length of the text that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nexttoken.errors import UserError
from nexttoken.types import INPUT, Example


@dataclass(frozen=True)
class AskLength:
    """Add the field `name` with a number of characters: the share `share` of `field`, and at least `at_least`.

    The whole text counts, before any cutting. A prompt shows the number by `{{ length[0] }}`. Raises UserError for an
    example without `field`, or with a field `name` already.
    """

    share: float = 0.2
    at_least: int = 100
    field: str = INPUT
    name: str = "length"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share}: expected a share of the characters, above 0 and at most 1")
        if self.at_least < 1:
            raise UserError(f"at_least={self.at_least}: expected at least 1 character")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [self._add_length(example) for example in examples]

    def _add_length(self, example: Example) -> Example:
        fields = example.fields
        if self.field not in fields or self.name in fields:
            fault = f"already has a field {self.name!r}" if self.name in fields else f"has no field {self.field!r}"
            raise UserError(f"row {example.id} {fault}; its fields are {', '.join(fields)}: set field= and name=")
        characters = max(self.at_least, round(self.share * sum(map(len, fields[self.field]))))
        return replace(example, fields={**fields, self.name: (str(characters),)})
