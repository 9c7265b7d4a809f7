"""Runs recognised by their settings: a sweep that is typed in another way goes on in the runs that it began."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.runs.folder import FOLD_NAME, FoldFolder, RunFolder, differences


def run_with_settings(own: RunFolder, number: int | str, config: Mapping[str, Any]) -> RunFolder:
    """The run `own`, or where it has none of these settings yet, the run beside it that has them under another name.

    Of several runs the first is taken that has finished the fold `number`, has begun it, or has other folds. A run that
    began before the data last changed is not among them: it may have learnt other rows.
    """
    if _matches(own, number, config):
        return own
    changed = max((path.stat().st_mtime for path in Path(config["input_dir"]).glob("*")), default=0.0)
    others = (RunFolder(path.parent) for path in sorted(own.path.parent.glob("*/folds.csv")) if path.parent != own.path)
    same = [run for run in others if _matches(run, number, config, changed)]
    return max(same, key=lambda run: _progress(run.fold(number)), default=own)


def _matches(run: RunFolder, number: int | str, config: Mapping[str, Any], since: float = 0.0) -> bool:
    """True where the run's fold of that number has these settings, or another of its folds where it has not begun."""
    own = run.fold(number).config_path
    paths = [own] if own.exists() else sorted(run.path.glob("*/config.yaml"))
    known = [path for path in paths if path == own or FOLD_NAME.fullmatch(path.parent.name)]
    if not known or known[0].stat().st_mtime < since:
        return False
    try:
        saved = _config(known[0], known[0].stat().st_mtime_ns)
    except UserError:  # a damaged folder is no run to go on with
        return False
    return not differences(saved, config)


def _progress(fold: FoldFolder) -> int:
    return 2 * fold.is_finished + fold.config_path.exists()


@cache
def _config(path: Path, _: int) -> dict[str, Any]:
    """The configuration at `path`, read once as long as the file stays the same."""
    return FoldFolder(path.parent).config()
