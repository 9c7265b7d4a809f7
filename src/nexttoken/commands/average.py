"""Average the adapters of a run's folds, or of several runs, into one adapter, which answers in the time of one.

python -m nexttoken average output/lmsys/<name> out=output/lmsys/<name>_average
python -m nexttoken average output/lmsys/a output/lmsys/a_seed-1 fold=0 out=output/lmsys/a_seeds

Arguments:
  ...              run folders, trained with adapter=lora on the same base
  fold=0           average this fold of each run; without it, all finished folds of all runs
  out=...          the new run folder
  rank=...         rank of the average (by default the sum of the ranks, which is exact): lower ones are the nearest
  base=...         folder or hub name of the base model on this machine
  input_dir=...    folder of the runs' data on this machine
  trust_remote_code=true   run the code that comes with the model

The average of one fold is scored on its held-out rows, beside its parts. The average of all folds has learnt every
row, as a final model has, so that it has no out-of-fold score: predict.py run=<out> uses it all the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder


class AverageArguments(Arguments):
    paths: tuple[Path, ...]
    fold: NonNegativeInt | None = None
    out: Annotated[NewPath, Field(examples=["output/<task>/<name>"])]
    rank: PositiveInt | None = None
    base: str | None = None
    input_dir: str | None = None
    trust_remote_code: bool = False


def main(arguments: Sequence[str]) -> None:
    given = AverageArguments.parse(arguments)
    runs = [RunFolder(path) for path in given.paths]
    if given.fold is None:
        folds = [fold for run in runs for fold in run.finished_folds()]
    else:
        folds = [run.fold(given.fold) for run in runs]
        if unfinished := [fold.path for fold in folds if not fold.is_finished]:
            raise UserError(f"{unfinished[0]} is not finished; train it first: python train.py fold={given.fold}")
    folds = list({fold.path.resolve(): fold for fold in folds}.values())
    if len(folds) < 2:
        raise UserError(f"{folds[0].path} is the only adapter; give a second run, or leave fold= out for all folds")
    from nexttoken.runs.averaged import AveragedRun

    averaged = AveragedRun.of(folds, given.out, given.fold)
    for line in averaged.save(given.rank, given.input_dir, given.base, given.trust_remote_code):
        print(line)
    choice = " fold=all" if given.fold is None else ""
    print(f"wrote {given.out}; next: python predict.py run={given.out}{choice}")
