"""A machine divided among processes that do not wait for each other: a GPU each, or a share of the cores."""

import os

from nexttoken.errors import UserError


def divide_machine(number: int) -> list[dict[str, str]]:
    """Variables for the environments of `number` processes: a GPU each, or of a machine without any a share of cores.

    This process is the first of them. Raises UserError for fewer GPUs than processes.
    """
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = [name or str(place) for place, name in enumerate(names)] if torch.cuda.is_available() else []
    if gpus and names == [""]:
        gpus = [str(place) for place in range(torch.cuda.device_count())]
    if gpus and len(gpus) < number:
        raise UserError(
            f"devices={number}, but this machine has {len(gpus)} GPU; set as many devices, or CUDA_VISIBLE_DEVICES= to"
            " use the CPU"
        )
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": name} for name in gpus[:number]]
    threads = max(1, torch.get_num_threads() // number)
    torch.set_num_threads(threads)
    return [{"OMP_NUM_THREADS": str(threads)}] * number
