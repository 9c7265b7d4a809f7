"""The check of a configuration against the keys and types of `settings`, with the first mistake in one line."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from nexttoken.errors import UserError, nearest
from nexttoken.settings import Checked, Settings

S = TypeVar("S", bound=Checked)


def check_settings(kind: type[S], config: dict[str, Any]) -> S:
    """Return `config` as checked settings. Raises UserError with the first wrong key or value and the fix."""
    settings = validated(kind, config)
    if isinstance(settings, Settings) and (folds := settings.split.get("num_folds")) is not None:
        if not isinstance(folds, int):
            raise UserError(f"split.num_folds={folds!r} is not accepted: expected a whole number")
        if isinstance(settings.fold, int) and settings.fold > (last := folds - 1):
            raise UserError(f"fold={settings.fold} does not exist: split.num_folds={folds}, so folds are 0 to {last}")
    return settings


def validated(kind: type[S], values: Mapping[str, Any]) -> S:
    """Return `values` as a frozen `kind`. Raises UserError for the first wrong key or value, in one line."""
    _refuse_switches(kind, values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(kind, error)) from None


def _refuse_switches(kind: type[BaseModel], values: Mapping[str, Any], path: str = "") -> None:
    """Raise UserError for true or false where a number is expected: pydantic takes them as 1 and 0."""
    for name, value in values.items():
        if name not in kind.model_fields:
            continue
        expected = str(annotation := kind.model_fields[name].annotation)  # such as `int | None`
        takes_others = re.search(r"\b(bool|str)\b", expected)  # a fold is a number or all: it has its own check
        if isinstance(value, bool) and re.search(r"\b(int|float)\b", expected) and not takes_others:
            raise UserError(f"{path}{name}={str(value).lower()} is not accepted: expected a number")
        for choice in (annotation, *get_args(annotation)):
            if isinstance(value, Mapping) and isinstance(choice, type) and issubclass(choice, BaseModel):
                _refuse_switches(choice, value, f"{path}{name}.")


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(path := [str(part) for part in first["loc"]])
    if first["type"] == "extra_forbidden":
        for part in path[:-1]:
            annotation: Any = kind.model_fields[part].annotation  # such as `AdapterSettings | None`
            kind = next((choice for choice in get_args(annotation) if isinstance(choice, type)), annotation)
        return f"unknown key {key!r}; {nearest(path[-1], kind.model_fields)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing; was this configuration written by another version, or edited?"
    if key == "trainer.strategy" and str(first["input"]).startswith("deepspeed"):
        reason = "DeepSpeed fixes the number of batches in a step, which varies here"
        return f"{key}={first['input']} is not accepted: {reason}; use fsdp, which shards as ZeRO-3 does"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    return f"{key}={first['input']!r} is not accepted: {first['msg'][0].lower()}{first['msg'][1:]}"
