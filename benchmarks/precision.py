"""Compare the log loss and the speed of a trained fold's model in several precisions, on its held-out rows.

python -m benchmarks.precision run=output/lmsys/sample             fold 0; a minute on two cores
python -m benchmarks.precision run=... fold=2 rows=500 repeats=7

  run      a run folder whose folds saved whole models, so one without an adapter
  fold     the number of the fold
  rows     the largest number of held-out rows to predict
  repeats  runs of each precision; they take turns
  cases    fp32, bf16, int8, nf4; the others are compared with fp32
  out      JSON (default: output/precision.json)
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from benchmarks.measure import ALL, Names, Record, Repeats, Run, choose, compare, update_records
from nexttoken.commands.arguments import Arguments, RunPath, run
from nexttoken.errors import UserError
from nexttoken.inference.gate import paired
from nexttoken.report.markdown import PAGE_WIDTH, markdown

if TYPE_CHECKING:
    from nexttoken.engine.label_answerer import LabelAnswerer
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.loaded import LoadedRun

PRECISIONS = {"fp32": ("float32", None), "bf16": ("bfloat16", None), "int8": ("float32", 8), "nf4": ("float32", 4)}
MIN_PROBABILITY = np.finfo(np.float64).eps  # as log_loss clips
HEADER = ["precision", "weights, MB", "log loss", "difference", "± standard error", "largest move", "rows/s", "spread"]
FORMS = {"weights_mb": ".1f", "log_loss": ".4f", "difference": "+.5f", "standard_error": ".5f", "largest_move": ".4f"}


def load_answerers(loaded: "LoadedRun", fold: "FoldFolder", names: Sequence[str]) -> dict[str, "LabelAnswerer"]:
    """The fold's model in each precision, with its encoder and labels. Raises UserError for one with an adapter."""
    import torch

    from nexttoken.engine.label_answerer import LabelAnswerer
    from nexttoken.models.load import load_model
    from nexttoken.models.processes import choose_device
    from nexttoken.settings import QuantizationSettings

    saved, answerers = loaded.answerer(fold), {}
    if not isinstance(saved, LabelAnswerer) or not (fold.path / "model").is_dir():
        raise UserError(f"{fold.path} has no whole model that predicts labels; choose a run without an adapter")
    settings = loaded.parts.settings.model.model_copy(update={"name_or_path": str(fold.path / "model")})
    head, encoder, labels = saved.head, saved.encoder, saved.labels
    for name in names:
        dtype, bits = PRECISIONS[name]
        quantization = None if bits is None else QuantizationSettings(bits=bits)  # type: ignore[arg-type]
        options = (encoder.max_tokens, getattr(torch, dtype), quantization, head.num_outputs(labels))
        model = load_model(settings, encoder.tokenizer, *options).to(choose_device()).eval()
        answerers[name] = LabelAnswerer(model, head, encoder, labels, saved.batch_tokens)
    return answerers


def measure(loaded: "LoadedRun", fold: "FoldFolder", rows: int, repeats: int, names: Sequence[str]) -> list[Record]:
    """One record for each precision, fp32 first; fp32 is the peer of all. Every other round runs them backwards."""
    examples = loaded.held_out(fold)[:rows]
    labels = np.array([example.label for example in examples])
    inference, answerers = loaded.inference(fold), load_answerers(loaded, fold, ["fp32", *names])
    probs = {name: inference(examples, answerer).probs for name, answerer in answerers.items()}
    chosen = {name: values[np.arange(len(labels)), labels] for name, values in probs.items()}
    losses = {name: -np.log(values.clip(MIN_PROBABILITY)) for name, values in chosen.items()}
    runs: dict[str, list[Run]] = {name: [] for name in answerers}
    for number in range(repeats):
        for name in list(answerers)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            inference(examples, answerers[name])
            runs[name].append(Run(time.perf_counter() - start))
    work = f"predict held-out rows of {loaded.folder.path.name}, fold {fold.path.name.removeprefix('fold')}"
    records = []
    for name, answerer in answerers.items():
        difference, error = paired(losses[name] - losses["fp32"])
        facts = {
            "rows": len(examples),
            "weights_mb": sum(p.nbytes for p in answerer.model.parameters()) / 1e6,
            "log_loss": float(losses[name].mean()),
            "difference": difference,
            "standard_error": error,
            "largest_move": float(np.abs(probs[name] - probs["fp32"]).max()),
        }
        pairs = list(zip(runs[name], runs["fp32"], strict=True))
        records.append(compare(work, "the same in fp32", name, pairs, facts=facts))
    return records


def table(records: Sequence[Record]) -> str:
    """Markdown: log loss beside speed, one line per precision."""
    rows = []
    for record in records:
        facts = [format(record.facts[key], form) for key, form in FORMS.items()]
        speed = [f"{record.ratio:.2f}x", f"{record.ratio_min:.2f} to {record.ratio_max:.2f}"]
        rows.append([str(record.precision), *facts, *speed])
    return markdown(HEADER, rows, PAGE_WIDTH)


class PrecisionArguments(Arguments):
    run: RunPath
    fold: NonNegativeInt = 0
    rows: Annotated[int, Field(ge=2)] = 2000
    repeats: Repeats = 5
    cases: Names = ALL
    out: Path = Path("output/precision.json")


def main(arguments: Sequence[str]) -> None:
    given = PrecisionArguments.parse(arguments)
    others = [name for name in choose("cases", given.cases, PRECISIONS) if name != "fp32"]
    from nexttoken.runs.load import load_run

    loaded = load_run(given.run)
    records = measure(loaded, loaded.fold(given.fold), given.rows, given.repeats, others)
    update_records(given.out, records)
    print(table(records))


if __name__ == "__main__":
    run(main, __doc__)
