"""A process's number among all of a run and on its machine, as torchrun and srun say it."""

import pytest

from nexttoken.errors import UserError
from nexttoken.models import places
from nexttoken.models.processes import all_devices

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NEXTTOKEN_LAUNCHER")
SRUN = {  # as srun sets them for process 5 of `srun --nodes=3 --ntasks-per-node=2`
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables of a launcher and reads them."""

    def read(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        places.forget_place()
        places.read_launcher()

    for name in (*NAMES, *SRUN):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back, too
        monkeypatch.delenv(name)
    yield read
    monkeypatch.undo()
    places.forget_place()


def place() -> tuple[int, ...]:
    return (
        places.rank(),
        places.num_ranks(),
        places.local_rank(),
        places.num_local(),
        places.num_machines(),
    )


def test_without_a_launcher_a_process_is_alone(environment):
    environment()
    assert place() == (0, 1, 0, 1, 1)
    assert not places.has_launcher()
    assert places.speaks()
    assert all_devices(3) == 3


def test_torchrun_gives_a_place_on_a_machine(environment):
    environment(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4", GROUP_RANK="1")
    assert place() == (5, 8, 1, 4, 2)
    assert not places.speaks()
    assert [all_devices(given) for given in (1, 4, 8)] == [8, 8, 8]
    with pytest.raises(UserError, match="devices=2, but the launcher started 4 processes on this machine, 8 in all"):
        all_devices(2)


def test_srun_gives_the_place_in_the_names_of_torchrun(environment):
    environment(**SRUN)
    assert place() == (5, 6, 1, 2, 3)
    assert places.os.environ["GROUP_RANK"] == "2"


@pytest.mark.parametrize("given", ["3,1", "2(x2),1", ""])
def test_other_numbers_on_the_machines_are_refused(environment, given):
    with pytest.raises(UserError, match="every machine needs the same number: srun --ntasks-per-node="):
        environment(**SRUN | {"SLURM_STEP_TASKS_PER_NODE": given})


def test_a_command_within_a_batch_job_is_a_single_process(environment):
    """As in a batch script without srun, and in a shell that srun has opened."""
    environment(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_NTASKS="8")
    assert place() == (0, 1, 0, 1, 1)
    environment(SLURM_STEP_NUM_TASKS="1", SLURM_STEP_TASKS_PER_NODE="1")
    assert place() == (0, 1, 0, 1, 1)
    assert not places.has_launcher()


def test_a_launcher_that_does_not_say_the_place_on_the_machine_is_refused(environment):
    with pytest.raises(UserError, match="RANK is set, and LOCAL_RANK, LOCAL_WORLD_SIZE is not: start the processes"):
        environment(RANK="1", WORLD_SIZE="2")
