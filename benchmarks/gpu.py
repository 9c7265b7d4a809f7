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

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_records import make_record, read_records, shared_facts, summary, table
from benchmarks.shapes import SHAPES, body_parameters, chosen_attention, write_random_weights
from nexttoken.commands.arguments import key_values, run
from nexttoken.data.files import write_json
from nexttoken.errors import UserError, nearest

DEFAULTS = {
    "shape": "llama3_8b",
    "method": "lora,qlora",
    "tokens": "2048",
    "rows": "16",
    "steps": "5",
    "batch_tokens": "8192",
    "gradient_checkpointing": "true",
    "attention": "auto",
    "out": "benchmarks/results/gpu_training.json",
}


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    command: str
    shape: str
    methods: list[str]
    tokens: int
    rows: int
    steps: int
    batch_tokens: int
    gradient_checkpointing: list[bool]
    attention: str
    out: Path | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Options":
        values = key_values(arguments, DEFAULTS)
        numbers = {key: _positive(key, values[key]) for key in ("tokens", "rows", "steps", "batch_tokens")}
        given = any(argument.startswith("out=") for argument in arguments)
        return cls(
            command=" ".join(["python -m benchmarks.gpu", *arguments]),
            shape=_choices("shape", values, list(SHAPES))[0],
            methods=_choices("method", values, ["lora", "qlora"]),
            gradient_checkpointing=[
                choice == "true" for choice in _choices("gradient_checkpointing", values, ["true", "false"])
            ],
            attention=values["attention"],
            out=Path(values["out"]) if given or values["shape"] != "tiny" else None,
            **numbers,
        )

    def asked(self) -> dict[str, Any]:
        """What a record repeats of the command line."""
        return {key: getattr(self, key) for key in ("command", "shape", "tokens", "rows", "steps", "batch_tokens")}


def _positive(key: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or int(value) == 0:
        raise UserError(f"{key}={value} is not accepted: expected a whole number above 0")
    return int(value)


def _choices(key: str, values: dict[str, str], known: list[str]) -> list[str]:
    chosen = values[key].split(",") if key != "shape" else [values[key]]
    for choice in chosen:
        if choice not in known:
            raise UserError(f"{key}={choice} is not known; {nearest(choice, known)}")
    return list(dict.fromkeys(chosen))


def main(arguments: Sequence[str]) -> None:
    options, start = Options.parse(arguments), time.monotonic()
    kept = read_records(options.out)
    records: list[dict[str, Any]] = []
    for record in measure(options):
        records.append(record)
        if options.out is not None:  # after every case: a killed command leaves what it has measured
            done = {record["work"] for record in records}
            write_json([old for old in kept if old["work"] not in done] + records, options.out)
    print(table(records))
    print(f"{time.monotonic() - start:.0f} s")


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Write random weights once, measure the device's matrix rate, then every case; yield one record each.

    Raises UserError where there is no GPU, except for the tiny shape.
    """
    import torch

    if options.shape != "tiny" and not torch.cuda.is_available():
        raise UserError(f"shape={options.shape} needs a GPU, and torch sees none; shape=tiny rehearses on the CPU")
    from benchmarks.gpu_cases import Workload, matrix_rate, rows_at_once
    from benchmarks.gpu_cases import measure as measure_method
    from nexttoken.models.load import choose_device, choose_dtype
    from nexttoken.settings import ModelSettings

    config, device = SHAPES[options.shape].config(), choose_device()
    workload = Workload(options.tokens, options.rows, options.steps, options.batch_tokens, config.vocab_size)
    with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
        settings = ModelSettings(name_or_path=folder, attn_implementation=_attention(options.attention))
        dtype = choose_dtype(settings, config.model_type, training=False)
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 512)
        attention = settings.attn_implementation or chosen_attention(config)
        facts = shared_facts(options.asked(), dtype, attention, body_parameters(config), rate)
        facts["rows_at_once"] = rows_at_once(config, device, dtype)
        rows = "all rows of a batch at once" if facts["rows_at_once"] else "row by row"
        print(f"{facts['device']}: {rate / 1e12:.3g} TFLOP/s in {facts['dtype']}; attention {rows}", flush=True)
        print(f"writing {options.shape} with random weights to a scratch folder", flush=True)
        write_random_weights(config, Path(folder), device, dtype)
        for method in options.methods:
            for case, speed in measure_method(settings, method, dtype, workload, options.gradient_checkpointing):
                made = make_record(case, speed, facts)
                print(summary(made), flush=True)
                yield made


def _attention(name: str) -> str | None:
    from transformers.utils import is_flash_attn_2_available

    if name != "auto":
        return name
    return "flash_attention_2" if is_flash_attn_2_available() else None


if __name__ == "__main__":
    run(main, __doc__)
