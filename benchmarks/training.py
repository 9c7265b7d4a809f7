"""Compare training with the tools that users would otherwise run: rows/s, extra memory and equal losses.

python -m benchmarks.training                         all cases; about two hours on two cores
python -m benchmarks.training cases=sft,classifier    some of them; records of other cases in the file are kept
python -m benchmarks.training size=tiny repeats=2     a rehearsal of all; writes a file only with out=

  cases         sft, sft_best, sft_256k, sft_256k_best, bf16, full, full_256k, classifier, classifier_best, qlora,
                lightning, streams, lora, dropout; ..._best: the peer tries more than the usual micro-batches of 8
                and 4 rows and keeps its fastest
  size          full, or tiny models and a few short rows
  rows          of an optimizer step, the same on both sides
  repeats       pairs of runs that are counted
  batch_tokens  of our micro-batches
  out           JSON, the plot beside it; benchmarks/results/training.json
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Case, Options, command
from benchmarks.shapes import Shape
from benchmarks.sides import Side
from benchmarks.workload import GEMMA, REALISTIC, Workload
from nexttoken.commands.arguments import run

TRL = "TRL SFTTrainer, completion only"
BEST = ", its fastest micro-batches"  # else 8 or 4 rows, as usual
CLASSIFIER = "Trainer + AutoModelForSequenceClassification"
FULL = "Trainer, causal LM, logits of all positions"
REALISTIC_NAME = "train LoRA, realistic head share (24M body, 8k vocabulary)"
LARGE_NAME = "train LoRA, 256k vocabulary (Gemma-2 shape, small body)"
LORA_TERMS = 4  # operations per parameter and token with a frozen base: forward 2, gradients of activations 2
# At 256,000 words a token's logits, their copies and gradients are about 8 MB.
LARGE = {"rows": 8, "median": 150, "longest": 500}
TILES = (
    "TRL 1.16 goes over the logits in tiles and never holds them: on a CPU all positions, on a GPU the answers' only"
)
SLOW_BF16 = "without bf16 units a CPU computes bf16 several times slower than fp32"


def cases(options: Options) -> dict[str, Case]:
    """Every case by name; each side is built in its own process."""
    return {**_trl(options), **_trainer(options), **_ourselves(options)}


def _workload(options: Options, shape: Shape, rows: int = 16, **fields: Any) -> Workload:
    return options.workload(shape, rows, rehearsed=8, **fields)


def _ours(work: Workload, options: Options, kind: str = "Train", steps: int = 1, **arguments: Any) -> Side:
    return options.side(f"ours_training:{kind}", work, steps=steps, **arguments)


def _peer(kind: str, work: Workload, **arguments: Any) -> Side:
    return Side(f"benchmarks.training_peers:{kind}", {"workload": work, "steps": 1, **arguments})


def _trl(options: Options) -> dict[str, Case]:
    realistic, large = _workload(options, REALISTIC), _workload(options, GEMMA, **LARGE)
    few = _workload(options, REALISTIC, rows=8)
    half = _workload(options, REALISTIC, rows=few.rows, precision="bfloat16")
    fp32: dict[str, Any] = {"settles": True, "packages": ("trl",), "tolerance": 1e-3, "note": TILES}
    bf16: dict[str, Any] = {**fp32, "tolerance": 0.1, "note": f"{TILES}; {SLOW_BF16}"}
    floor: dict[str, Any] = {"operations": LORA_TERMS * realistic.body * realistic.tokens, "share_target": 0.70, **fp32}
    sft, sft_256k, sft_few = (_peer("Sft", work, usual=True) for work in (realistic, large, few))
    best, best_256k = (_peer("Sft", work) for work in (realistic, large))
    ours, ours_256k, ours_half = (_ours(work, options) for work in (realistic, large, half))
    return {
        "sft": Case(REALISTIC_NAME, TRL, "fp32", realistic, ours, sft, 3.0, 1 / 4, **floor),
        "sft_best": Case(REALISTIC_NAME, TRL + BEST, "fp32", realistic, ours, best, 3.0, 1 / 4, **fp32),
        "sft_256k": Case(LARGE_NAME, TRL, "fp32", large, ours_256k, sft_256k, 20.0, 0.3, **fp32),
        "sft_256k_best": Case(LARGE_NAME, TRL + BEST, "fp32", large, ours_256k, best_256k, 20.0, 0.3, **fp32),
        "bf16": Case(REALISTIC_NAME, TRL, "bf16 against fp32", half, ours_half, sft_few, 4.5, 1 / 4, **bf16),
    }


def _trainer(options: Options) -> dict[str, Case]:
    realistic, large = _workload(options, REALISTIC), _workload(options, GEMMA, **LARGE)
    settings: dict[str, Any] = {"settles": True, "tolerance": 1e-3}
    ours, ours_256k = _ours(realistic, options), _ours(large, options)
    ours_label = _ours(realistic, options, check_head="label")
    full, full_256k = _peer("FullLogits", realistic, usual=True), _peer("FullLogits", large, way="2 rows")
    fixed: dict[str, Any] = {**settings, "settles": False, "note": "2 rows a micro-batch: logits of more do not fit"}
    classifier, best = _peer("Classifier", realistic, usual=True), _peer("Classifier", realistic)
    first: dict[str, Any] = {"compared": 1, **settings}  # its classes are trained; the head's label rows are frozen
    name, work = REALISTIC_NAME, realistic
    return {
        "full": Case(name, FULL, "fp32", work, ours, full, **settings),
        "full_256k": Case(LARGE_NAME, FULL, "fp32", large, ours_256k, full_256k, **fixed),
        "classifier": Case(name, CLASSIFIER, "fp32", work, ours_label, classifier, 1.9, 0.3, **first),
        "classifier_best": Case(name, CLASSIFIER + BEST, "fp32", work, ours_label, best, 1.9, 0.3, **first),
    }


def _ourselves(options: Options) -> dict[str, Case]:
    """This project with one part exchanged; `lightning` has steps of about 200 ms."""
    name, work = REALISTIC_NAME, _workload(options, REALISTIC)
    ours, streams, layers, dropout = (
        _ours(work, options, kind) for kind in ("Train", "OneStream", "PeftLayers", "PeftDropout")
    )
    twice = 2 * options.batch_tokens  # as batch_tokens=auto sets it for weights that each micro-batch unpacks
    qlora, lora = (_ours(work, options, kind, batch_tokens=twice) for kind in ("TrainQuantised", "Train"))
    short = _workload(options, REALISTIC, rows=40, median=100, longest=150)
    fitted, looped = (_ours(short, options, kind, steps=short.rows // 2) for kind in ("Train", "BareLoop"))
    titles = ("Lightning's fit, steps of 200 ms", "the same steps in a bare loop")
    unequal: dict[str, Any] = {"tolerance": 0, "note": "NF4 rounds the weights, so losses are not compared"}
    peft = "the same with peft's LoRA layers"
    return {
        "streams": Case(name, "the same, one batch after the other", "fp32", work, ours, streams, 1.1),
        "lora": Case(name, peft, "fp32", work, ours, layers, 1.1),
        "dropout": Case(name, f"{peft} and torch's dropout", "fp32", work, ours, dropout),
        "qlora": Case("train QLoRA (NF4)", "our own LoRA, same precision", "fp32", work, qlora, lora, 0.95, **unequal),
        "lightning": Case(*titles, "fp32", short, fitted, looped, 1.03, kind="time", tolerance=1e-4),
    }


def main(arguments: Sequence[str]) -> None:
    command("training", cases, arguments)


if __name__ == "__main__":
    run(main, __doc__)
