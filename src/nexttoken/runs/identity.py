"""Identity of a run: a hash of its examples, and the settings in which two configurations differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.data.files import hash_text
from nexttoken.settings import INCIDENTAL
from nexttoken.types import Example

RETRIEVER_NODES = ("retriever", "search", "inference", "train_transforms")  # the settings that may hold a retriever
RETRIEVER_FOLDERS = ("index_dir", "cache_dir")  # change no result
INCIDENTAL_DEVICES = ("trainer.devices", "trainer.strategy", "trainer.accelerator")


def hash_examples(examples: Sequence[Example]) -> str:
    """SHA-256 over every example's id, fields and answer: a run is continued only on the data it was started on."""
    rows = [(e.id, list(e.fields.items()), e.label if e.answer is None else e.answer) for e in examples]
    return hash_text(json.dumps(rows))


def describe_differences(saved: Mapping[str, Any], given: Mapping[str, Any], limit: int = 5) -> str:
    """`fit.learning_rate: 0.001 -> 0.002, ...`: the settings that may change results; empty where none differs."""
    old, new = (flatten({k: v for k, v in config.items() if k not in INCIDENTAL}) for config in (saved, given))
    changed = []
    for key in sorted({*old, *new}):
        path = key.split(".")
        is_incidental = key in INCIDENTAL_DEVICES or (path[0] in RETRIEVER_NODES and path[-1] in RETRIEVER_FOLDERS)
        if old.get(key) != new.get(key) and not is_incidental:
            changed.append(f"{key}: {_shorten(old.get(key))} -> {_shorten(new.get(key))}")
    return ", ".join(changed[:limit]) + (f" and {len(changed) - limit} more" if len(changed) > limit else "")


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Every setting by its dotted key; a node without settings is one itself."""
    if not isinstance(node, Mapping) or not node:
        return {path: node}
    parts = (flatten(child, f"{path}.{name}".lstrip(".")) for name, child in node.items())
    return {key: value for part in parts for key, value in part.items()}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
