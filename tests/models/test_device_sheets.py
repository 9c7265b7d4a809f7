"""The sheets of devices: complete, in agreement with each other and with the page that shows them.

`PYTHONPATH=tests python tests/models/test_device_sheets.py` writes the table of docs/devices.md again.
"""

import pytest
import torch

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import BF16_CAPABILITY, SHEETS, DeviceSheet, find_sheet
from nexttoken.models.precision import fast_dtype
from support.composed import CONF

PAGE = CONF.parent / "docs" / "devices.md"
HEADING = (
    "| `device=` | GPUs | memory each, GiB | capability | fast dtype | TFLOP/s in it | GB/s | attention | Kaggle |"
)


def line(sheet: DeviceSheet) -> str:
    shape = f"`{sheet.kaggle.machine_shape}`" if sheet.kaggle else ""
    cells = [f"`{sheet.name}`", f"{sheet.gpus} x {sheet.title}", f"{sheet.free / 2**30:.1f}"]
    cells += [".".join(map(str, sheet.capability)), sheet.fast, f"{sheet.tflops[sheet.fast]:g}", f"{sheet.bandwidth:g}"]
    return "| " + " | ".join([*cells, ", ".join(sheet.attention), shape]) + " |"


def table() -> str:
    return "\n".join([HEADING, "|---|---|---:|---:|---|---:|---:|---|---|", *map(line, SHEETS.values())]) + "\n"


@pytest.mark.parametrize("sheet", SHEETS.values(), ids=lambda sheet: sheet.name)
def test_a_sheet_agrees_with_its_capability(sheet):
    has_bf16 = sheet.capability >= BF16_CAPABILITY
    assert sheet.fast == ("bfloat16" if has_bf16 else "float16")
    assert (sheet.fast in sheet.tflops, "float32" in sheet.tflops, bool(sheet.source)) == (True, True, True)
    assert sheet.tflops[sheet.fast] > sheet.tflops["float32"]
    assert ("flash" in sheet.attention) == has_bf16
    assert fast_dtype("llama", sheet) == getattr(torch, sheet.fast)


def test_two_gpus_have_the_memory_of_one_each():
    one, two = SHEETS["t4"], SHEETS["t4x2"]
    assert (one.gpus, two.gpus, one.free) == (1, 2, two.free)
    assert str(two) == "t4x2 (2 x NVIDIA T4, 14.6 GiB each)"
    assert two.kaggle.machine_shape == "NvidiaTeslaT4"
    assert two.kaggle.hours == 9


def test_a_device_of_no_use_or_unknown_is_refused_with_the_fix():
    assert find_sheet("this") is None
    with pytest.raises(UserError, match=r'compute capability 6\.0 .*machine_shape "NvidiaTeslaT4"'):
        find_sheet("p100")
    with pytest.raises(UserError, match="device=t4x3 is not known; did you mean 't4x2'"):
        find_sheet("t4x3")


def test_the_page_shows_the_sheets():
    assert f"\n{table()}" in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    old = text[text.index(HEADING) :].split("\n\n")[0]
    PAGE.write_text(text.replace(old, table().rstrip()), encoding="utf-8")
