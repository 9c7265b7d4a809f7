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
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from benchmarks.gpu_records import make_record, read_records, shared_facts, summary, table
from benchmarks.measure import Names, choose
from benchmarks.shapes import SHAPES, body_parameters, chosen_attention, write_random_weights
from nexttoken.commands.arguments import Arguments, run
from nexttoken.data.files import write_json
from nexttoken.errors import UserError

ASKED = {"shape", "tokens", "rows", "steps", "batch_tokens"}  # what a record repeats of the command line


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
    kept = read_records(out)
    records: list[dict[str, Any]] = []
    for record in measure(options, methods, [choice == "true" for choice in checkpointing]):
        records.append({"command": " ".join(["python -m benchmarks.gpu", *arguments]), **record})
        if out is not None:  # after every case: a killed command leaves what it has measured
            done = {record["work"] for record in records}
            write_json([old for old in kept if old["work"] not in done] + records, out)
    print(table(records))
    print(f"{time.monotonic() - start:.0f} s")


def measure(options: Options, methods: Sequence[str], checkpointing: Sequence[bool]) -> Iterator[dict[str, Any]]:
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
        facts = shared_facts(options.model_dump(include=ASKED), dtype, attention, body_parameters(config), rate)
        facts["rows_at_once"] = rows_at_once(config, device, dtype)
        rows = "all rows of a batch at once" if facts["rows_at_once"] else "row by row"
        print(f"{facts['device']}: {rate / 1e12:.3g} TFLOP/s in {facts['dtype']}; attention {rows}", flush=True)
        print(f"writing {options.shape} with random weights to a scratch folder", flush=True)
        write_random_weights(config, Path(folder), device, dtype)
        for method in methods:
            for case, speed in measure_method(settings, method, dtype, workload, checkpointing):
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
