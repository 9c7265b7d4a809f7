"""Prediction side by side with what users would otherwise run: rows/s and extra memory, answers compared.

python -m benchmarks.inference                            everything; about a quarter of an hour on two cores
python -m benchmarks.inference cases=harness,padded       some of it; records of other cases in the file are kept
python -m benchmarks.inference size=tiny repeats=2        a rehearsal of everything; writes no file unless told

  cases         gemma, harness, harness_bf16, padded, rows, streams, bf16, prefix, again, vocabulary_128k,
                vocabulary_32k
  size          full, or tiny models and a few short rows
  rows          of each case; without it each has its own number
  repeats       pairs of runs that are counted
  batch_tokens  of our batches
  out           JSON, the plot beside it; benchmarks/results/inference.json
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cases import Case, Options, command
from benchmarks.shapes import Shape
from benchmarks.sides import Side
from benchmarks.workload import GEMMA, REALISTIC, Workload, small_body
from nexttoken.commands.arguments import run

HARNESS = "lm-evaluation-harness"
LM_EVAL = ("lm_eval",)
IDS_GIVEN = "batch 8, given token ids"
# A token's logits are 1 MB at 256,000 words, and a peer holds them three times: four rows of 1,000 tokens are 12 GB.
LARGE = {"rows": 12, "longest": 1000, "alike": 4}


def cases(options: Options) -> dict[str, Case]:
    """Every case of the table. The sides are made in their own processes: torch is imported there, not here."""
    return {**_vocabularies(options), **_realistic(options), "prefix": _prefix(options), "again": _again(options)}


def _workload(options: Options, shape: Shape, rows: int, **own: Any) -> Workload:
    return options.workload(shape, rows, rehearsed=6, **own)


def _ours(options: Options, work: Workload, **own: Any) -> Side:
    return options.side("predictors:Predict", work, **own)


def _harness(work: Workload, batch_size: int = 8) -> Side:
    return Side("benchmarks.predictors:Harness", {"workload": work, "batch_size": batch_size})


def _vocabularies(options: Options) -> dict[str, Case]:
    """A small body under a large head: what reading all of it costs."""
    shapes = {
        "gemma": (GEMMA, 4),
        "vocabulary_128k": (small_body(128_000), 4),
        "vocabulary_32k": (small_body(32_000), 4),
    }
    made = {}
    for name, (shape, batch_size) in shapes.items():
        work = _workload(options, shape, **LARGE)
        size = shape.sizes["vocab_size"] // 1000
        kind = "Gemma-2 shape, small body" if name == "gemma" else "small body"
        wanted = {"target": 10.0, "memory_target": 1 / 6} if name == "gemma" else {}
        made[name] = Case(
            f"predict, {size}k vocabulary ({kind})",
            HARNESS,
            "fp32",
            work,
            _ours(options, work),
            _harness(work, batch_size),
            note=f"batch {batch_size}, given token ids",
            packages=LM_EVAL,
            **wanted,  # type: ignore[arg-type]
        )
    return made


def _realistic(options: Options) -> dict[str, Case]:
    """A head of a realistic share: 24M body, 8k vocabulary."""
    name = "predict, realistic head share (24M body, 8k vocabulary)"
    whole, unsorted = _workload(options, REALISTIC, 48, alike=8), _workload(options, REALISTIC, 24)
    few = _workload(options, REALISTIC, 8, alike=8)
    half = replace(few, precision="bfloat16")
    ours, floor = (_ours(options, whole), {"operations": 2 * whole.body * whole.tokens, "share_target": 0.85})
    padded, rows = (
        Side(f"benchmarks.predictors:{side}", {"workload": unsorted}) for side in ("PaddedBatches", "RowByRow")
    )
    mine, alone = _ours(options, unsorted), options.side("predictors:OneStream", whole)
    wanted = {"target": 1.45, "memory_target": 1 / 4}
    lm: dict[str, Any] = {"packages": LM_EVAL, "note": IDS_GIVEN}
    slow = "; without bf16 units a CPU computes bf16 several times slower than fp32"
    in_bf16: dict[str, Any] = {"packages": LM_EVAL, "note": IDS_GIVEN + slow, "tolerance": 0.05}
    return {
        "harness": Case(name, HARNESS, "fp32", whole, ours, _harness(whole), **wanted, **floor, **lm),  # type: ignore[arg-type]
        "harness_bf16": Case(name, HARNESS, "bf16", half, _ours(options, half), _harness(half), **wanted, **in_bf16),  # type: ignore[arg-type]
        "padded": Case(name, "padded batches of 8 in file order", "fp32", unsorted, mine, padded, target=3.4),
        "streams": Case(name, "the same, one batch after the other", "fp32", whole, ours, alone, target=1.1),
        "rows": Case(name, "one row at a time", "fp32", unsorted, mine, rows),
        "bf16": Case(name, HARNESS, "bf16 against fp32", half, _ours(options, half), _harness(few), 3.3, **in_bf16),
    }


def _prefix(options: Options) -> Case:
    """All prompts begin with the same tokens, a third of all: with sharing against without."""
    work = _workload(options, REALISTIC, 24).with_prefix_share(1 / 3)
    name = "predict with a shared prefix of a third of the tokens"
    shared, alone = (_ours(options, work, share_prefixes=shares) for shares in (True, False))
    return Case(name, "the same without sharing", "fp32", work, shared, alone, target=1.3)


def _again(options: Options) -> Case:
    """All questions asked alone, and again with passages behind them: what was read of a question is kept, or not."""
    work = _workload(options, REALISTIC, 24)
    name = "predict twice, questions of a third of the tokens, then with passages behind them"
    kept, anew = (options.side("predictors:PredictTwice", work, share=1 / 3, caches=caches) for caches in (True, False))
    return Case(name, "the same, questions read twice", "fp32", work, kept, anew)


def main(arguments: Sequence[str]) -> None:
    command("inference", cases, arguments)


if __name__ == "__main__":
    run(main, __doc__)
