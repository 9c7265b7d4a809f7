"""Compare prediction with the tools that users would otherwise run: rows/s, extra memory and equal answers.

python -m benchmarks.inference                            all cases; about a quarter of an hour on two cores
python -m benchmarks.inference cases=harness,padded       some of them; records of other cases in the file are kept
python -m benchmarks.inference size=tiny repeats=2        a rehearsal of all; writes a file only with out=

  cases         gemma, harness, harness_bf16, padded, rows, streams, bf16, prefix, again, candidates,
                vocabulary_128k, vocabulary_32k
  size          full, or tiny models and a few short rows
  rows          of each case; by default each case sets its number
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
# The logits of a token are 1 MB at 256,000 words, and a peer holds them three times: 4 rows of 1,000 tokens are 12 GB.
LARGE = {"rows": 12, "longest": 1000, "alike": 4}


def cases(options: Options) -> dict[str, Case]:
    """Every case by name. Each side is built in its own process; torch is imported there, not here."""
    return {**_vocabularies(options), **_realistic(options), **_shared(options), **_candidates(options)}


def _workload(options: Options, shape: Shape, rows: int, **fields: Any) -> Workload:
    return options.workload(shape, rows, rehearsed=6, **fields)


def _ours(options: Options, work: Workload, **arguments: Any) -> Side:
    return options.side("predictors:Predict", work, **arguments)


def _harness(work: Workload, batch_size: int = 8) -> Side:
    return Side("benchmarks.predictors:Harness", {"workload": work, "batch_size": batch_size})


def _vocabularies(options: Options) -> dict[str, Case]:
    """A small body under a large head: the cost of the logits of all positions."""
    shapes = {"gemma": GEMMA, "vocabulary_128k": small_body(128_000), "vocabulary_32k": small_body(32_000)}
    cases = {}
    for name, shape in shapes.items():
        work = _workload(options, shape, **LARGE)
        kind = "Gemma-2 shape, small body" if name == "gemma" else "small body"
        title = f"predict, {shape.sizes['vocab_size'] // 1000}k vocabulary ({kind})"
        targets = {"target": 10.0, "memory_target": 1 / 6} if name == "gemma" else {}
        fields: dict[str, Any] = {"note": "batch 4, given token ids", "packages": LM_EVAL, **targets}
        cases[name] = Case(title, HARNESS, "fp32", work, _ours(options, work), _harness(work, 4), **fields)
    return cases


def _realistic(options: Options) -> dict[str, Case]:
    """A head with a realistic share of the parameters: 24M body, 8k vocabulary."""
    name = "predict, realistic head share (24M body, 8k vocabulary)"
    whole, unsorted = _workload(options, REALISTIC, 48, alike=8), _workload(options, REALISTIC, 24)
    few = _workload(options, REALISTIC, 8, alike=8)
    half = replace(few, precision="bfloat16")
    ours, ours_unsorted, ours_half = (_ours(options, work) for work in (whole, unsorted, half))
    one_stream = options.side("predictors:OneStream", whole)
    padded, rows = (
        Side(f"benchmarks.predictors:{kind}", {"workload": unsorted}) for kind in ("PaddedBatches", "RowByRow")
    )
    fp32: dict[str, Any] = {"packages": LM_EVAL, "note": IDS_GIVEN}
    floor: dict[str, Any] = {"operations": 2 * whole.body * whole.tokens, "share_target": 0.85, **fp32}
    slow = "; without bf16 units a CPU computes bf16 several times slower than fp32"
    bf16: dict[str, Any] = {**fp32, "note": IDS_GIVEN + slow, "tolerance": 0.05}
    return {
        "harness": Case(name, HARNESS, "fp32", whole, ours, _harness(whole), 1.45, 1 / 4, **floor),
        "harness_bf16": Case(name, HARNESS, "bf16", half, ours_half, _harness(half), 1.45, 1 / 4, **bf16),
        "padded": Case(name, "padded batches of 8 in file order", "fp32", unsorted, ours_unsorted, padded, 3.4),
        "streams": Case(name, "the same, one batch after the other", "fp32", whole, ours, one_stream, 1.1),
        "rows": Case(name, "one row at a time", "fp32", unsorted, ours_unsorted, rows),
        "bf16": Case(name, HARNESS, "bf16 against fp32", half, ours_half, _harness(few), 3.3, **bf16),
    }


def _shared(options: Options) -> dict[str, Case]:
    """`prefix`: all prompts share their first tokens. `again`: each question is predicted alone, then with passages."""
    work = _workload(options, REALISTIC, 24)
    prefixed = work.with_prefix_share(1 / 3)
    name = "predict with a shared prefix of a third of the tokens"
    shared, apart = (_ours(options, prefixed, share_prefixes=shares) for shares in (True, False))
    twice = "predict twice, questions of a third of the tokens, then with passages behind them"
    cached, anew = (options.side("predictors:PredictTwice", work, share=1 / 3, caches=on) for on in (True, False))
    return {
        "prefix": Case(name, "the same without sharing", "fp32", prefixed, shared, apart, 1.3),
        "again": Case(twice, "the same, questions read twice", "fp32", work, cached, anew),
    }


def _candidates(options: Options) -> dict[str, Case]:
    """25 candidates of 10 tokens behind prompts of 400."""
    work = _workload(options, REALISTIC, 6, shortest=400, median=400, longest=400)
    ours, each = options.side("candidates:Ranked", work), Side("benchmarks.candidates:ForwardEach", {"workload": work})
    title = "score 25 candidates of 10 tokens behind 400 (24M body, 8k vocabulary)"
    return {"candidates": Case(title, "a forward for each", "fp32", work, ours, each, 5.0)}


def main(arguments: Sequence[str]) -> None:
    command("inference", cases, arguments)


if __name__ == "__main__":
    run(main, __doc__)
