"""What a precision costs in log loss and brings in speed: a trained fold's held-out rows, asked in each of them.

python -m benchmarks.precision run=output/lmsys/sample             fold 0; a minute on two cores
python -m benchmarks.precision run=... fold=2 rows=500 repeats=7

  run      a run folder whose folds keep whole models, as those without an adapter do
  fold     whose held-out rows are asked
  rows     at most so many of them
  repeats  of each precision; they take turns
  cases    fp32, bf16, int8, nf4; the others are compared with fp32
  out      JSON; benchmarks/results/precision.json
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeInt

from benchmarks.measure import ALL, Names, Record, Repeats, Run, choose, compare, update_records
from nexttoken.commands.arguments import Arguments, RunPath, run
from nexttoken.errors import UserError
from nexttoken.inference.gate_trial import paired
from nexttoken.report.markdown import markdown

if TYPE_CHECKING:
    from nexttoken.engine.label_answerer import LabelAnswerer
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.loaded import LoadedRun

PRECISIONS = {"fp32": ("float32", None), "bf16": ("bfloat16", None), "int8": ("float32", 8), "nf4": ("float32", 4)}
SMALLEST = np.finfo(np.float64).eps  # as log_loss clips
HEADER = ["precision", "weights, MB", "log loss", "difference", "± standard error", "largest move", "rows/s", "spread"]


def answerers(loaded: "LoadedRun", fold: "FoldFolder", names: Sequence[str]) -> dict[str, "LabelAnswerer"]:
    """The fold's model in each precision, with its own encoder and labels. Raises UserError for one with an adapter."""
    import torch

    from nexttoken.engine.label_answerer import LabelAnswerer
    from nexttoken.models.load import choose_device, load_model
    from nexttoken.settings import QuantizationSettings

    own, made = loaded.answerer(fold), {}
    if not isinstance(own, LabelAnswerer) or not (fold.path / "model").is_dir():
        raise UserError(f"{fold.path} keeps no whole model that reads labels; choose a run without an adapter")
    settings = loaded.parts.settings.model.model_copy(update={"name_or_path": str(fold.path / "model")})
    num_classes = own.head.num_outputs(own.labels)
    for name in names:
        dtype, bits = PRECISIONS[name]
        quantization = None if bits is None else QuantizationSettings(bits=bits)  # type: ignore[arg-type]
        encoder = own.encoder
        given = (settings, encoder.tokenizer, encoder.max_tokens, getattr(torch, dtype), quantization, num_classes)
        model = load_model(*given).to(choose_device()).eval()
        made[name] = LabelAnswerer(model, own.head, encoder, own.labels, own.batch_tokens)
    return made


def in_turns(asks: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Run]]:
    """Seconds of each, `repeats` times, one after the other and every other time backwards."""
    runs: dict[str, list[Run]] = {name: [] for name in asks}
    for number in range(repeats):
        for name in list(asks)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            asks[name]()
            runs[name].append(Run(time.perf_counter() - start))
    return runs


def measure(loaded: "LoadedRun", fold: "FoldFolder", rows: int, repeats: int, names: Sequence[str]) -> list[Record]:
    """One record for each precision but fp32, which is the peer."""
    examples = loaded.held_out(fold)[:rows]
    labels = np.array([example.label for example in examples])
    ask, made = loaded.inference(fold), answerers(loaded, fold, ["fp32", *names])
    asks = {name: partial(ask, examples, answerer) for name, answerer in made.items()}
    probs = {name: asked().probs for name, asked in asks.items()}
    losses = {name: -np.log(own[np.arange(len(labels)), labels].clip(SMALLEST)) for name, own in probs.items()}
    facts = {}
    for name, answerer in made.items():
        difference, error = paired(losses[name] - losses["fp32"])
        facts[name] = {
            "rows": len(examples),
            "weights_mb": sum(p.nbytes for p in answerer.model.parameters()) / 1e6,
            "log_loss": float(losses[name].mean()),
            "difference": difference,
            "standard_error": error,
            "largest_move": float(np.abs(probs[name] - probs["fp32"]).max()),
        }
    runs = in_turns(asks, repeats)
    work = f"predict held-out rows of {loaded.folder.path.name}, fold {fold.path.name.removeprefix('fold')}"
    return [
        compare(work, "the same in fp32", name, list(zip(runs[name], runs["fp32"], strict=True)), facts=facts[name])
        for name in ("fp32", *names)
    ]


def table(records: Sequence[Record]) -> str:
    """Log loss beside speed."""
    rows = []
    for record in records:
        facts = record.facts
        losses = [f"{facts['log_loss']:.4f}", f"{facts['difference']:+.5f}", f"{facts['standard_error']:.5f}"]
        speed = [f"{record.ratio:.2f}x", f"{record.ratio_min:.2f} to {record.ratio_max:.2f}"]
        rows.append(
            [str(record.precision), f"{facts['weights_mb']:.1f}", *losses, f"{facts['largest_move']:.4f}", *speed]
        )
    return markdown(HEADER, rows)


class PrecisionArguments(Arguments):
    run: RunPath
    fold: NonNegativeInt = 0
    rows: Annotated[int, Field(ge=2)] = 2000
    repeats: Repeats = 5
    cases: Names = ALL
    out: Path = Path("benchmarks/results/precision.json")


def main(arguments: Sequence[str]) -> None:
    given = PrecisionArguments.parse(arguments)
    others = [name for name in choose("cases", given.cases, PRECISIONS) if name != "fp32"]
    from nexttoken.runs.loaded import load_run

    loaded = load_run(given.run)
    if given.fold not in loaded.numbers:
        raise UserError(f"fold={given.fold} is not finished; finished folds are {loaded.numbers}")
    fold = loaded.folds[loaded.numbers.index(given.fold)]
    records = measure(loaded, fold, given.rows, given.repeats, others)
    update_records(given.out, records)
    print(table(records))


if __name__ == "__main__":
    run(main, __doc__)
