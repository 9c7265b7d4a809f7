"""The files that a run searches, beside the competition's, for a kernel's data set."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nexttoken.commands.kernel_folder.files import FlatFiles
from nexttoken.errors import UserError

LOCAL = ("Recorded", "BM25")  # retrievers without network and without a further model
RECORD = "record its passages (docs/retrieval.md), then add passages=<file>"
NOTHING = (".Nothing", "None")  # ends the `_target_` of a retriever that finds nothing, or is none
PASSAGES = "passages.jsonl"


def retrievers(node: Any) -> Iterator[Mapping[str, Any]]:
    """The retrievers at any depth of a configuration."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key == "retriever" and isinstance(value, Mapping) and not str(value.get("_target_")).endswith(NOTHING):
            yield value
        yield from retrievers(value)


def add_searched(flat: FlatFiles, config: Mapping[str, Any], passages: Path | None) -> list[str]:
    """Add recorded passages and corpora at their places below the competition's files.

    Returns the arguments of predict.py by which given `passages` are used. Raises UserError for a search that needs the
    network or another model, and for files that are elsewhere.
    """
    used = [one for key in ("inference", "candidates") for one in retrievers(config.get(key))]
    if passages is not None:
        if not used:
            raise UserError("the run does not search, so passages= has no use; leave it out")
        if not passages.is_file():
            raise UserError(f"{passages} is no file; expected recorded passages, as docs/retrieval.md describes them")
        if PASSAGES not in flat.places.values():
            flat.add(passages, PASSAGES)
        return ["retriever=recorded", f"retriever.path={{folder}}/{PASSAGES}"]
    for node in used:
        kind = str(node["_target_"]).rpartition(".")[2]
        if kind not in LOCAL:
            raise UserError(f"the run searches by {kind}, which a kernel cannot; {RECORD}")
        for path in (Path(str(node[key])) for key in ("path", "corpus") if node.get(key)):
            _add_input(flat, path, Path(str(config["input_dir"])))
    return []


def _add_input(flat: FlatFiles, path: Path, input_dir: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}, which the run searches, is not there; put it back, or add passages=<file>")
    if not path.resolve().is_relative_to(input_dir.resolve()):
        raise UserError(f"{path}, which the run searches, is not in {input_dir}; {RECORD}")
    place = f"input/{path.resolve().relative_to(input_dir.resolve()).as_posix()}"
    if not any(f"{one}/".startswith(f"{place}/") for one in flat.places.values()):
        flat.add(path, place)
