"""What runs wrote to held-out rows: read from their folds, or generated there where it is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError
from nexttoken.jsonlines import json_rows
from nexttoken.loaded import LoadedRun
from nexttoken.report.open_runs import OpenFold, OpenRun
from nexttoken.runs import FoldFolder, RunFolder
from nexttoken.types import Example, TextPredictions


@dataclass(frozen=True)
class Written:
    """Outputs to held-out rows, and the rows themselves, whose answers are the references; both by id."""

    outputs: Mapping[str, str]
    examples: Mapping[str, Example]


def written_by(run: OpenRun, num_rows: int, input_dir: str | None, base: str | None) -> Written:
    """Outputs of a run's folds; with `num_rows`, the first so many held-out rows of each fold get one if they lack it.

    Raises UserError where generated.jsonl is broken, or the run's data is not there any more.
    """
    wanting = {fold.folder: _without_output(fold, num_rows) for fold in run.folds}
    if not any(wanting.values()) and not any(_path(fold).exists() for fold in run.folds):
        return Written({}, {})
    loaded = LoadedRun.load(RunFolder(run.folder), input_dir, base=base)
    outputs: dict[str, str] = {}
    examples: dict[str, Example] = {}
    for fold in run.folds:
        folder = FoldFolder(fold.folder)
        held_out = {example.id: example for example in loaded.held_out(folder)}
        if missing := wanting[fold.folder]:
            _generate(loaded, folder, [held_out[row_id] for row_id in missing])
        outputs |= {row_id: text for row_id, text in _read(fold).items() if row_id in held_out}
        examples |= held_out
    return Written(outputs, examples)


def _path(fold: OpenFold) -> Path:
    return fold.folder / "generated.jsonl"


def _without_output(fold: OpenFold, num_rows: int) -> list[str]:
    """Ids among the first `num_rows`, in the order of oof.csv, that nothing was written to."""
    has = _read(fold) if num_rows else {}
    return [row_id for row_id in fold.rows["id"][:num_rows] if row_id not in has]


def _read(fold: OpenFold) -> dict[str, str]:
    return dict(zip((texts := read_texts(_path(fold))).ids, texts.texts, strict=True))


def read_texts(path: Path) -> TextPredictions:
    """What FoldFolder.save_texts wrote; nothing where there is no file. Raises UserError for a line that is none."""
    rows = list(json_rows(path)) if path.exists() and path.stat().st_size else []
    try:
        ids, texts = tuple(row["id"] for _, row in rows), tuple(row["output"] for _, row in rows)
        numbers = np.array([row["num_tokens"] for _, row in rows], dtype=np.int64)
        finished = np.array([row["finished"] for _, row in rows], dtype=bool)
        if not all(isinstance(text, str) for text in (*ids, *texts)):
            raise TypeError("an id or output that is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has a line that is no output ({error!r}); delete the file and generate again"
        ) from None
    return TextPredictions(ids, texts, {"num_tokens": numbers, "finished": finished})


def _generate(loaded: LoadedRun, folder: FoldFolder, examples: list[Example]) -> None:
    """Write outputs to `examples` and save them behind those that the fold has already."""
    fresh, old = loaded.generate(folder, examples), read_texts(folder.path / "generated.jsonl")
    columns = {name: np.concatenate([old.columns[name], fresh.columns[name]]) for name in ("num_tokens", "finished")}
    folder.save_texts(TextPredictions(old.ids + fresh.ids, old.texts + fresh.texts, columns))
