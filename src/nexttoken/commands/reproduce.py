"""Train a finished run again from its saved settings on the same data, and compare every number with the first time.

python -m nexttoken reproduce output/lmsys/<name>
python -m nexttoken reproduce output/lmsys/<name> fold=0,1 out=output-again

Arguments:
  fold=...         folds, such as 0 or 0,1, or all for the final model (default: every finished fold)
  out=...          new folder that keeps the second run (default: it is removed at the end)
  base=...         where the base model lies on this machine
  input_dir=...    folder of the run's data on this machine
  trust_remote_code=true   run the code that comes with the model

Other data and another base model are refused before the training. The exit status is 1 where bytes differ.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from nexttoken.commands.arguments import Arguments, NewPath, OnePath
from nexttoken.data.whole_files import scratch_folder
from nexttoken.errors import UserError
from nexttoken.models.processes import is_first
from nexttoken.settings import ALL

if TYPE_CHECKING:
    from nexttoken.build import Parts
    from nexttoken.runs.folder import FoldFolder, RunFolder

DIFFERENT = 1  # the exit status where bytes differ


def fold_numbers(text: str) -> tuple[int | str, ...]:
    """The folds of `fold=0,1`, or the final model of `fold=all`. Raises ValueError for others, and for one twice."""
    if text == ALL:
        return (ALL,)
    if not all(number.isdecimal() for number in text.split(",")):
        raise ValueError(f"{text!r} is not accepted; expected numbers such as 0,1, or all")
    numbers = tuple(map(int, text.split(",")))
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{text!r} has a fold twice; give each once, such as 0,1")
    return numbers


class ReproduceArguments(Arguments):
    paths: OnePath
    fold: Annotated[tuple[int | str, ...], BeforeValidator(fold_numbers)] = ()
    out: NewPath | None = None
    base: str | None = None
    input_dir: str | None = None
    trust_remote_code: bool = False


def main(arguments: Sequence[str]) -> None:
    given = ReproduceArguments.parse(arguments)
    from nexttoken.pipeline import fit_fold
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.reproduced import compare

    run, found = RunFolder(given.paths[0]), []
    folds = chosen_folds(run, given.fold)
    with place_of(run.path, given.out) as place:
        prepared = [prepared_again(fold, given, place) for fold in folds]  # refused before the first is trained
        for fold, (parts, config) in zip(folds, prepared, strict=True):
            again = fit_fold(parts, config)
            if is_first():
                found.append(compare(fold, again))
    for comparison in found:
        print("\n".join(comparison.lines()))
    if given.out:
        print(f"kept: {given.out}")
    if not all(comparison.same_bytes for comparison in found):
        sys.exit(DIFFERENT)


def chosen_folds(run: "RunFolder", numbers: Sequence[int | str]) -> "list[FoldFolder]":
    """The folds of these numbers, or all finished ones. Raises UserError for one that train.py did not finish."""
    from nexttoken.runs.blend import refuse_blend

    if run.asked_of is not None:
        raise UserError(f"{run.path} was asked, not trained; give {run.asked_of.path}, or ask it with again=true")
    if numbers:
        folds = [run.fold(number) for number in numbers]
    else:
        folds = [run.final()] if run.has_only_final else run.finished_folds()
    for fold in folds:
        if not fold.is_finished:
            raise UserError(f"{fold.path} is not finished; train it first: python train.py fold={fold.number}")
        refuse_blend(fold.config(), run.path)
        if "averaged" in fold.refuse_altered():
            raise UserError(f"{fold.path} is an average of adapters and was not trained; give the runs that were")
    return folds


@contextmanager
def place_of(run: Path, out: Path | None) -> Iterator[Path]:
    """The folder for the second run: `out`, which stays, or a hidden one beside the run until the end."""
    if out is not None:
        yield out
        return
    with scratch_folder(run.absolute()) as folder:
        yield folder


def prepared_again(fold: "FoldFolder", given: ReproduceArguments, place: Path) -> "tuple[Parts, dict[str, Any]]":
    """The parts and the configuration of a fold, to be trained again in `place`.

    Raises UserError where the training file's rows, or the base model, are not those that the fold was trained on.
    """
    from nexttoken.build import build
    from nexttoken.pipeline import read
    from nexttoken.runs.config import base_of, moved
    from nexttoken.runs.folder import hash_examples

    config = fold.config()
    if given.input_dir:  # also the files that other parts read there
        config = moved(config, config["input_dir"], given.input_dir)
    model = config["model"] | {"trust_remote_code": given.trust_remote_code}
    if given.base and (named := base_of(given.base, model.get("name_or_path"), fold.path.parent)):
        model |= {"name_or_path": named, "revision": None}
    config |= {"output_dir": str(place), "overwrite": False, "logger": {}, "model": model}
    parts = build(config)
    if not fold.has_rows(hash_examples(read(parts, "train"))):
        raise UserError(
            f"{fold.path} was trained on other rows than {config['input_dir']} holds now; restore the files, or name"
            " their folder with input_dir=..."
        )
    refuse_other_base(fold, parts)
    return parts, config


def refuse_other_base(fold: "FoldFolder", parts: "Parts") -> None:
    """Raise UserError where the weights that a fold's training began with are other ones now."""
    from nexttoken.models.base_model import identify, refuse_other_base
    from nexttoken.models.load import load_tokenizer
    from nexttoken.runs.made_with import BASE, KEY, base_weights
    from nexttoken.runs.starting_run import with_starting_weights

    settings, folder = with_starting_weights(parts.settings), fold.path / "adapter"
    if (folder / "base.json").exists():
        refuse_other_base(
            folder, parts.settings, identify(parts.settings.model, load_tokenizer(parts.settings.model, ()))
        )
    elif (trained := fold.metrics().get(KEY, {}).get(BASE)) and trained != base_weights(settings).get(BASE):
        what = f"{fold.path} was trained from other weights than {settings.model.name_or_path} holds now"
        raise UserError(f"{what}; name a folder that holds the same with base=...")
