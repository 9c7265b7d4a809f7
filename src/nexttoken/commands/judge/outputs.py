"""What runs wrote to held-out rows: read from their folds, or generated there where it is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.data.json_lines import json_rows
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read_open import OpenFold, OpenRun
from nexttoken.types import DIALOGUE, Example, TextPredictions


@dataclass(frozen=True)
class Written:
    """Outputs to held-out rows, and what was asked for them, whose answers are the references; both by id.

    A dialogue is asked for each of its answers, as `<id>#<k>`; every other row is asked as it is.
    """

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
        held_out = loaded.held_out(folder)
        if missing := wanting[fold.folder]:
            _generate(loaded, folder, [example for example in held_out if example.id in missing])
        outputs |= _read(fold)
        examples |= {example.id: example for example in _asked_for(loaded, held_out)}
    return Written({row_id: text for row_id, text in outputs.items() if row_id in examples}, examples)


def _asked_for(loaded: LoadedRun, held_out: list[Example]) -> list[Example]:
    """What the run asks for rows; passages or demonstrations, which do not matter here, are not searched for."""
    is_dialogue = any(DIALOGUE in example.fields for example in held_out)
    return loaded.parts.inference.views(held_out, []) if is_dialogue else held_out


def _path(fold: OpenFold) -> Path:
    return fold.folder / "generated.jsonl"


def _without_output(fold: OpenFold, num_rows: int) -> set[str]:
    """Rows among the first `num_rows`, in the order of oof.csv, that nothing was written to."""
    has = set(_read(fold)) if num_rows else set()
    first = fold.rows[fold.rows["row"].isin(fold.rows["row"].unique()[:num_rows])]
    return set(first.loc[~first["id"].isin(has), "row"])


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
    old = _without(old, set(fresh.ids))
    columns = {name: np.concatenate([old.columns[name], fresh.columns[name]]) for name in ("num_tokens", "finished")}
    folder.save_texts(TextPredictions(old.ids + fresh.ids, old.texts + fresh.texts, columns))


def _without(texts: TextPredictions, ids: set[str]) -> TextPredictions:
    kept = [place for place, row_id in enumerate(texts.ids) if row_id not in ids]
    columns = {name: column[kept] for name, column in texts.columns.items()}
    return TextPredictions(tuple(texts.ids[n] for n in kept), tuple(texts.texts[n] for n in kept), columns)
