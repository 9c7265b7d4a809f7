"""The GPUs that torch can use on this machine, and the CUDA that torch was built for."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, its memory in bytes, and its compute capability."""

    name: str
    memory: int
    free: int
    capability: tuple[int, int]


def usable_gpus() -> list[Gpu]:
    """The GPUs in torch's order; empty without any."""
    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(about.name, total, free, (about.major, about.minor)))
    return found


def cuda_of_torch() -> str | None:
    """The version of CUDA that torch was built for, None for a build without it."""
    return torch.version.cuda
