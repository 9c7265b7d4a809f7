"""A finished run or a blend loaded to predict, by its folder."""

from dataclasses import replace
from pathlib import Path

from nexttoken.runs.blend import is_blend, member_folder, read_blend
from nexttoken.runs.config import Changes
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import UNCHANGED, LoadedRun
from nexttoken.runs.loaded_blend import LoadedBlend


def load(
    folder: RunFolder,
    input_dir: str | None = None,
    batch_tokens: int | None = None,
    base: str | None = None,
    changes: Changes = UNCHANGED,
    trust_remote_code: bool = False,
) -> LoadedRun:
    """The run in this folder, as `LoadedRun.load`, or the blend with all of its members.

    `base` and a given retriever are for each member. Raises UserError as `LoadedRun.load`, and for a blend whose
    members are gone or were trained since.
    """
    if not is_blend(folder.path):
        return LoadedRun.load(folder, input_dir, batch_tokens, base, changes, trust_remote_code)
    own = replace(UNCHANGED, **{key: getattr(changes, key) for key in ("folder", "retriever", "stream_layers")})
    blend = read_blend(folder.path)
    runs = [
        load(member_folder(member, folder.path), input_dir, batch_tokens, base, own, trust_remote_code)
        for member in blend.members
        if not member.is_baseline
    ]
    return LoadedBlend.of(folder, blend, runs, input_dir, replace(changes, retriever={}))


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
    return load(RunFolder(Path(path)), base=base, changes=changes, trust_remote_code=trust_remote_code)
