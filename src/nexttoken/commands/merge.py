"""Merge a fold's adapter into its base model, for tools that take whole models only.

python -m nexttoken merge run=output/lmsys/<name> fold=0 out=models/merged

Arguments:
  run=...          the run folder
  fold=0           number of the fold whose adapter is merged
  out=...          the new folder of the merged model
  rows=64          held-out rows predicted before and after; the largest difference of their probabilities is printed
  dtype=float32    number format of the merged weights: float32, bfloat16 or float16
  base=...         folder or hub name of the base model on this machine
  input_dir=...    folder of the run's data on this machine
  trust_remote_code=true   run the code that comes with the model

A quantised base is dequantised first: rounding the sum to 4 bits again would lose most of what was learnt.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nexttoken.commands.arguments import NewPath, RunArguments
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun


class MergeArguments(RunArguments):
    fold: NonNegativeInt = 0
    out: Annotated[NewPath, Field(examples=["models/<name>"])]
    rows: PositiveInt = 64
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def main(arguments: Sequence[str]) -> None:
    given = MergeArguments.parse(arguments)
    loaded = given.load()
    fold = choose_fold(loaded, given.fold)
    examples = loaded.held_out(fold)[: given.rows]
    make_folder(given.out.parent)  # before hours of work, not after
    from nexttoken.engine.merged_adapter import Merge

    parts, settings = loaded.parts, loaded.parts.settings
    inference = loaded.inference(fold)  # with the fold's demonstrations
    head = parts.make_head()
    merge = Merge(fold.path, settings, parts.prompt, head, inference, loaded.batch_tokens, given.dtype)
    for name, value in merge.save(given.out, examples).as_dict().items():
        print(f"{name}: {value}")
    classifies = " head=classification" if settings.head["_target_"].endswith(".Classification") else ""
    print(f"wrote {given.out}; use it by model.name_or_path={given.out}{classifies}")


def choose_fold(loaded: LoadedRun, number: int) -> FoldFolder:
    """The finished fold of that number. Raises UserError where there is none, or where it has no adapter."""
    fold, settings = loaded.fold(number), loaded.parts.settings
    if settings.trainer.max_epochs == 0:
        raise UserError(f"{fold.path} was not trained (trainer.max_epochs=0), so there is nothing to merge")
    if loaded.parts.reads_states:
        raise UserError(f"{fold.path} trained no weights of its model (head=probe), so there is nothing to merge")
    if settings.adapter is None:
        raise UserError(f"{fold.path} has no adapter; its weights are whole already, in {fold.path / 'model'}")
    loaded.refuse_altered_weights(fold)
    return fold
