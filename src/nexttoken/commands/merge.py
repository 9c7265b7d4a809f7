"""A fold's adapter merged into its base, for tools that take whole models only.

python -m nexttoken merge run=output/lmsys/<name> fold=0 out=models/merged
    rows=64         held-out rows that are predicted before and after; the difference of their probabilities is printed
    dtype=float32   of the merged weights: float32, bfloat16 or float16
    base=...        where the base model lies on this machine, as for predict.py
    input_dir=...   where the run's data lies on this machine

A quantised base is dequantised first: a sum rounded to 4 bit again would lose most of what was learnt.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nexttoken.commands.arguments import Arguments, NewPath, RunPath
from nexttoken.errors import UserError

if TYPE_CHECKING:
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.loaded import LoadedRun


class MergeArguments(Arguments):
    run: RunPath
    fold: NonNegativeInt = 0
    out: Annotated[NewPath, Field(examples=["models/<name>"])]
    rows: PositiveInt = 64
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    base: str | None = None
    input_dir: str | None = None


def main(arguments: Sequence[str]) -> None:
    given = MergeArguments.parse(arguments)
    from nexttoken.build import make
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.loaded import LoadedRun

    loaded = LoadedRun.load(RunFolder(given.run), given.input_dir, base=given.base)
    fold = choose_fold(loaded, given.fold)
    examples = loaded.held_out(fold)[: given.rows]
    given.out.parent.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    from nexttoken.engine.merged_adapter import Merge

    parts, settings = loaded.parts, loaded.parts.settings
    head = make(settings.head, "head")
    inference = loaded.inference(fold)  # with the solved rows that it shows
    merge = Merge(fold.path, settings, parts.prompt, head, inference, loaded.batch_tokens, given.dtype)
    for name, value in merge.save(given.out, examples).as_dict().items():
        print(f"{name}: {value}")
    classifies = " head=classification" if settings.head["_target_"].endswith(".Classification") else ""
    print(f"wrote {given.out}; use it by model.name_or_path={given.out}{classifies}")


def choose_fold(loaded: "LoadedRun", number: int) -> "FoldFolder":
    """The finished fold of that number. Raises UserError when there is none, or when it left no adapter."""
    if number not in loaded.numbers:
        finished = ", ".join(map(str, loaded.numbers))
        raise UserError(f"{loaded.folder.fold(number).path} is not finished; finished folds are {finished}")
    fold, settings = loaded.folder.fold(number), loaded.parts.settings
    if settings.trainer.max_epochs == 0:
        raise UserError(f"{fold.path} was not trained (trainer.max_epochs=0), so there is nothing to merge")
    if settings.adapter is None:
        raise UserError(f"{fold.path} has no adapter; its weights are whole already, in {fold.path / 'model'}")
    return fold
