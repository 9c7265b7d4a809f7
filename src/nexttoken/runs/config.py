"""The configuration with which a finished run predicts: its folds' own, with other paths, base, retriever or more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nexttoken.data.targets import find_source
from nexttoken.errors import UserError
from nexttoken.runs.blend import refuse_blend
from nexttoken.runs.folder import RETRIEVER_NODES, FoldFolder, RunFolder, describe_differences, differences
from nexttoken.runs.records import RETRAIN
from nexttoken.settings import AUTO, PredictSettings, Settings

NOTHING = {"_target_": "nexttoken.inference.retrieval.search.Nothing"}
TRANSFORMERS = {"_target_": "nexttoken.engine.answerers.load_transformers_writer", "_partial_": True}

SCORED = ("inference", "correction", "retriever", "search", "max_tokens")  # settings of asking that change a score
ASKED = (*SCORED, "generation")  # settings that say how a finished run is asked


@dataclass(frozen=True)
class Changes:
    """Changes to how a finished run is asked; `generation` and `engine` are for open answers."""

    inference: Mapping[str, Any] = field(default_factory=dict)  # a `_target_` node; empty: the run's own
    correction: Mapping[str, Any] | None = None  # None: the run's own; {}: none
    retriever: Mapping[str, Any] = field(default_factory=dict)  # as for inference
    search: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    max_tokens: int | None = None  # None: the run's own
    generation: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    fold: int | str | None = None  # None: the first finished one; "all": the final model, of both kinds
    folder: Path | None = None  # of saved answers; None: the fold's own for texts, none for probabilities
    engine: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMERS)
    stream_layers: bool = field(default=False, compare=False)  # answers are the same

    @classmethod
    def of(cls, settings: PredictSettings) -> "Changes":
        search = {key: value for key, value in _given(settings.search).items() if key not in ("_target_", "retriever")}
        return cls(
            settings.inference,
            settings.correction,
            settings.retriever,
            search,
            settings.max_tokens,
            _given(settings.generation),
            settings.fold,
            None if settings.shard_rows else Path(settings.submissions_dir) / "written",
            settings.engine,
            settings.stream_layers,
        )

    @property
    def generates(self) -> bool:
        """True where a setting of open answers is given."""
        return bool(self.generation) or self.engine != TRANSFORMERS

    @property
    def search_keys(self) -> list[str]:
        """The given settings of a search, as the command line has them."""
        return ["retriever"] * bool(self.retriever) + [f"search.{key}" for key in self.search]


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
        kind: type = {dict[str, Any]: dict, str: str}.get(info.annotation, object)  # type: ignore[call-overload]
        if info.is_required() and (key not in config or not isinstance(config[key], kind)):
            raise UserError(f"{folds[0].config_path} has no usable {key!r}; {RETRAIN}, or restore the file")
    if str(config.get("retriever", {}).get("_target_")).endswith(".Nothing"):  # it was defined elsewhere before
        config |= {"retriever": NOTHING, "search": {**config.get("search", {}), "retriever": NOTHING}}
    if input_dir:  # also for the files that a retriever reads there
        nodes = {key: moved(config[key], config["input_dir"], input_dir) for key in RETRIEVER_NODES if key in config}
        config |= {**nodes, "input_dir": input_dir, "task": {**config["task"], "input_dir": input_dir}}
    return config


def changed_config(
    folds: Sequence[FoldFolder],
    input_dir: str | None,
    base: str | None,
    changes: Changes,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """The folds' common configuration with the given changes, without `train_transforms`.

    A model's own code runs only where `trust_remote_code` is given: the folder may come from a stranger.

    Raises UserError where the folds have different settings, the run has no use for a retriever, or the package no
    longer has a class that the configuration names.
    """
    config = own_config(folds, input_dir)
    saved = set(_targets(config))
    config = _with_inference(config, changes)
    config |= {} if changes.correction is None else {"correction": dict(changes.correction)}
    config |= {"max_tokens": changes.max_tokens} if changes.max_tokens else {}
    config["generation"] = config.get("generation", {})
    for key in ("generation", "model"):
        if not isinstance(config[key], dict):
            raise UserError(f"{folds[0].config_path} has no usable {key!r}; {RETRAIN}, or restore the file")
    config["generation"] |= changes.generation
    config["model"] = {**config["model"], "trust_remote_code": trust_remote_code}
    config["model"] |= {"stream_layers": True} if changes.stream_layers else {}
    if base and (named := base_of(base, config["model"].get("name_or_path"), folds[0].path.parent)):
        config["model"] |= {"name_or_path": named, "revision": None}
    if gone := [target for target in _targets(config) if target in saved and not find_source(target)]:
        what = f"{folds[0].path.parent} was trained before the package's classes moved ({gone[0]} is gone)"
        raise UserError(f"{what}; train it again with overwrite=true")
    return config


def base_of(base: str, name: str | None, run: Path) -> str | None:
    """`base`, or in a folder of several bases, one folder each, that of the model `name`; None where it has no use.

    Raises UserError for one base and a run with a model of its own.
    """
    folder = Path(base).expanduser()
    if not (folder / "config.json").exists() and any(folder.glob("*/config.json")):
        return str(folder / Path(name).name) if name else None
    if not name:
        raise UserError(f"{run} has a model of its own, so base=... has no use; leave it out")
    return base


def asked_otherwise(own: Mapping[str, Any], changed: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """The settings by which a run is asked in another way than it was scored, by dotted key.

    Paths in the data's folder begin with `input_dir`, so that the way is the same wherever the data lies.
    """
    one, other = (
        {key: moved(config.get(key) or {}, config.get("input_dir", ""), "input_dir") for key in ASKED}
        for config in (own, changed)
    )
    asked = {key: new for key, (_, new) in differences(one, other).items()}
    if changes.engine != TRANSFORMERS:
        asked |= {f"engine.{key}": value for key, value in changes.engine.items()}
    return asked | ({} if changes.fold is None else {"fold": changes.fold})


def asked_config(own: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A fold's own configuration with the way in which `settings` ask it, and its own paths."""
    asked = {key: value for key, value in settings.model_dump().items() if key in SCORED}
    if settings.max_tokens == AUTO:
        del asked["max_tokens"]
    return {**own, **moved(asked, settings.input_dir, own["input_dir"])}


def run_and_changes(folder: RunFolder, changes: Changes) -> tuple[RunFolder, Changes]:
    """The run that answers, and the changes that ask it as `folder` says, which may hold its answers in another way.

    Raises UserError for further changes to such a way.
    """
    run = folder.asked_of
    if run is None:
        return folder, changes
    if changes != Changes(folder=changes.folder, fold=changes.fold, engine=changes.engine):
        what = f"{folder.path} is {run.path} asked in a way of its own"
        raise UserError(f"{what}; leave other settings of asking out, or give run={run.path}")
    own, asked = (one.finished_folds()[0].config() for one in (run, folder))
    return run, replace(changes, **{key: asked[key] for key in SCORED if own.get(key) != asked.get(key)})


def searches(config: Mapping[str, Any]) -> bool:
    """True where the inference searches for passages or demonstrations, or a retriever chooses the candidates."""
    chooses = (config.get("candidates") or {}).get("number") is not None
    return chooses or "retriever" in (key for key, _ in _items(config["inference"]))


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every key in `node` with its value, at any depth."""
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ():
        yield key, value
        yield from _items(value)


def _targets(config: Mapping[str, Any]) -> list[str]:
    """Every `_target_` of this package."""
    return [value for key, value in _items(config) if key == "_target_" and str(value).startswith("nexttoken.")]


def moved(node: Any, old: str, new: str) -> Any:
    """`node` with every path at or under the folder `old` put under `new`."""
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [moved(value, old, new) for value in node]
    start = old.rstrip("/")
    if not start or not isinstance(node, str) or not f"{node}/".startswith(f"{start}/"):
        return node
    return str(Path(new, node[len(start) :].lstrip("/")))


def _with_inference(config: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """The configuration with the given inference, and the given search in each place that has one.

    What a given inference leaves open of its search is the run's own. Raises UserError for an unused setting of it.
    """
    if not changes.inference and not changes.search_keys:
        return config
    here, own = config["input_dir"], config["search"]  # ${input_dir} is None where the command line has no input_dir
    given = moved(changes.retriever, str(None), here)
    config = {**config, "inference": moved(dict(changes.inference), str(None), here) or config["inference"]}
    if changes.search_keys and not searches(config):
        name, key = str(config["inference"].get("_target_")).rpartition(".")[2], changes.search_keys[0]
        what = f"the inference is {name}, which does not search, so {key}=... has no use"
        raise UserError(f"{what}; leave it out, or add one that does, such as inference=gated_retrieval")

    def filled(node: Any, key: str = "") -> Any:
        if key == "retriever":
            return given or node or config["retriever"]
        if not isinstance(node, Mapping):
            return node
        node = {**own, **_given(node), **changes.search} if key == "search" else node
        return {name: filled(value, name) for name, value in node.items()}

    nodes: dict[str, Any] = {
        name: filled(config[name], name) for name in ("search", "inference", "candidates") if name in config
    }
    return {**config, "retriever": given or config["retriever"], **nodes}


def _given(node: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not null: null stands for the run's own value."""
    return {key: value for key, value in node.items() if value is not None}
