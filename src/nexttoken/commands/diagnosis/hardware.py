"""The machine: cores, memory and GPUs. Only the last needs torch."""

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from nexttoken.commands.diagnosis.finding import Finding
from nexttoken.data.machine import bf16_units, processor, usable_cores
from nexttoken.models.control_groups import control_group_room
from nexttoken.runs.made_with import installed

if TYPE_CHECKING:
    from nexttoken.models.gpus import Gpu

LEAST_MEMORY = 2 * 2**30  # free bytes below which imports and a small model do not fit
SMI = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
SMI_SECONDS = 5.0
MIN_CAPABILITY = (7, 5)  # of the kernels in torch's CUDA packages


def check_processor() -> Finding:
    """The processor and its threads: more of them than the container's cores wait for each other."""
    cores, units = usable_cores(), bf16_units()
    given = os.environ.get("OMP_NUM_THREADS")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{processor()}, {cores:g} cores usable, bfloat16 units: {', '.join(units) or 'none'}"
    text += f"; OMP_NUM_THREADS={given}" if given else ""
    threads = int(given) if given and given.isdecimal() else allowed
    if threads > max(cores, 1):
        return Finding("processor", text, f"export OMP_NUM_THREADS={max(int(cores), 1)}: the container has no more")
    return Finding("processor", text)


def free_memory() -> int:
    """Bytes that are free, under the container's limit, too."""
    import psutil  # comes with peft

    available, room = psutil.virtual_memory().available, control_group_room()
    return available if room is None else min(available, room)


def check_memory() -> Finding:
    """Free memory, and what the container's limit leaves of it."""
    import psutil

    memory, room, free = psutil.virtual_memory(), control_group_room(), free_memory()
    limit = f", {_gib(room)} left under the container's limit" if room is not None else ""
    text = f"{_gib(free)} free of {_gib(memory.total)}{limit}"
    if free < LEAST_MEMORY:
        return Finding("memory", text, f"free some: end other programs, or raise the limit to {_gib(LEAST_MEMORY)}")
    return Finding("memory", text)


def check_gpus() -> list[Finding]:
    """The GPUs that torch can use, or why it uses none."""
    from nexttoken.models.gpus import cuda_of_torch, usable_gpus

    listed, cuda, torch = _listed_by_driver(), cuda_of_torch(), f"torch {installed('torch')}"
    if gpus := usable_gpus():
        driver = f", driver {listed[0].rpartition(', ')[2]}" if listed else ""
        return [_gpu(number, gpu, driver) for number, gpu in enumerate(gpus)]
    if not listed:
        build = f"{torch} was built without CUDA" if cuda is None else f"{torch} finds no driver"
        return [Finding("gpu", f"none: {build}, and nvidia-smi lists none; everything runs on the processor")]
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return [Finding("gpu", f"hidden: {listed[0]}", "unset CUDA_VISIBLE_DEVICES")]
    if cuda is None:
        fix = "install a build of torch with CUDA: pip install --force-reinstall torch, from PyPI"
        return [Finding("gpu", f"{listed[0]}, not used: {torch} was built without CUDA", fix)]
    fix = f"install a driver for CUDA {cuda}, or a torch for the driver that is there"
    return [Finding("gpu", f"{listed[0]}, which {torch} cannot use", fix)]


def _gpu(number: int, gpu: "Gpu", driver: str) -> Finding:
    major, minor = gpu.capability
    text = (
        f"{number}: {gpu.name}, {_gib(gpu.free)} free of {_gib(gpu.memory)}, compute capability {major}.{minor}{driver}"
    )
    if gpu.capability < MIN_CAPABILITY:
        return Finding(
            "gpu", text, "hide it by CUDA_VISIBLE_DEVICES=: torch has no kernels below compute capability 7.5"
        )
    return Finding("gpu", text)


def _listed_by_driver() -> list[str]:
    """A line for each GPU of the driver: name, memory, version; empty without the driver's own tool."""
    if shutil.which(SMI[0]) is None:
        return []
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
