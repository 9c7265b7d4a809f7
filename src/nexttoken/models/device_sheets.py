"""Data sheets of usual GPUs, so that a run can be planned for a machine that is not this one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator

from nexttoken.errors import UserError, nearest

BF16_CAPABILITY = GROUPS_CAPABILITY = (8, 0)  # of GPUs with bfloat16, and with fused attention for heads sharing keys
THIS = "this"  # the machine that a command runs on


@dataclass(frozen=True)
class KaggleMachine:
    """A machine of Kaggle by the name in kernel-metadata.json; limits are None where they are not known."""

    machine_shape: str
    hours: float
    ram_gib: float | None = None
    working_gib: float | None = None


@dataclass(frozen=True)
class DeviceSheet:
    """One or several GPUs of a kind; `free` is in bytes that torch can allocate on each when nothing else runs there.

    `tflops` are the maker's figures by dtype for dense products on one GPU, in 10**12 operations a second, and
    `bandwidth` in GB/s: both are published, not measured here.
    """

    name: str
    title: str
    free: int
    capability: tuple[int, int]
    fast: str  # the name of its fast dtype
    tflops: Mapping[str, float]
    bandwidth: float
    source: str
    attention: tuple[str, ...]
    gpus: int = 1
    kaggle: KaggleMachine | None = None
    refused: str = field(default="", repr=False)  # why nothing runs there, "" for usable ones

    def __str__(self) -> str:
        number = f"{self.gpus} x " if self.gpus > 1 else ""
        each = " each" if self.gpus > 1 else ""
        return f"{self.name} ({number}{self.title}, {self.free / 2**30:.1f} GiB{each})"


def _sheet(name: str, node: dict[str, Any]) -> DeviceSheet:
    own = {key: value for key, value in node.items() if key not in ("free_gib", "bandwidth_gbs", "kaggle")}
    own |= {"capability": tuple(node["capability"]), "attention": tuple(node["attention"])}
    kaggle = KaggleMachine(**node["kaggle"]) if "kaggle" in node else None
    return DeviceSheet(name, free=int(node["free_gib"] * 2**30), bandwidth=node["bandwidth_gbs"], kaggle=kaggle, **own)


_FILE = Path(__file__).with_name("device_sheets.yaml")
SHEETS = {name: _sheet(name, node) for name, node in yaml.safe_load(_FILE.read_text(encoding="utf-8")).items()}


def find_sheet(name: str) -> DeviceSheet | None:
    """The sheet of a device by its name, None for `this`. Raises UserError for an unknown or useless one."""
    if name == THIS:
        return None
    if name not in SHEETS:
        raise UserError(f"device={name} is not known; {nearest(name, [*SHEETS, THIS])}")
    if (sheet := SHEETS[name]).refused:
        shapes = " or ".join(f'"{SHEETS[other].kaggle.machine_shape}"' for other in ("t4x2", "l4"))  # type: ignore[union-attr]
        fix = f"on Kaggle write machine_shape {shapes} into kernel-metadata.json, here device=t4x2"
        raise UserError(f"device={name} is refused: {sheet.refused}; {fix}")
    return sheet


def usable_device(name: str) -> str:
    """Return the name of a device. Raises UserError as `find_sheet` does."""
    find_sheet(name)
    return name


DeviceName = Annotated[str, AfterValidator(usable_device)]  # of a command's argument device=
