"""Arguments of a command as a pydantic class: each key with its type, checked before anything is read."""

from collections.abc import Sequence
from typing import Any, Self

from nexttoken.checks import validated
from nexttoken.errors import UserError, nearest
from nexttoken.settings import Checked


class Arguments(Checked):
    """The arguments of a command: a field for each key. A field `paths` takes the arguments that have no `=`."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises UserError for an unknown, missing, repeated or unacceptable argument, in one line."""
        values: dict[str, Any] = {}
        for argument in arguments:
            key, sign, value = argument.partition("=")
            if not sign and "paths" in cls.model_fields:
                values.setdefault("paths", []).append(argument)
                continue
            if not sign or key not in cls.model_fields:
                raise UserError(f"unknown argument {argument!r}, expected key=value; {nearest(key, cls.model_fields)}")
            if key in values:
                raise UserError(f"argument {key}= is given twice; give it once")
            if not value:
                raise UserError(f"argument {argument!r} has no value; write {key}=..., or leave it out")
            values[key] = value
        missing = [name for name, info in cls.model_fields.items() if info.is_required() and name not in values]
        if missing:
            what = "a path is missing" if missing[0] == "paths" else f"{missing[0]}= is missing"
            raise UserError(f"{what}; --help shows how the command is called")
        return validated(cls, values)
