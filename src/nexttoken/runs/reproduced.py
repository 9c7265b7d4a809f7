"""A fold that was trained again, compared with the first: files, answers, scores, and what was recorded of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.files import hash_file
from nexttoken.errors import first_five
from nexttoken.runs import seals
from nexttoken.runs.fold_metrics import own_metric
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.made_with import KEY

TIMED = ("metrics.json", "rows.csv")  # hold seconds
SETTINGS = "config.yaml"  # names other folders
WRITTEN = "generated.jsonl"  # is not sealed
ASKED_WITH = ("device", "precision", "batch_tokens", "max_tokens")  # of metrics.json: what numbers depend on
COUNTS = ("num_examples", "num_train_rows", "num_prompt_tokens", "num_truncated", "num_train_truncated")
KEYS = ("id", "row", "fold", "label")  # of oof.csv: columns that are no answers


@dataclass(frozen=True)
class Comparison:
    """Two trainings of a fold. `files` differ in their bytes, `facts` in what was recorded: old and new by name."""

    fold: str
    data: str  # the hash of the rows, in hexadecimal
    files: tuple[str, ...]
    facts: dict[str, tuple[Any, Any]]
    counts: dict[str, tuple[Any, Any]]
    is_recorded: bool  # False for a fold of a version that did not record code, versions and processor
    answers: str
    score: str
    clock: bool  # the training ends by the clock (`within`)

    @property
    def same_bytes(self) -> bool:
        return not self.files

    def lines(self) -> Iterator[str]:
        """A line for each thing that was compared, and the verdict."""
        yield f"settings   those of {self.fold}/config.yaml; the data is the same, sha256 {self.data[:12]}"
        yield f"versions   {_changes(self.facts) or ('the same' if self.is_recorded else 'not recorded')}"
        yield f"prompts    {_changes(self.counts) or 'as many rows and tokens'}"
        yield f"answers    {self.answers}"
        yield f"score      {self.score}"
        if self.same_bytes:
            yield f"{self.fold}: the same bytes"
        else:
            yield f"{self.fold}: other bytes in {first_five(self.files)}; {self._reason()}"

    def _reason(self) -> str:
        """The explanation that the recorded facts support."""
        causes = [f"other {name} ({old} -> {new})" for name, (old, new) in self.facts.items()]
        causes += ["within=... ends the training by the clock"] * self.clock
        if causes:
            return f"recorded differences that explain it: {'; '.join(causes)}"
        if self.is_recorded:
            return "no recorded difference explains it; on a GPU, sums in another order do"
        return "the first training recorded neither versions nor processor, so nothing explains it"


def compare(first: FoldFolder, again: FoldFolder) -> Comparison:
    """The comparison of two finished trainings of one fold."""
    old, new = first.metrics(), again.metrics()
    facts = _differences(_facts(old), _facts(new))
    if KEY not in old:
        facts = {name: pair for name, pair in facts.items() if name in ASKED_WITH}
    files = tuple(_differences(*(_sealed(fold, saved) for fold, saved in ((first, old), (again, new)))))
    counts = _differences(*({key: saved.get(key) for key in COUNTS} for saved in (old, new)))
    metric = own_metric(old)
    score = "no held-out rows" if first.is_final else _score(metric.name, old.get(metric.name), new.get(metric.name))
    answers = "no held-out rows" if first.is_final else describe_answers(first.path / "oof.csv", again.path / "oof.csv")
    clock = first.config().get("within") is not None
    data = (first.path / "data.sha256").read_text(encoding="utf-8")
    return Comparison(first.path.name, data, files, facts, counts, KEY in old, answers, score, clock)


def describe_answers(first: Path, again: Path) -> str:
    """The largest difference between the numbers of two tables oof.csv, with its row and column."""
    if first.read_bytes() == again.read_bytes():
        return "the same bytes"
    old, new = (read_columns(path, ["id"]) for path in (first, again))
    if list(old) != list(new) or old["id"] != new["id"]:
        return "other rows or columns"
    names = [name for name in old if name not in KEYS]
    values = [np.array([table[name] for name in names], dtype=float) for table in (old, new)]
    apart = np.abs(values[0] - values[1])
    column, row = np.unravel_index(int(apart.argmax()), apart.shape)
    largest = f"{apart.max():.2g} in {names[column]} of row {old['id'][row]}"
    return f"differ by at most {largest}, by {apart.mean():.2g} on average"


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    asked_with = {key: metrics[key] for key in ASKED_WITH if key in metrics}
    return asked_with | {name: _short(name, value) for name, value in (metrics.get(KEY) or {}).items()}


def _short(name: str, value: Any) -> str:
    return str(value)[:12] if name == "code" else str(value)


def _sealed(fold: FoldFolder, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of a fold's files that the same training writes again, also of a version without seals."""
    hashes = dict(metrics.get(seals.KEY) or seals.seal(fold.path, metrics))
    if (texts := fold.path / WRITTEN).exists():
        hashes[WRITTEN] = hash_file(texts)
    return {name: value for name, value in hashes.items() if name not in (*TIMED, SETTINGS)}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _score(name: str, old: Any, new: Any) -> str:
    if old is None or new is None:
        return f"{name} {old} -> {new}"
    change = "the same" if old == new else f"{new - old:+.2g}"
    return f"{name} {old:.6f} -> {new:.6f} ({change})"


def _changes(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in pairs.items())
