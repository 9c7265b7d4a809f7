"""One measured case as JSON, in the form that every benchmark has, and all of them as a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measure import versions
from benchmarks.shapes import token_cost
from nexttoken.errors import UserError
from nexttoken.report.markdown import markdown

if TYPE_CHECKING:
    from benchmarks.gpu_cases import Case, Failure, Speed

Record = dict[str, Any]
HEADER = ["work", "tokens/s", "fewest", "most", "s/step", "GiB", "useful", "executed"]


def read_records(path: Path | None) -> list[Record]:
    """The records in `path`, none when there is no file. Raises UserError for a file that is something else."""
    if path is None or not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [record for record in records if record["work"]]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is not a list of this benchmark's records; name another file with out=...") from None


def shared_facts(asked: Mapping[str, Any], dtype: Any, attention: str, num_body: int, rate: float) -> Record:
    """What all records of a command share: what was `asked`, on which machine, with which versions."""
    import torch

    return {
        **asked,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "dtype": str(dtype).removeprefix("torch."),
        "attention": attention,
        "body_parameters": num_body,
        "matrix_flops": rate,
        "versions": {**versions(), "cuda": torch.version.cuda},
    }


def make_record(case: "Case", speed: "Speed | Failure", facts: Record) -> Record:
    """One case as JSON: the keys that every benchmark has, then its own; `error` instead of figures for a failure.

    Rates are medians over the steps; `share_useful` is the arithmetic that the result needs over the device's matrix
    rate (model FLOPs utilisation against the measured rate), `share_executed` counts recomputation, too.
    """
    weights = {"lora": "", "qlora": "nf4 + "}[case.method] + facts["dtype"]
    again = {True: ", gradient checkpointing", False: ""}[case.gradient_checkpointing]
    made = {
        "work": f"{facts['shape']} {case.method}: {case.work}, {case.lengths} rows up to {facts['tokens']}{again}",
        "peer": None,
        "precision": weights,
        **dict.fromkeys(("ratio", "ratio_min", "ratio_max", "memory_ratio")),
        **facts,
        "error": getattr(speed, "error", None),
    }
    return made if made["error"] else made | _figures(case, speed, facts)  # type: ignore[arg-type]


def _figures(case: "Case", speed: "Speed", facts: Record) -> Record:
    cost = token_cost(facts["body_parameters"], case.training, case.gradient_checkpointing)
    rates = [tokens / seconds for tokens, seconds in zip(speed.tokens, speed.seconds, strict=True)]
    rate = median(rates)
    return {
        "tokens_per_second": rate,
        "tokens_per_second_min": min(rates),
        "tokens_per_second_max": max(rates),
        "seconds_per_step": median(speed.seconds),
        "step_seconds": speed.seconds,
        "step_tokens": speed.tokens,
        "padded_share": speed.padded_share,
        "batches_halved": speed.batches_halved,
        "peak_memory_gib": speed.peak_memory_gib,
        "useful_flops_per_token": cost.useful,
        "executed_flops_per_token": cost.executed,
        "share_useful": rate * cost.useful / facts["matrix_flops"],
        "share_executed": rate * cost.executed / facts["matrix_flops"],
    }


def summary(made: Record) -> str:
    return f"{made['work']}: " + (made["error"] or f"{made['tokens_per_second']:,.0f} tokens/s")


def table(records: Sequence[Record]) -> str:
    """Tokens per second (median, fewest, most), peak memory, and shares of the measured matrix rate."""
    return markdown(HEADER, [_row(made) for made in records])


def _row(made: Record) -> list[str]:
    if made["error"]:
        return [made["work"], "failed", *["–"] * 6]
    rates = [f"{made['tokens_per_second' + end]:,.0f}" for end in ("", "_min", "_max")]
    shares = [f"{made[key]:.1%}" for key in ("share_useful", "share_executed")]
    return [made["work"], *rates, f"{made['seconds_per_step']:.3f}", f"{made['peak_memory_gib']:.1f}", *shares]
