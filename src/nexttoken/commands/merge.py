"""A fold's adapter merged into its base, for tools that take whole models only.

python -m nexttoken merge run=output/lmsys/<name> fold=0 out=models/merged
    rows=64         held-out rows that are asked before and after; the difference of their probabilities is printed
    dtype=float32   of the merged weights: float32, bfloat16 or float16
    base=...        where the base model lies on this machine, as for predict.py
    input_dir=...   where the run's data lies on this machine

A quantised base is dequantised first: a sum rounded to 4 bit again would lose most of what was learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nexttoken.commands.arguments import key_values
from nexttoken.errors import UserError

if TYPE_CHECKING:
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.loaded import LoadedRun

DEFAULTS = {"run": "", "fold": "0", "out": "", "rows": "64", "dtype": "float32", "base": "", "input_dir": ""}
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Arguments:
    """The run and fold to merge, the folder to write, and how many held-out rows are compared."""

    run: Path
    fold: int
    out: Path
    num_rows: int
    dtype: str
    base: str | None
    input_dir: str | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError for what is missing, for a value of another kind, and for an `out` that exists."""
        values = key_values(arguments, DEFAULTS)
        for key, example in (("run", "output/<task>/<name>"), ("out", "models/<name>")):
            if not values[key]:
                raise UserError(f"{key}= is missing; write {key}={example}")
        for key in ("fold", "rows"):
            if not values[key].isdecimal() or (key == "rows" and int(values[key]) == 0):
                raise UserError(f"{key}={values[key]!r} is not accepted: expected a whole number, of rows at least 1")
        if values["dtype"] not in DTYPES:
            raise UserError(f"dtype={values['dtype']!r} is not accepted: expected one of {', '.join(DTYPES)}")
        out = Path(values["out"]).expanduser()
        if out.exists():
            raise UserError(f"{out} exists already; choose another out=... or remove it")
        numbers = int(values["fold"]), out, int(values["rows"])
        return cls(Path(values["run"]), *numbers, values["dtype"], values["base"] or None, values["input_dir"] or None)


def main(arguments: Sequence[str]) -> None:
    given = Arguments.parse(arguments)
    from nexttoken.build import make
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.loaded import LoadedRun

    loaded = LoadedRun.load(RunFolder(given.run), given.input_dir, base=given.base)
    fold = choose_fold(loaded, given.fold)
    examples = loaded.held_out(fold)[: given.num_rows]
    given.out.parent.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    from nexttoken.engine.merged_adapter import Merge

    parts, settings = loaded.parts, loaded.parts.settings
    head = make(settings.head, "head")
    asks = loaded.inference(fold)  # with the solved rows that it shows
    merge = Merge(fold.path, settings, parts.prompt, head, asks, loaded.batch_tokens, given.dtype)
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
