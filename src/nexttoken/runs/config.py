"""The configuration that a finished run answers by: its folds' own, with what lies elsewhere now put in place."""

from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, describe_differences
from nexttoken.runs.saved_search import with_input_dir, with_retriever
from nexttoken.runs.writing import Writing


def config_of(
    folds: Sequence[FoldFolder],
    input_dir: str | None,
    base: str | None,
    retriever: Mapping[str, Any] | None,
    writing: Writing,
) -> dict[str, Any]:
    """Raises UserError where the folds were trained with different settings, or a retriever has nothing to replace."""
    config = _common(folds)
    if input_dir:
        config = with_input_dir(config, input_dir)
    if writing.inference:
        config = {**config, "inference": dict(writing.inference)}
    if retriever:
        config = with_retriever(config, retriever)
    config = {**config, "generation": {**config.get("generation", {}), **writing.generation}}
    if base:
        config = {**config, "model": {**config["model"], "name_or_path": base, "revision": None}}
    return config


def _common(folds: Sequence[FoldFolder]) -> dict[str, Any]:
    config = folds[0].config()
    for other in folds[1:]:
        if differences := describe_differences(config, other.config()):
            raise UserError(
                f"{other.path} differs from {folds[0].path} ({differences}); train it with the same settings"
            )
    return config
