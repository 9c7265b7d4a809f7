"""A process's place among all of a run: its number, and its number on its machine, as the launcher has set them.

The launchers are this command itself (models/processes.py), torchrun, and srun.
"""

import os
import re
from functools import cache

from nexttoken.errors import UserError

LAUNCHER = "NEXTTOKEN_LAUNCHER"  # the number of the process of this command that started this one
FROM_SRUN = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
FROM_SRUN |= {"GROUP_RANK": "SLURM_NODEID"}  # of the machine
SAME_ON_EACH = re.compile(r"(\d+)(\(x\d+\))?")  # srun's 4(x2): four processes on each of two machines


def read_launcher() -> None:
    """Give what srun says the names that torchrun uses, also for Lightning. Called first of all.

    Raises UserError for other numbers of processes on the machines, and for a launcher that does not say them.
    """
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        os.environ |= {name: os.environ[theirs] for name, theirs in FROM_SRUN.items()}
        given = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
        if (same := SAME_ON_EACH.fullmatch(given)) is None:
            raise UserError(
                f"srun starts {given or 'unknown numbers of'} processes on the machines; every machine needs the same"
                " number: srun --ntasks-per-node=..."
            )
        os.environ["LOCAL_WORLD_SIZE"] = same[1]
    wanted = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    lacking = [name for name in wanted if name not in os.environ]
    if "RANK" in os.environ and lacking:
        raise UserError(
            f"RANK is set, and {', '.join(lacking)} is not: start the processes with torchrun or srun, or unset RANK"
        )


@cache
def rank() -> int:
    """This process's number; process 0 prints and writes."""
    return int(os.environ.get("RANK", 0))


@cache
def num_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@cache
def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


@cache
def num_local() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def num_machines() -> int:
    return num_ranks() // num_local()


def is_first() -> bool:
    return rank() == 0


def forget_place() -> None:
    """Have the place read from the environment again."""
    for known in (rank, num_ranks, local_rank, num_local):
        known.cache_clear()


def has_launcher() -> bool:
    """True where torchrun or srun started this process, and not a process of this command."""
    return "RANK" in os.environ and LAUNCHER not in os.environ


def speaks() -> bool:
    """True for the process that reports errors on its machine; those that this command started report to it."""
    return not has_launcher() or local_rank() == 0
