"""The configuration with which a finished run predicts: its folds' own, with other paths, base, retriever or more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexttoken.data.targets import find_source
from nexttoken.errors import UserError
from nexttoken.runs.blend import refuse_blend
from nexttoken.runs.folder import RETRIEVER_NODES, FoldFolder, describe_differences, differences
from nexttoken.runs.records import RETRAIN
from nexttoken.settings import PredictSettings, Settings

NOTHING = {"_target_": "nexttoken.inference.retrieval.search.Nothing"}
TRANSFORMERS = {"_target_": "nexttoken.engine.answerers.load_transformers_writer", "_partial_": True}

ASKED = ("inference", "retriever", "search", "generation")  # settings that say how a finished run is asked


@dataclass(frozen=True)
class Changes:
    """Changes to how a finished run generates open answers; `folder` is for answers of both kinds."""

    inference: Mapping[str, Any] = field(default_factory=dict)  # a `_target_` node; empty: the run's own
    generation: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    fold: int | str | None = None  # None: the first finished one; "all": the final model, of both kinds
    folder: Path | None = None  # of saved answers; None: the fold's own for texts, none for probabilities
    engine: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMERS)

    @classmethod
    def of(cls, settings: PredictSettings) -> "Changes":
        generation = {key: value for key, value in settings.generation.items() if value is not None}
        folder = Path(settings.submissions_dir) / "written"
        return cls(settings.inference, generation, settings.fold, folder, settings.engine)


def own_config(folds: Sequence[FoldFolder], input_dir: str | None) -> dict[str, Any]:
    """The folds' common configuration with the data in `input_dir`, without `train_transforms`.

    Raises UserError where the folds have different settings, or lack one.
    """
    config = folds[0].config()
    refuse_blend(config, folds[0].path.parent)
    for fold in folds[1:]:
        if others := describe_differences(config, fold.config()):
            what = f"{fold.path} differs from {folds[0].path} ({others})"
            raise UserError(f"{what}; train it with the same settings")
    config["train_transforms"] = {}
    for key, info in Settings.model_fields.items():
        is_node = info.annotation == dict[str, Any]
        if info.is_required() and (key not in config or (is_node and not isinstance(config[key], dict))):
            raise UserError(f"{folds[0].config_path} has no usable {key!r}; {RETRAIN}, or restore the file")
    if str(config.get("retriever", {}).get("_target_")).endswith(".Nothing"):  # it was defined elsewhere before
        config |= {"retriever": NOTHING, "search": {**config.get("search", {}), "retriever": NOTHING}}
    if input_dir:  # also for the files that a retriever reads there
        nodes = {key: _move(config[key], config["input_dir"], input_dir) for key in RETRIEVER_NODES if key in config}
        config |= {**nodes, "input_dir": input_dir, "task": {**config["task"], "input_dir": input_dir}}
    return config


def changed_config(
    folds: Sequence[FoldFolder],
    input_dir: str | None,
    base: str | None,
    retriever: Any,
    changes: Changes,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """The folds' common configuration with the given changes, without `train_transforms`.

    A model's own code runs only where `trust_remote_code` is given: the folder may come from a stranger.

    `retriever` is a `_target_` node or None. Raises UserError where the folds have different settings, the run has no
    use for a retriever, or the package no longer has a class that the configuration names.
    """
    config = own_config(folds, input_dir)
    saved = set(_targets(config))
    if changes.inference:
        config["inference"] = dict(changes.inference)
    if retriever:
        config = _with_retriever(config, retriever)
    config["generation"] = config.get("generation", {})
    for key in ("generation", "model"):
        if not isinstance(config[key], dict):
            raise UserError(f"{folds[0].config_path} has no usable {key!r}; {RETRAIN}, or restore the file")
    config["generation"] |= changes.generation
    config["model"] = {**config["model"], "trust_remote_code": trust_remote_code}
    if base:
        if not config["model"].get("name_or_path"):
            raise UserError(f"{folds[0].path.parent} has a model of its own, so base=... has no use; leave it out")
        config["model"] |= {"name_or_path": base, "revision": None}
    if gone := [target for target in _targets(config) if target in saved and not find_source(target)]:
        what = f"{folds[0].path.parent} was trained before the package's classes moved ({gone[0]} is gone)"
        raise UserError(f"{what}; train it again with overwrite=true")
    return config


def asked_otherwise(own: Mapping[str, Any], changed: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """The settings by which a run is asked in another way than it was scored, by dotted key."""
    one, other = ({key: config.get(key) or {} for key in ASKED} for config in (own, changed))
    asked = {key: new for key, (_, new) in differences(one, other).items()}
    if changes.engine != TRANSFORMERS:
        asked |= {f"engine.{key}": value for key, value in changes.engine.items()}
    return asked | ({} if changes.fold is None else {"fold": changes.fold})


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every key in `node` with its value, at any depth."""
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ():
        yield key, value
        yield from _items(value)


def _targets(config: Mapping[str, Any]) -> list[str]:
    """Every `_target_` of this package."""
    return [value for key, value in _items(config) if key == "_target_" and str(value).startswith("nexttoken.")]


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
    chooses = (config.get("candidates") or {}).get("number") is not None
    if not chooses and "retriever" not in (key for key, _ in _items(config["inference"])):
        name = str(config["inference"].get("_target_")).rpartition(".")[2]
        what = f"the run's inference is {name}, which does not search, so retriever=... has no use"
        raise UserError(f"{what}; leave it out, or train with inference=gated_retrieval")
    given = _move(retriever, str(None), config["input_dir"])  # ${input_dir} is None where predict.py got no input_dir

    def replaced(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        return {key: given if key == "retriever" else replaced(value) for key, value in node.items()}

    nodes = [name for name in ("search", "inference", "candidates") if name in config]
    return {**config, "retriever": given} | {name: replaced(config[name]) for name in nodes}
