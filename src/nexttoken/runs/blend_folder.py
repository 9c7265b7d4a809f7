"""The run folder of a blend, written as train.py writes one: folds with out-of-fold rows and scores, and blend.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.whole_files import whole_folder
from nexttoken.runs.answer_set import without_scores
from nexttoken.runs.blend import Blend, save_blend
from nexttoken.runs.calibration import swap_of
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.scored_runs import Fold, Run, classes_of, probabilities
from nexttoken.types import Example, LabelPredictions

KEPT = ("seed", "split", "input_dir", "output_dir")  # of the first run's configuration


def write_blend(blend: Blend, blended: Run, runs: Sequence[Run], folder: Path) -> None:
    """Write the folder whole or not at all, in the place of an earlier blend.

    `blended` has the blend's out-of-fold probabilities in the rows of the first of the `runs`.
    """
    config = _config(blend, runs, folder)
    with whole_folder(folder) as part:
        for fold, *others in zip(blended.folds, *(run.folds for run in runs), strict=True):
            _write_fold(RunFolder(part).fold(fold.number), fold, others, config)
        (part / "folds.csv").write_bytes((runs[0].folder / "folds.csv").read_bytes())
        save_blend(blend, part)


def _config(blend: Blend, runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    """The settings that a blend has: those of its rows, and its members."""
    own = FoldFolder(runs[0].folds[0].folder).config()
    swaps = [swap_of(FoldFolder(run.folds[0].folder)) for run in runs]
    members = {"of": blend.of, "members": [member.name for member in blend.members]}
    alike = {"treats_sides_alike": all(swap is not None for swap in swaps)}
    kept = {key: own[key] for key in KEPT if key in own}
    return {"name": folder.name, **kept, "task": own["task"], **alike, "blend": members}


def _write_fold(folder: FoldFolder, fold: Fold, sources: Sequence[Fold], config: Mapping[str, Any]) -> None:
    """Write one fold; `sources` are the members' own folds, the first of them with the rows in the same order."""
    hash_path = sources[0].folder / "data.sha256"
    folder.claim({**config, "fold": fold.number}, hash_path.read_text("utf-8") if hash_path.exists() else "")
    examples, seconds = _rows(sources)
    predictions = LabelPredictions(tuple(fold.oof["id"]), probabilities(fold.oof), {"seconds": seconds})
    folder.save_rows(examples, predictions)
    folder.save_oof(predictions, fold.oof["label"].to_numpy(), fold.number, classes_of(fold.oof))
    kept = without_scores(fold.metrics)
    names = [metric.name for metric in fold.scores] + ["threshold"] * ("threshold" in fold.metrics)
    cost = sum(one.metrics.get("seconds", 0.0) for one in sources)
    measured = {"trained": any(one.metrics["trained"] for one in sources), "seconds": cost}
    folder.save_metrics(kept | {name: fold.metrics[name] for name in names} | measured)


def _rows(sources: Sequence[Fold]) -> tuple[list[Example], np.ndarray]:
    """The first fold's rows with their tags and numbers of options, and the seconds that all members took for each."""
    tables = [read_columns(fold.folder / "rows.csv", ["id", "num_options"]) for fold in sources]
    names = list(tables[0])
    tags = names[1 : names.index("num_options")]
    place = {one: row for row, one in enumerate(tables[0]["id"])}
    order = [place[one] for one in sources[0].oof["id"]]
    examples = [
        Example(
            tables[0]["id"][row],
            {},
            num_options=int(tables[0]["num_options"][row]),
            tags={tag: tables[0][tag][row] for tag in tags},
        )
        for row in order
    ]
    seconds = [
        dict(zip(table["id"], map(float, table.get("seconds", ["nan"] * len(table["id"]))), strict=True))
        for table in tables
    ]
    return examples, np.array([sum(one[example.id] for one in seconds) for example in examples])
