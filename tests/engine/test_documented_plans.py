"""The table of docs/fine-tuning.md with the memory that documented commands need, against the plans.

`PYTHONPATH=tests python tests/engine/test_documented_plans.py` writes the table again.
"""

from functools import cache
from typing import Any

import pytest

from nexttoken.engine.memory_plan.make import no_side_effects, plan_parts
from nexttoken.engine.memory_plan.table import in_units
from nexttoken.models.device_sheets import SHEETS
from nexttoken.models.load import resolve
from support.composed import CONF, settings
from support.model_shapes import SHAPES

PAGE = CONF.parent / "docs" / "fine-tuning.md"
DEVICES = ("t4", "a100_40gb", "a100")
HEADING = "| settings | " + " | ".join(f"`{name}`, {in_units(SHEETS[name].free)}" for name in DEVICES) + " |"
DOCUMENTED = {  # the settings of a command, and the model that they name
    "experiment=lmsys_gemma2_9b_qlora": "gemma2_9b",
    "experiment=lmsys_conversation": "llama3_8b",
    "experiment=instruct_gemma2_27b": "gemma2_27b",
    "model=qwen2_5_7b adapter=lora quantization=nf4 adapter.r=64": "qwen2_5_7b",
    "model=qwen2_5_7b adapter=lora quantization=nf4": "qwen2_5_7b",
    "model=llama3_8b adapter=lora quantization=nf4": "llama3_8b",
    "model=llama3_8b adapter=lora batch_tokens=16384 fit.gradient_checkpointing=true": "llama3_8b",
    "model=gemma2_27b adapter=lora quantization=nf4": "gemma2_27b",
    "task=jcommonsenseqa model=open_calm_small adapter=lora": "open_calm_small",
}
FLAGSHIP, *OTHERS = DOCUMENTED


@cache
def row(command: str) -> str:
    """The line of the table for a command: the memory needed on each device, in bold where it does not fit."""
    given, config = settings(*command.split()), SHAPES[DOCUMENTED[command]]()
    memo: dict[str, Any] = {}
    with no_side_effects():
        plans = [plan_parts(resolve(given, config, memo=memo, sheet=SHEETS[name])) for name in DEVICES]
    verdicts = ["fits" if plan.fits else "**does not fit**" for plan in plans]
    cells = [f"{in_units(plan.needed)}: {verdict}" for plan, verdict in zip(plans, verdicts, strict=True)]
    return f"| `{command}` | " + " | ".join(cells) + " |"


@pytest.mark.parametrize("command", [FLAGSHIP, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)])
def test_the_page_says_what_the_plan_says(command):
    assert f"\n{row(command)}\n" in PAGE.read_text(encoding="utf-8")


def test_the_page_plans_every_command_and_device():
    text = PAGE.read_text(encoding="utf-8")
    lines = text[text.index(HEADING) :].split("\n\n")[0].splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == [*DOCUMENTED]


def write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    old = text[text.index(HEADING) :].split("\n\n")[0]
    table = "\n".join([HEADING, "|---|---:|---:|---:|", *map(row, DOCUMENTED)])
    PAGE.write_text(text.replace(old, table), encoding="utf-8")


if __name__ == "__main__":
    write()
