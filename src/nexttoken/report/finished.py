"""The lines at the end of a training: a finished fold's table, and the commands to type next."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.build import Parts
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences
from nexttoken.runs.records import RETRAIN


def report_finished(parts: Parts, fold: FoldFolder, config: Mapping[str, Any], overrides: Sequence[str]) -> float:
    """Print a finished fold's table and the next commands; return its dev loss, or its log loss without dev rows.

    Raises UserError where the fold was trained with other settings, or a file of it was changed since.
    """
    saved = fold.refuse_altered()
    if differences := describe_differences(fold.config(), config):
        raise UserError(f"{fold.path} has other settings ({differences}); choose another name=... or overwrite=true")
    from nexttoken.report.tables import fold_table  # needs pandas, which a refused command must not wait for

    try:
        print(fold_table(saved, getattr(parts.task, "metrics", ())))
    except KeyError as error:
        raise UserError(f"{fold.path / 'metrics.json'} has no {error}; {RETRAIN}") from None
    print(f"run: {fold.path}")
    for command in next_commands(parts, fold, overrides):
        print(f"next: {command}")
    return saved.get("dev_log_loss", saved["log_loss"])


def next_commands(parts: Parts, fold: FoldFolder, overrides: Sequence[str]) -> list[str]:
    """The commands to type next: to train the remaining folds, then to predict."""
    run = RunFolder(fold.path.parent)
    left = [str(number) for number in range(parts.split.num_folds) if not run.fold(number).is_finished]
    same = [override for override in overrides if override.partition("=")[0] != "fold"]
    others = [shlex.join(["python", "train.py", "-m", "fold=" + ",".join(left), *same])] if left else []
    return [*others, shlex.join(["python", "predict.py", typed_override("run", str(run.path))])]
