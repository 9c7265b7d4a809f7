"""Training side by side with what users would otherwise run: rows/s and extra memory, losses compared.

python -m benchmarks.training                         everything; about two hours on two cores
python -m benchmarks.training cases=sft,classifier    some of it; records of other cases in the file are kept
python -m benchmarks.training size=tiny repeats=2     a rehearsal of everything; writes no file unless told

  cases         sft, sft_best, sft_256k, sft_256k_best, bf16, full, full_256k, classifier, classifier_best, qlora,
                lightning, streams, lora, dropout; ..._best: against the micro-batches that are the peer's fastest,
                not the usual 8 or 4 rows
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

ONE_STREAM = "the same, one batch after the other"
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
    """Every case of the table; the sides are made in their own processes."""
    return {**_trl(options), **_trainer(options), **_own(options)}


def _workload(options: Options, shape: Shape, rows: int = 16, **own: Any) -> Workload:
    return options.workload(shape, rows, rehearsed=8, **own)


def _ours(work: Workload, options: Options, kind: str = "Train", steps: int = 1, **own: Any) -> Side:
    return options.side(f"ours_training:{kind}", work, steps=steps, **own)


def _peer(kind: str, work: Workload, **own: Any) -> Side:
    return Side(f"benchmarks.training_peers:{kind}", {"workload": work, "steps": 1, **own})


def _trl(options: Options) -> dict[str, Case]:
    realistic, large = _workload(options, REALISTIC), _workload(options, GEMMA, **LARGE)
    few = _workload(options, REALISTIC, rows=8)
    half = _workload(options, REALISTIC, rows=few.rows, precision="bfloat16")
    own: dict[str, Any] = {"settles": True, "packages": ("trl",), "tolerance": 1e-3, "note": TILES}
    floor = {"operations": LORA_TERMS * realistic.body * realistic.tokens, "share_target": 0.70}
    sft, sft_256k, sft_few = (_peer("Sft", work, usual=True) for work in (realistic, large, few))
    best, best_256k = (_peer("Sft", work) for work in (realistic, large))
    mixed = {**own, "tolerance": 0.1, "note": f"{TILES}; {SLOW_BF16}"}
    ours, ours_256k, ours_half = (_ours(work, options) for work in (realistic, large, half))
    wanted = {"target": 3.0, "memory_target": 1 / 4}
    return {
        "sft": Case(REALISTIC_NAME, TRL, "fp32", realistic, ours, sft, **wanted, **floor, **own),  # type: ignore[arg-type]
        "sft_best": Case(REALISTIC_NAME, TRL + BEST, "fp32", realistic, ours, best, **wanted, **own),  # type: ignore[arg-type]
        "sft_256k": Case(LARGE_NAME, TRL, "fp32", large, ours_256k, sft_256k, 20.0, 0.3, **own),
        "sft_256k_best": Case(LARGE_NAME, TRL + BEST, "fp32", large, ours_256k, best_256k, 20.0, 0.3, **own),
        "bf16": Case(REALISTIC_NAME, TRL, "bf16 against fp32", half, ours_half, sft_few, 4.5, 1 / 4, **mixed),
    }


def _trainer(options: Options) -> dict[str, Case]:
    realistic, large = _workload(options, REALISTIC), _workload(options, GEMMA, **LARGE)
    own: dict[str, Any] = {"settles": True, "tolerance": 1e-3}
    ours, ours_256k = _ours(realistic, options), _ours(large, options)
    mine = _ours(realistic, options, check_head="label")
    full, full_256k = _peer("FullLogits", realistic, usual=True), _peer("FullLogits", large, way="2 rows")
    larger = {**own, "settles": False, "note": "2 rows a micro-batch: logits of more do not fit"}
    classifier, best = _peer("Classifier", realistic, usual=True), _peer("Classifier", realistic)
    first = {"compared": 1, **own}  # its classes move apart from the head's label rows, which are frozen
    name, precision, work = REALISTIC_NAME, "fp32", realistic
    return {
        "full": Case(name, FULL, precision, work, ours, full, **own),
        "full_256k": Case(LARGE_NAME, FULL, precision, large, ours_256k, full_256k, **larger),
        "classifier": Case(name, CLASSIFIER, precision, work, mine, classifier, 1.9, 0.3, **first),
        "classifier_best": Case(name, CLASSIFIER + BEST, precision, work, mine, best, 1.9, 0.3, **first),
    }


def _own(options: Options) -> dict[str, Case]:
    """Against ourselves: QLoRA's price, and Lightning's over steps of about 200 ms."""
    realistic, lora = _workload(options, REALISTIC), "our own LoRA, same precision"
    short = _workload(options, REALISTIC, rows=40, median=100, longest=150)
    twice = 2 * options.batch_tokens  # what batch_tokens=auto gives weights that each micro-batch unpacks
    qlora, bare = (_ours(realistic, options, kind, batch_tokens=twice) for kind in ("TrainQuantised", "Train"))
    fitted, looped = (_ours(short, options, kind, steps=short.rows // 2) for kind in ("Train", "BareLoop"))
    titles = ("Lightning's fit, steps of 200 ms", "the same steps in a bare loop")
    loop: dict[str, Any] = {"kind": "time", "tolerance": 1e-4, "target": 1.03}
    other = "NF4 rounds the weights, so losses are not compared"
    ours = _ours(realistic, options)
    streams, layers, dropout = (_ours(realistic, options, kind) for kind in ("OneStream", "PeftLayers", "PeftDropout"))
    return {
        "streams": Case(REALISTIC_NAME, ONE_STREAM, "fp32", realistic, ours, streams, target=1.1),
        "lora": Case(REALISTIC_NAME, "the same with peft's LoRA layers", "fp32", realistic, ours, layers, target=1.1),
        "dropout": Case(
            REALISTIC_NAME, "the same with peft's LoRA layers and torch's dropout", "fp32", realistic, ours, dropout
        ),
        "qlora": Case("train QLoRA (NF4)", lora, "fp32", realistic, qlora, bare, 0.95, tolerance=0, note=other),
        "lightning": Case(*titles, "fp32", short, fitted, looped, **loop),
    }


def main(arguments: Sequence[str]) -> None:
    command("training", cases, arguments)


if __name__ == "__main__":
    run(main, __doc__)
