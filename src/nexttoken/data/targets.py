"""The `_target_` nodes of a configuration: each names a class of the kind that its place holds, and nothing else."""

import ast
import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass
from itertools import chain
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError, nearest


@dataclass(frozen=True)
class Place:
    """A place of the configuration: its classes stand in one of `modules` or below, and define or inherit `method`."""

    modules: tuple[str, ...]
    method: str
    inner: tuple[str, ...] = ()  # keys of nodes inside a node, each a place itself


INFERENCE = Place(("nexttoken.inference",), "views", ("ask", "search", "retriever"))
TRANSFORM = Place(("nexttoken.transforms", "nexttoken.inference.retrieval"), "__call__", ("search", "retriever"))
PLACES = {
    "task": Place(("nexttoken.tasks",), "group_text"),
    "prompt": Place(("nexttoken.prompts",), "for_classes"),
    "split": Place(("nexttoken.data.folds",), "dev"),
    "transforms": TRANSFORM,
    "train_transforms": TRANSFORM,
    "retriever": Place(("nexttoken.inference.retrieval",), "search"),
    "search": Place(("nexttoken.inference.retrieval",), "find", ("retriever",)),
    "inference": INFERENCE,
    "ask": INFERENCE,
    "correction": Place(("nexttoken.inference.corrections",), "learn"),
    "candidates": Place(("nexttoken.inference.candidates",), "pools", ("retriever",)),
    "head": Place(("nexttoken.engine.heads", "nexttoken.engine.probe"), "num_outputs"),
}
MAPPINGS = ("transforms", "train_transforms", "logger")  # places that hold a node under each of their keys
ENGINES = tuple(f"nexttoken.engine.answerers.load_{name}_writer" for name in ("transformers", "vllm"))
# Keys that read no file and write below `save_dir` only, which is the fold's folder. Servers and their keys come from
# the environment.
LOGGERS = {
    "lightning.pytorch.loggers.CSVLogger": "name version prefix flush_logs_every_n_steps",
    "lightning.pytorch.loggers.TensorBoardLogger": "name version sub_dir prefix log_graph default_hp_metric max_queue"
    " flush_secs",
    "lightning.pytorch.loggers.MLFlowLogger": "experiment_name run_name tags prefix synchronous",
    "lightning.pytorch.loggers.WandbLogger": "name project group entity job_type notes tags prefix offline mode",
}
FOLDER_KEYS = ("name", "version", "sub_dir")  # of a logger: they become folders
FOLDER = re.compile(r"(?!\.)[^/\\\x00-\x1f]{0,200}")


def refuse_unasked_code(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise UserError where a file, such as an experiment, and not this command line allows a model's own code."""
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key, node in (("model.trust_remote_code", config.get("model")), ("trust_remote_code", config)):
        if key not in typed and isinstance(node, Mapping) and node.get("trust_remote_code"):
            what = f"a configuration file says {key}=true"
            raise UserError(f"{what}; if you trust the model's code, write {key}=true here")


def check_targets(config: Mapping[str, Any]) -> None:
    """Raise UserError for a node that its place does not hold: a configuration never runs code of its own choice.

    Only names are compared here, and nothing is imported; `load_class` looks at the class itself.
    """
    for key, value in config.items():
        if key not in PLACES and key not in ("engine", "logger"):
            _refuse_nodes(value, key)
        elif key in MAPPINGS:
            for name, node in value.items():
                _check_node(node, key, f"{key}.{name}")
        elif value:
            _check_node(value, key, key)


def make(node: Mapping[str, Any], place: str) -> Any:
    """Build a node, or each node of a mapping; the texts in it stay as they are.

    Raises UserError for a class that the place does not hold, and where the class does not take a key or a value.
    """
    if place in ("transforms", "train_transforms"):
        return {key: make_one(child, place) for key, child in node.items()}
    return make_one(node, place)


def make_one(node: Mapping[str, Any], place: str) -> Any:
    """Build one node of a place, and the nodes inside it."""
    _check_node(node, place, place)
    inner = PLACES[place].inner if place in PLACES else ()
    values = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    try:
        for key, value in values.items():
            values[key] = make_one(value, key) if key in inner and value else copy.deepcopy(value)
        kind = load_class(node["_target_"], place)
        return partial(kind, **values) if place == "engine" else kind(**values)
    except UserError:
        raise
    except Exception as error:
        raise UserError(" ".join(f"{place}: {error}".split())) from None


def load_class(target: str, place: str) -> Any:
    """The class of a `_target_`, or the loader of an engine.

    Raises UserError unless it is defined in the module that `target` names, or re-exported by its package, and is of
    the place's kind.
    """
    _refuse_other(target, place, place)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # an optional package that the module needs
            raise
        raise missing_class(target) from None
    except AttributeError:
        raise missing_class(target) from None
    if place not in PLACES:
        return found
    known = PLACES[place]
    is_exported = name in getattr(import_module(module), "__all__", ())
    is_defined = isclass(found) and found.__qualname__ == name and (found.__module__ == module or is_exported)
    is_own = is_defined and _is_below(found.__module__, known.modules)
    if not is_own or not any(known.method in kind.__dict__ for kind in found.__mro__):
        raise _refused(f"{place}._target_", target, place)
    return found


def declared(node: Mapping[str, Any], name: str) -> frozenset[str]:
    """The set `name` of the class of a `_target_` node, read from its source: importing a head would import torch.

    Raises UserError for a class of this package that does not exist.
    """
    class_path = str(node.get("_target_", ""))
    return _declared(class_path, name) if class_path.startswith("nexttoken.") else frozenset()


@cache
def _declared(class_path: str, name: str) -> frozenset[str]:
    """Read once for all jobs of a sweep."""
    tree, kind = ast.parse(find_source(class_path)), class_path.rpartition(".")[2]
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    if not bodies:
        raise missing_class(class_path)
    for statement in chain(*bodies):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and target.id == name:
                return frozenset(*map(ast.literal_eval, statement.value.args))
    return frozenset()


def find_source(class_path: str) -> str:
    """The source of the module that names the class, "" where none does; nothing is imported, which might be torch."""
    module, _, name = class_path.rpartition(".")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of a package above it
        return ""
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return source if re.search(rf"\b{re.escape(name)}\b", source) else ""


def missing_class(target: str) -> UserError:
    return UserError(f"_target_={target!r} does not exist; correct the name, or leave it out")


def _check_node(node: Any, place: str, path: str) -> None:
    if not isinstance(node, Mapping) or not isinstance(target := node.get("_target_"), str):
        raise UserError(f"{path} names no class; expected a _target_, as the choices of conf/{path.split('.')[0]} have")
    if special := [key for key in node if re.fullmatch("_.*_", str(key)) and key not in ("_target_", "_partial_")]:
        raise UserError(f"{path}.{special[0]} is refused: a node holds a _target_ and the keys of its class")
    if node.get("_partial_") is not None and place != "engine":
        raise UserError(f"{path}._partial_ is refused: a node holds a _target_ and the keys of its class")
    _refuse_other(target, place, path)
    if place == "logger":
        _check_keys(node, path)
    inner = PLACES[place].inner if place in PLACES else ()
    for key, value in node.items():
        if key in inner and value:
            _check_node(value, key, f"{path}.{key}")
        elif key != "_target_":
            _refuse_nodes(value, f"{path}.{key}")


def _refuse_other(target: str, place: str, path: str) -> None:
    """Raise UserError for a name that is not of the place's modules or list."""
    listed = ENGINES if place == "engine" else LOGGERS
    if not (_is_below(target, PLACES[place].modules) if place in PLACES else target in listed):
        raise _refused(f"{path}._target_", target, place)


def _check_keys(node: Mapping[str, Any], path: str) -> None:
    """Raise UserError for a key that the logger may not have, or a folder outside of the fold's."""
    known = LOGGERS[node["_target_"]].split()
    for key, value in node.items():
        if key not in (*known, "_target_", "save_dir"):
            raise UserError(f"unknown key '{path}.{key}'; {nearest(str(key), known)}")
        if key in FOLDER_KEYS and isinstance(value, str) and not FOLDER.fullmatch(value):
            raise UserError(f"{path}.{key}={value!r} is not accepted: expected a name without / and \\, no hidden one")


def _refuse_nodes(value: Any, path: str) -> None:
    """Raise UserError for a node in a place that holds none."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise UserError(f"{path}._target_={value['_target_']!r} is refused: {path} holds values, not a class")
        for key, child in value.items():
            _refuse_nodes(child, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, child in enumerate(value):
            _refuse_nodes(child, f"{path}.{number}")


def _is_below(name: str, modules: tuple[str, ...]) -> bool:
    return f"{name}.".startswith(tuple(f"{module}." for module in modules))


def _refused(path: str, target: str, place: str) -> UserError:
    known = PLACES[place].modules if place in PLACES else ENGINES if place == "engine" else tuple(LOGGERS)
    kind = f"a class of {' or '.join(known)}" if place in PLACES else " or ".join(known)
    with_method = f" with the method {PLACES[place].method}" if place in PLACES else ""
    return UserError(f"{path}={target!r} is refused: expected {kind}{with_method}")
