"""This machine's processor, read from the system without torch."""

import os
import platform
import re
from pathlib import Path

CPU_INFO, CONTROL_GROUPS = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # units for products in bfloat16, as Linux names them


def processor(cpu_info: Path = CPU_INFO) -> str:
    """The processor's name by its maker; the architecture where the system does not tell it."""
    for key in ("model name", "Model", "CPU part"):
        if value := _value(cpu_info, key):
            return value
    return platform.processor() or platform.machine()


def bf16_units(cpu_info: Path = CPU_INFO) -> tuple[str, ...]:
    """The names of the processor's units for bfloat16; empty without any, and where the system does not tell."""
    flags = (_value(cpu_info, "flags") or _value(cpu_info, "Features")).split()
    return tuple(flag for flag in BF16_FLAGS if flag in flags)


def usable_cores(mount: Path = CONTROL_GROUPS) -> float:
    """Cores that this process may use at a time: those it may run on, or fewer by the limit of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _core_limit(mount)
    return allowed if limit is None else min(allowed, limit)


def _core_limit(mount: Path) -> float | None:
    """The container's limit, of control groups of both versions; None where there is none."""
    quota = _words(mount / "cpu.max")
    if not quota:
        quota = _words(mount / "cpu" / "cpu.cfs_quota_us") + _words(mount / "cpu" / "cpu.cfs_period_us")
    if len(quota) != 2 or not quota[0].isdigit():  # `max` or -1: no limit
        return None
    return int(quota[0]) / int(quota[1])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _value(cpu_info: Path, key: str) -> str:
    """The first value of a key in /proc/cpuinfo, "" where it has none."""
    try:
        text = cpu_info.read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*: *(.+)$", text, flags=re.M)
    return found[1].strip() if found else ""
