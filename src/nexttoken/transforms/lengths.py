"""How long an answer is asked to be, by the length of the text that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nexttoken.errors import UserError
from nexttoken.types import INPUT, Example


@dataclass(frozen=True)
class AskLength:
    """Add the field `name` with a number of characters: `share` of those of `field`, and never under `at_least`.

    It counts the row's whole text, whatever is cut from it later. A prompt writes it as `{{ length[0] }}`. Raises
    UserError for a row without the field, and where the name is taken.
    """

    share: float = 0.2
    at_least: int = 100
    field: str = INPUT
    name: str = "length"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share}: expected a part of the text's characters, above 0 and at most 1")
        if self.at_least < 1:
            raise UserError(f"at_least={self.at_least}: expected 1 character or more")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [self._asked(example) for example in examples]

    def _asked(self, example: Example) -> Example:
        fields = example.fields
        if self.field not in fields or self.name in fields:
            fault = f"already has a field {self.name!r}" if self.name in fields else f"has no field {self.field!r}"
            raise UserError(
                f"row {example.id} {fault}; its fields are {', '.join(fields)}: choose field=, name= by them"
            )
        characters = max(self.at_least, round(self.share * sum(map(len, fields[self.field]))))
        return replace(example, fields={**fields, self.name: (str(characters),)})
