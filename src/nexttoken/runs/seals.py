"""The seal of a finished fold: the SHA-256 of every file that it answers and is scored by, kept in metrics.json."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nexttoken.data.files import RETRAIN, hash_file, hash_text
from nexttoken.data.json_lines import dump_json
from nexttoken.errors import UserError

KEY = "sealed"
RECORDS = ("config.yaml", "data.sha256", "labels.json", "budget.json", "inference.json", "oof.csv", "rows.csv")
# The weights, or the adapter, with the tokenizer or the base's fingerprint; the weights of head=probe.
WEIGHTS = ("model", "adapter", "probe.safetensors")
FIX = f"restore the file, or {RETRAIN}"


def seal(folder: Path, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of a fold's files by their names, and of `metrics` without the seal."""
    return {**_hashes(folder, (*RECORDS, *WEIGHTS)), "metrics.json": hash_values(metrics)}


def refuse_altered(folder: Path, metrics: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise UserError for a file of the given ones that was changed, removed or added after the fold was finished.

    `metrics` is the content of metrics.json. A fold of a version that had no seals is taken as it is.
    """
    if not isinstance(sealed := metrics.get(KEY), Mapping):
        return
    if sealed.get("metrics.json") != hash_values(metrics):
        raise UserError(f"{folder / 'metrics.json'} was changed after the fold was finished; {FIX}")
    then = {name: value for name, value in sealed.items() if name.partition("/")[0] in names}
    now = _hashes(folder, names)
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            what = "was added" if name not in then else "was removed" if name not in now else "was changed"
            raise UserError(f"{folder / name} {what} after the fold was finished; {FIX}")


def _hashes(folder: Path, names: Collection[str]) -> dict[str, str]:
    paths = sorted(path for name in names for path in _files(folder / name))
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


def _files(path: Path) -> Iterator[Path]:
    """The file, or all files of the folder but hidden ones, such as those of a file manager."""
    for one in [path] if path.is_file() else path.rglob("*"):
        if one.is_file() and not any(part.startswith(".") for part in one.relative_to(path.parent).parts):
            yield one


def hash_values(values: Mapping[str, Any]) -> str:
    """SHA-256 of `values` without the seal itself."""
    return hash_text(dump_json({key: value for key, value in values.items() if key != KEY}))
