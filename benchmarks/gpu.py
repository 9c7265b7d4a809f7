"""Training and prediction speed of 8B- and 9B-shaped models with random weights on one GPU, by LoRA and QLoRA.

python -m benchmarks.gpu                                  Llama-3 8B, LoRA bf16 and QLoRA NF4, rows of 2,048 tokens
python -m benchmarks.gpu shape=gemma2_9b method=qlora
python -m benchmarks.gpu gradient_checkpointing=false batch_tokens=4096
python -m benchmarks.gpu shape=tiny tokens=128 rows=4     a rehearsal of everything, on the CPU too

  shape                   llama3_8b, gemma2_9b or tiny
  method                  lora, qlora, or both with a comma
  tokens                  of each row; the second case has heavy-tailed lengths, for 2,048 tokens from 100 to 2,000
  rows                    of an optimizer step
  steps                   that are counted, behind two that are not
  batch_tokens            rows x longest row of a micro-batch
  gradient_checkpointing  true, false, or both with a comma
  attention               auto: flash_attention_2 where flash-attn is installed, else what transformers chooses
  out                     JSON; records of other work in it are kept (shape=tiny writes none unless told)
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from benchmarks.measure import Names, choose, versions
from benchmarks.shapes import SHAPES, body_parameters, chosen_attention, token_cost, write_random_weights
from nexttoken.commands.arguments import Arguments, run
from nexttoken.data.files import write_json
from nexttoken.errors import UserError
from nexttoken.report.markdown import PAGE_WIDTH, markdown

if TYPE_CHECKING:
    from benchmarks.gpu_cases import Case, Failure, Speed

Record = dict[str, Any]
HEADER = ["work", "tokens/s", "fewest", "most", "s/step", "GiB", "useful", "executed"]
REPEATED = {"shape", "tokens", "rows", "steps", "batch_tokens"}  # options that every record repeats


class Options(Arguments):
    shape: str = "llama3_8b"
    method: Names = ("lora", "qlora")
    tokens: PositiveInt = 2048
    rows: PositiveInt = 16
    steps: PositiveInt = 5
    batch_tokens: PositiveInt = 8192
    gradient_checkpointing: Names = ("true",)
    attention: str = "auto"
    out: Path | None = None

    @property
    def records_path(self) -> Path | None:
        return self.out or (None if self.shape == "tiny" else Path("benchmarks/results/gpu_training.json"))


def main(arguments: Sequence[str]) -> None:
    options, start = Options.parse(arguments), time.monotonic()
    choose("shape", [options.shape], SHAPES)
    methods = choose("method", options.method, ["lora", "qlora"])
    checkpointing = choose("gradient_checkpointing", options.gradient_checkpointing, ["true", "false"])
    out = options.records_path
    earlier = read_records(out)
    records: list[dict[str, Any]] = []
    for record in measure(options, methods, [choice == "true" for choice in checkpointing]):
        records.append({"command": " ".join(["python -m benchmarks.gpu", *arguments]), **record})
        if out is not None:  # a killed command has saved its finished cases
            done = {record["work"] for record in records}
            write_json([old for old in earlier if old["work"] not in done] + records, out)
    print(table(records))
    print(f"{time.monotonic() - start:.0f} s")


def measure(options: Options, methods: Sequence[str], checkpointing: Sequence[bool]) -> Iterator[dict[str, Any]]:
    """Write random weights once, measure the device's matrix rate, then every case; yield one record each.

    Raises UserError where there is no GPU, except for the tiny shape.
    """
    import torch

    if options.shape != "tiny" and not torch.cuda.is_available():
        raise UserError(f"shape={options.shape} needs a GPU, and torch sees none; shape=tiny rehearses on the CPU")
    from transformers.utils import is_flash_attn_2_available

    from benchmarks.gpu_cases import Workload, matrix_rate, rows_at_once
    from benchmarks.gpu_cases import measure as measure_method
    from nexttoken.models.precision import choose_dtype
    from nexttoken.models.processes import choose_device
    from nexttoken.settings import ModelSettings

    config, device = SHAPES[options.shape].config(), choose_device()
    workload = Workload(options.tokens, options.rows, options.steps, options.batch_tokens, config.vocab_size)
    attention: str | None = options.attention
    if attention == "auto":
        attention = "flash_attention_2" if is_flash_attn_2_available() else None
    with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
        settings = ModelSettings(name_or_path=folder, attn_implementation=attention)  # type: ignore[arg-type]
        dtype = choose_dtype(settings, config.model_type, training=False)
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 512)
        facts: Record = {
            **options.model_dump(include=REPEATED),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "dtype": str(dtype).removeprefix("torch."),
            "attention": settings.attn_implementation or chosen_attention(config),
            "body_parameters": body_parameters(config),
            "matrix_flops": rate,
            "versions": {**versions(), "cuda": torch.version.cuda},
        }
        facts["rows_at_once"] = rows_at_once(config, device, dtype)
        rows = "all rows of a batch at once" if facts["rows_at_once"] else "row by row"
        print(f"{facts['device']}: {rate / 1e12:.3g} TFLOP/s in {facts['dtype']}; attention {rows}", flush=True)
        print(f"writing {options.shape} with random weights to a scratch folder", flush=True)
        write_random_weights(config, Path(folder), device, dtype)
        for method in methods:
            for case, speed in measure_method(settings, method, dtype, workload, checkpointing):
                made = make_record(case, speed, facts)
                speed_text = made["error"] or f"{made['tokens_per_second']:,.0f} tokens/s"
                print(f"{made['work']}: {speed_text}", flush=True)
                yield made


def read_records(path: Path | None) -> list[Record]:
    """The records in `path`, none when there is no file. Raises UserError for a file that is something else."""
    if path is None or not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [record for record in records if record["work"]]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is not a list of this benchmark's records; name another file with out=...") from None


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


def table(records: Sequence[Record]) -> str:
    """Tokens per second (median, fewest, most), peak memory, and shares of the measured matrix rate."""
    return markdown(HEADER, [_row(made) for made in records], PAGE_WIDTH)


def _row(made: Record) -> list[str]:
    if made["error"]:
        return [made["work"], "failed", *["–"] * 6]
    rates = [f"{made['tokens_per_second' + end]:,.0f}" for end in ("", "_min", "_max")]
    shares = [f"{made[key]:.1%}" for key in ("share_useful", "share_executed")]
    return [made["work"], *rates, f"{made['seconds_per_step']:.3f}", f"{made['peak_memory_gib']:.1f}", *shares]


if __name__ == "__main__":
    run(main, __doc__)
