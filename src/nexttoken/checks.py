"""A configuration checked in one place, before anything heavy is imported: keys, values, targets, combinations."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from nexttoken.combinations import refuse_impossible
from nexttoken.errors import UserError, nearest
from nexttoken.settings import Checked, Settings

S = TypeVar("S", bound=Checked)

ALLOWED_TARGETS = ("nexttoken.", "lightning.pytorch.loggers.")


def check_settings(kind: type[S], config: dict[str, Any]) -> S:
    """Return `config` as checked settings; raise UserError naming the first wrong key, its nearest name and the fix."""
    settings = validated(kind, config)
    _check_targets(config, path="")
    folds = settings.split.get("num_folds") if isinstance(settings, Settings) else None
    if folds is not None and not isinstance(folds, int):
        raise UserError(f"split.num_folds={folds!r} is not accepted: expected a whole number")
    if isinstance(settings, Settings) and folds is not None and settings.fold >= folds:
        raise UserError(f"fold={settings.fold} does not exist: split.num_folds={folds}, so folds are 0 to {folds - 1}")
    if isinstance(settings, Settings):
        refuse_impossible(settings)
    return settings


def validated(kind: type[S], values: Mapping[str, Any]) -> S:
    """Return `values` as a frozen `kind`. Raises UserError for the first wrong key or value, in one line."""
    try:
        return kind.model_validate(values)
    except PydanticError as error:
        raise UserError(_explain(kind, error)) from None


def _explain(kind: type[BaseModel], error: PydanticError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        for part in path[:-1]:
            kind = _model_of(kind.model_fields[part].annotation)
        return f"unknown key {key!r}; {nearest(path[-1], kind.model_fields)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing; was this configuration written by another version, or edited?"
    return f"{key}={first['input']!r} is not accepted: {first['msg'][0].lower()}{first['msg'][1:]}"


def _model_of(annotation: Any) -> type[BaseModel]:
    """The settings class in an annotation such as `AdapterSettings | None`."""
    return next((choice for choice in get_args(annotation) if isinstance(choice, type)), annotation)


def _check_targets(node: Any, path: str) -> None:
    """Refuse a `_target_` outside this project: instantiating a config must never run arbitrary code."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None and not str(target).startswith(ALLOWED_TARGETS):
        allowed = ", ".join(prefix + "*" for prefix in ALLOWED_TARGETS)
        raise UserError(f"{path}._target_={target!r} is refused: a config may only build {allowed}")
    for key, value in node.items():
        _check_targets(value, f"{path}.{key}".lstrip("."))
