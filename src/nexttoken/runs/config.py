"""The configuration with which a finished run predicts: its folds' own, with other paths, base or retriever."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.identity import RETRIEVER_NODES, describe_differences
from nexttoken.runs.writing import Writing


def config_of(
    folds: Sequence[FoldFolder],
    input_dir: str | None,
    base: str | None,
    retriever: Mapping[str, Any] | None,
    writing: Writing,
) -> dict[str, Any]:
    """The folds' common configuration with the given changes, without `train_transforms`.

    Raises UserError where the folds have different settings, the run has no use for a retriever, or the package no
    longer has a class that the configuration names.
    """
    config = _common(folds) | {"train_transforms": {}}
    saved = set(_targets(config))
    if input_dir:
        config = _with_input_dir(config, input_dir)
    if writing.inference:
        config = {**config, "inference": dict(writing.inference)}
    if retriever:
        config = _with_retriever(config, retriever)
    config = {**config, "generation": {**config.get("generation", {}), **writing.generation}}
    if base:
        config = {**config, "model": {**config["model"], "name_or_path": base, "revision": None}}
    if gone := [target for target in _targets(config) if target in saved and not _exists(target)]:
        raise UserError(
            f"{folds[0].path.parent} was trained before the package's classes moved ({gone[0]} is gone); train it again"
            " with overwrite=true"
        )
    return config


def _common(folds: Sequence[FoldFolder]) -> dict[str, Any]:
    config = folds[0].config()
    for other in folds[1:]:
        if differences := describe_differences(config, other.config()):
            raise UserError(
                f"{other.path} differs from {folds[0].path} ({differences}); train it with the same settings"
            )
    return config


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` of this package in `node`."""
    if isinstance(node, Mapping) and str(node.get("_target_", "")).startswith("nexttoken."):
        yield node["_target_"]
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _targets(child)


def _exists(target: str) -> bool:
    """Whether the module of `target` has its name, read from the source: importing some modules imports torch."""
    module, _, name = target.rpartition(".")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of a package above it
        return False
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _with_input_dir(config: dict[str, Any], input_dir: str) -> dict[str, Any]:
    """The configuration with the data in another folder, and with it the files that a retriever reads there."""
    nodes = {name: _move(config[name], config["input_dir"], input_dir) for name in RETRIEVER_NODES if name in config}
    return {**config, **nodes, "input_dir": input_dir, "task": {**config["task"], "input_dir": input_dir}}


def _move(node: Any, old: str, new: str) -> Any:
    """`node` with every path at or under the folder `old` put under `new`."""
    if isinstance(node, Mapping):
        return {key: _move(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_move(value, old, new) for value in node]
    start = old.rstrip("/")
    if not isinstance(node, str) or not f"{node}/".startswith(f"{start}/"):
        return node
    return str(Path(new, node[len(start) :].lstrip("/")))


def _with_retriever(config: dict[str, Any], retriever: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `retriever` in the place of each one it has. Raises UserError for a run without search."""
    if not _searches(config["inference"]):
        name = str(config["inference"].get("_target_")).rpartition(".")[2]
        raise UserError(
            f"the run's inference is {name}, which does not search, so retriever=... has no use; leave it out,"
            " or train with inference=gated_retrieval"
        )
    own = _move(retriever, str(None), config["input_dir"])  # ${input_dir} of a choice, where none was given
    return {**config, "retriever": own} | {name: _replace(config[name], own) for name in ("search", "inference")}


def _searches(node: Any) -> bool:
    return isinstance(node, Mapping) and ("retriever" in node or any(map(_searches, node.values())))


def _replace(node: Any, retriever: Mapping[str, Any]) -> Any:
    """`node` with `retriever` as the value of each key of that name."""
    if not isinstance(node, Mapping):
        return node
    return {key: retriever if key == "retriever" else _replace(value, retriever) for key, value in node.items()}
