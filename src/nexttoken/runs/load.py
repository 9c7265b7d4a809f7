"""A finished run loaded by its path, for a notebook."""

from pathlib import Path

from nexttoken.runs.config import Changes
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun


def load_run(
    path: str | Path,
    base: str | None = None,
    written: str | Path | None = None,
    trust_remote_code: bool = False,
    fold: int | str | None = None,
) -> LoadedRun:
    """Load a run folder for use in a notebook: `load_run("output/lmsys/<name>").predict(test_df)`.

    `written` is a folder for answers as they come, so that a killed call resumes; None: open ones are saved in the
    run's own folder, probabilities nowhere. `trust_remote_code` runs the code that comes with the model. `fold="all"`
    loads the final model on all rows instead of the folds.
    """
    changes = Changes(folder=Path(written) if written else None, fold=fold)
    return LoadedRun.load(RunFolder(Path(path)), base=base, changes=changes, trust_remote_code=trust_remote_code)
