"""Files found by name, read with clear errors, and written as text, JSON and YAML."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import yaml

from nexttoken.data.file_kinds import NUM_BYTES, refuse_kind
from nexttoken.data.json_lines import dump_json
from nexttoken.data.whole_files import whole_file
from nexttoken.errors import MissingFile, UserError, first_five

MAX_YAML_BYTES = 2**18  # a configuration has a few thousand; a million are read for ten seconds
RETRAIN = "train this fold again with overwrite=true"


def cache_dir() -> Path:
    """The folder of tokens and weights that are made once: $NEXTTOKEN_CACHE, else in the user's cache folder."""
    if named := os.environ.get("NEXTTOKEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "nexttoken"


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text and a final line break, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def write_json(value: object, path: Path) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN is refused (ValueError), since JSON has none."""
    write_text(dump_json(value, indent=2, allow_nan=False), path)


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises UserError for a file that is missing or broken."""
    try:
        value = json.loads(_read_whole(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); expected a file written by train.py") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a JSON object written by train.py")
    return value


def _read_whole(path: Path) -> str:
    """Raises OSError, ValueError for another encoding, UserError for a file of another kind, such as an LFS pointer."""
    data = path.read_bytes()
    refuse_kind(path, data[:NUM_BYTES])
    return data.decode("utf-8")


class _Loader(yaml.SafeLoader):
    """A YAML loader of texts, numbers, lists and mappings, without aliases: a few lines of them fill the memory."""

    yaml_constructors: ClassVar[dict] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if str(tag).rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map", "None")
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict:
    """Read the configuration of a fold. Raises UserError where it is missing, broken, too large, or has aliases."""
    try:
        if (size := path.stat().st_size) > MAX_YAML_BYTES:
            raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_YAML_BYTES:,}; {RETRAIN}")
        value = yaml.load(_read_whole(path), Loader=_Loader)  # noqa: S506 - of plain values alone
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror})"
        raise UserError(f"{what}; expected the folder of a run that train.py wrote") from None
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:  # ValueError: not UTF-8
        reason = ", or has an alias (*name)" if "alias" in str(error) else ""
        raise UserError(f"{path} is not YAML in UTF-8{reason}; {RETRAIN}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a configuration; {RETRAIN}")
    return value


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes a text of several lines as a block, and U+0085, a line end to YAML, as its escape."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, text: str) -> yaml.ScalarNode:
        style = '"' if "\x85" in text else "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def to_yaml(value: Mapping) -> str:
    """Return readable YAML: keys in their order, prompts line by line."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, a block in memory at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matching(folder: Path, names: Sequence[str] | str, kind: str) -> list[Path]:
    """Return the files of `folder` in the order of `names`, each once; a pattern may match no file, a name must.

    A name also matches its compressed file, `<name>.gz`. Raises UserError for a name without a file, and for two files
    of one name, whose rows could not be told apart.
    """
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{kind}s are named {names}: expected a list of names or patterns, such as [train.jsonl]")
    found: dict[Path, None] = {}
    for name in listed:
        paths = sorted(path for path in _glob(folder, name, kind) if path.is_file())
        if not paths and not {*"*?["} & {*name}:
            packed = folder / f"{name}.gz"
            paths = [packed] if packed.is_file() else refuse_missing(folder, name, kind)
        found |= dict.fromkeys(paths)
    if len({path.name for path in found}) < len(found):
        raise UserError(f"{folder}: {kind}s of one name ({first_five(found)}); rename one of them")
    return list(found)


def _glob(folder: Path, name: str, kind: str) -> list[Path]:
    """Return the matches of a name or pattern. Raises UserError for an absolute path and for an invalid pattern."""
    path = Path(name)
    if path.is_absolute():
        raise UserError(f"{name}: expected the name of a {kind} below {folder}; write input_dir={path.parent}")
    try:
        return list(folder.glob(name))
    except (ValueError, IndexError, OSError) as error:  # IndexError for ".", OSError for a name that is too long
        raise UserError(
            f"{name[:40]!r} is no name or pattern of {kind}s ({error}); write train.jsonl or *.jsonl"
        ) from None


def refuse_missing(folder: Path, name: str, kind: str) -> NoReturn:
    raise MissingFile(
        f"{folder} has no file {name}: expected {kind}s; put it there, set input_dir, "
        "or name your files with task.train_files and task.test_files"
    )
