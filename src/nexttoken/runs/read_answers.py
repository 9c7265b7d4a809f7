"""Questions that a run answered, rightly or not, and the seconds for each: out of fold, and in test files.

Read from rows.csv beside oof.csv, and from <submission>.result.json, which predict.py writes beside a submission.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nexttoken.data.files import read_json
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import AGAIN, group_names, read_groups, read_numbers
from nexttoken.runs.scored_runs import Data, Fold, Run, probabilities

UNKNOWN = "–"  # where a test file's environment is not recorded
COLUMNS = ("id", "num_options", "seconds", "correct", "group")  # of `Answers.rows`; all others are tags
PREDICT_AGAIN = "run predict.py again"


@dataclass(frozen=True)
class Answers:
    """The questions that a run answered. `rows` has a row per question: `COLUMNS`, and a column of text per tag."""

    model: str
    environment: str
    data: Data
    kind: str  # "out of fold" or "test rows"
    rows: pd.DataFrame

    @property
    def tags(self) -> list[str]:
        return [column for column in map(str, self.rows) if column not in COLUMNS]


def out_of_fold(run: Run) -> Answers | None:
    """All folds' held-out questions; None where a fold has no rows.csv. Raises UserError where it is broken."""
    if not all((fold.folder / "rows.csv").exists() for fold in run.folds):
        return None
    rows = pd.concat([_fold_rows(fold) for fold in run.folds], ignore_index=True)
    rows["group"] = group_names(rows["id"], read_groups(run.folder))
    tags = rows.columns.difference(list(COLUMNS))
    rows[tags] = rows[tags].fillna("")  # a tag that only some folds know
    return Answers(run.name, environment(run.folds), run.data, "out of fold", rows)


def test_answers(run: Run, ledger: Path) -> Answers | None:
    """The test questions whose answer is known, of the latest submission of the run's finished folds; None for none.

    It is one that the run answered in the way in which it was scored; its results stand beside it and the ledger.
    """
    numbers = {str(fold.number) for fold in RunFolder(run.folder).finished_folds()}
    own = [line for line in read_ledger(ledger) if line.is_of(run.folder) and not line.asked]
    if not own or set(own[-1].folds.split()) != numbers:
        return None
    path, machine = (ledger.with_name(f"{Path(own[-1].file).stem}.{kind}.json") for kind in ("result", "environment"))
    try:
        rows = result_rows(json.loads(path.read_text(encoding="utf-8")), path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {PREDICT_AGAIN}") from None
    if not len(rows):
        return None
    used = _environment(read_json(machine)) if machine.exists() else UNKNOWN
    return Answers(run.name, used, run.data, "test rows", rows)


def result_rows(results: Sequence[Mapping[str, Any]], path: Path | str = "the results") -> pd.DataFrame:
    """The rows of result.json whose answer is known, as `Answers.rows`. Raises UserError for one that lacks a part."""
    try:
        return pd.DataFrame(
            {
                "id": str(row["id"]),
                **{str(name): str(value) for name, value in row.get("tags", {}).items()},
                "num_options": len(row["options"]),
                "seconds": float(row.get("seconds", "nan")),
                "correct": bool(row["correct"]),
                "group": f"row {row['id']}",
            }
            for row in results
            if row.get("correct") is not None
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} has a row that cannot be used ({error!r}); {PREDICT_AGAIN}") from error


def environment(folds: Sequence[Fold]) -> str:
    """The hardware that the folds predicted on, `cpu, 8 threads, float32, 4096 tokens`; `-` for runs that lack it."""
    return " / ".join(filter(None, dict.fromkeys(_environment(fold.metrics) for fold in folds))) or "-"


def _environment(metrics: Mapping[str, Any]) -> str:
    forms = {"device": "{}", "precision": "{}", "batch_tokens": "{} tokens"}
    return ", ".join(form.format(metrics[key]) for key, form in forms.items() if metrics.get(key))


def _fold_rows(fold: Fold) -> pd.DataFrame:
    """One fold's rows in the order of oof.csv."""
    path = fold.folder / "rows.csv"
    rows = read_numbers(path, {"num_options": int, "seconds": float})
    if set(rows["id"]) != set(fold.oof["id"]):
        raise UserError(f"{path} has other ids than oof.csv beside it; {AGAIN}")
    rows = rows[["id", *rows.columns[1 : rows.columns.get_loc("num_options")], "num_options", "seconds"]]  # with tags
    right = probabilities(fold.oof).argmax(axis=1) == fold.oof["label"]
    rows = rows.drop(columns="correct", errors="ignore")  # a tag of this name
    return rows.merge(fold.oof[["id"]].assign(correct=right), on="id", how="right")
