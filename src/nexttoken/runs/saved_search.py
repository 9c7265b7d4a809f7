"""What a saved configuration searches with: moved along with the data, or replaced by another retriever."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError

SEARCHING = ("retriever", "search", "inference", "train_transforms")  # the nodes in which a retriever stands


def with_input_dir(config: dict[str, Any], input_dir: str) -> dict[str, Any]:
    """The configuration with the data in another folder, and with it all that a search reads from there."""
    nodes = {name: moved(config[name], config["input_dir"], input_dir) for name in SEARCHING if name in config}
    return {**config, **nodes, "input_dir": input_dir, "task": {**config["task"], "input_dir": input_dir}}


def moved(node: Any, old: str, new: str) -> Any:
    """`node` with every string at or under the folder `old` put under `new`."""
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [moved(value, old, new) for value in node]
    start = old.rstrip("/")
    if not isinstance(node, str) or not f"{node}/".startswith(f"{start}/"):
        return node
    return str(Path(new, node[len(start) :].lstrip("/")))


def with_retriever(config: dict[str, Any], retriever: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with another retriever wherever it has one. Raises UserError where nothing would ask it."""
    if not searches(config["inference"]):
        name = str(config["inference"].get("_target_")).rpartition(".")[2]
        raise UserError(
            f"the run asks with {name}, which does not search for anything, so retriever=... has no use; leave it out,"
            " or train with inference=gated_retrieval"
        )
    own = moved(retriever, str(None), config["input_dir"])  # ${input_dir} of a choice, where none was given
    return {**config, "retriever": own} | {name: replaced(config[name], own) for name in ("search", "inference")}


def searches(node: Any) -> bool:
    return isinstance(node, Mapping) and ("retriever" in node or any(map(searches, node.values())))


def replaced(node: Any, retriever: Mapping[str, Any]) -> Any:
    """`node` with `retriever` wherever something in it is called so."""
    if not isinstance(node, Mapping):
        return node
    return {key: retriever if key == "retriever" else replaced(value, retriever) for key, value in node.items()}
