"""Files that appear whole or not at all: written beside their place, flushed, then renamed over it."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from nexttoken.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on any failure.

    A kill at any moment leaves either the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text and a final line break, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def write_json(value: object, path: Path) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN is refused (ValueError), since JSON has none."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), path)


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises UserError naming the file when it is absent or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); expected a file written by train.py") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a JSON object written by train.py")
    return value


class _Blocks(yaml.SafeDumper):
    """YAML in which a text of several lines is written as those lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _text)


def to_yaml(value: Mapping) -> str:
    """YAML as a person would write it: keys in their order, prompts line by line."""
    return yaml.dump(dict(value), Dumper=_Blocks, sort_keys=False, allow_unicode=True)


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
