"""Blend several runs of the same rows and folds: weights from out-of-fold rows, and a run folder for predict.py.

python -m nexttoken blend runs=output/lmsys/<a>,output/lmsys/<b>
python -m nexttoken blend runs=output/lmsys/<a>,output/lmsys/<b>,baseline name=with_counts of=probabilities

Arguments:
  runs=...         run folders with a comma between them; baseline, baseline_2: the simple predictors of the task
  name=blend       name of the new run folder, beside the first run
  of=logits        what is averaged: logits, probabilities, or ranks (two classes, for AUC and the like)
  weights=fitted   by log loss, those of ranks by the task's metric; equal: the same for all members
  overwrite=true   replace an earlier blend of this name

Each fold is scored with weights that were chosen on the other folds, so that the gain is honest; the weights for new
rows are chosen on all folds. A member without a weight is not asked. Equal weights stand beside the fitted ones in the
table: where they are as good, they are the safer choice.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from nexttoken.commands.arguments import Arguments
from nexttoken.errors import UserError
from nexttoken.report.terminal import show
from nexttoken.settings import Name


class BlendArguments(Arguments):
    runs: Annotated[str, Field(examples=["output/<task>/<a>,output/<task>/<b>"])]
    name: Name = "blend"
    of: Literal["logits", "probabilities", "ranks"] = "logits"
    weights: Literal["fitted", "equal"] = "fitted"
    overwrite: bool = False

    @property
    def members(self) -> list[str]:
        """The names between the commas; those of a folder belong to it."""
        left, names = self.runs.split(","), list[str]()
        while left:
            ends = [end for end in range(len(left), 1, -1) if Path(",".join(left[:end]).strip()).is_dir()]
            end = ends[0] if ends else 1
            names.append(",".join(left[:end]).strip().rstrip("/"))
            left = left[end:]
        return [name for name in names if name]


def main(arguments: Sequence[str]) -> None:
    given = BlendArguments.parse(arguments)
    folder = free_folder(given)
    from nexttoken.data.typed_texts import typed_override
    from nexttoken.report.blend import blend_page
    from nexttoken.runs.blend_fit import Members
    from nexttoken.runs.blend_folder import write_blend

    members, is_fitted = Members.read(given.members), given.weights == "fitted"
    members.refuse_unfit(given.of, is_fitted)
    blended, blend = members.blended(given.of, is_fitted), members.blend(given.of, is_fitted, folder)
    show(blend_page(members, blended, blend))
    write_blend(blend, blended, members.runs, folder)
    print(f"run: {folder}\nnext: {shlex.join(['python', 'predict.py', typed_override('run', str(folder))])}")


def free_folder(given: BlendArguments) -> Path:
    """The folder to write. Raises UserError where it is there already, unless an earlier blend is overwritten."""
    from nexttoken.runs.blend import BASELINES, is_blend
    from nexttoken.runs.folder import RunFolder

    runs = [RunFolder(Path(name)) for name in given.members if name not in BASELINES]
    folder = ((runs[0].asked_of or runs[0]).path.parent if runs else Path()) / str(given.name)
    if folder.exists() and not (given.overwrite and is_blend(folder)):
        fix = "add overwrite=true" if is_blend(folder) else "it is no blend"
        raise UserError(f"{folder} exists already, {fix}; or choose another name=...")
    if folder.resolve() in [run.path.resolve() for run in runs]:
        raise UserError(f"{folder} cannot be a member of itself; choose another name=...")
    return folder
