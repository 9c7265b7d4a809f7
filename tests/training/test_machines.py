"""Two machines, as network namespaces: the numbers of one process, one line for all failures, and no lost work."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from support.two_machines import NoNamespaces, Started, TwoMachines, two_machines
from training.test_devices import SMALL, run

pytestmark = pytest.mark.slow

LONGER = [*SMALL, "trainer.max_epochs=8", "fit.checkpoint_steps=1", "fit.learning_rate=0.0005", "logger=none"]
SECONDS = 150  # for a command on a busy machine


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[TwoMachines]:
    try:
        with two_machines(tmp_path_factory.mktemp("machines")) as both:
            yield both
    except NoNamespaces as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shared") / "output"


def torchrun(machines: TwoMachines, repository: Path, *command: str, hides: str = "") -> list[Started]:
    """Start a command on both machines; the second does not see what is in the folder `hides`."""
    started = []
    for place in (0, 1):
        meeting = ["--node-rank", str(place), "--master-addr", machines.address(0), "--master-port", "29501"]
        # torchrun as a module: its script is only on the PATH where the environment is active.
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        whole = [*launcher, "--nnodes", "2", "--nproc-per-node", "1", *meeting, *command]
        if hides and place:
            whole = ["sh", "-c", f'mount -t tmpfs none {hides} && exec "$@"', "sh", *whole]
        started.append(machines.start(place, whole, repository, {}))
    return started


def srun(machines: TwoMachines, repository: Path, *command: str) -> list[Started]:
    """Start a command on both machines with the variables that srun sets."""
    given = {"SLURM_JOB_ID": "1234", "SLURM_STEP_NODELIST": ",".join(machines.names), "SLURM_LOCALID": "0"}
    given |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    places = ({"SLURM_PROCID": str(place), "SLURM_NODEID": str(place)} for place in (0, 1))
    return [
        machines.start(place, [sys.executable, *command], repository, given | own) for place, own in enumerate(places)
    ]


def lines(started: Started) -> list[str]:
    """The lines of a process's stderr, without the launcher's own lines."""
    own = [line for line in started.complained.splitlines() if "socket.cpp" not in line]
    ends = [place for place, line in enumerate(own) if "torch/distributed/elastic" in line]
    return own[: ends[0]] if ends else own


def finish(both: Sequence[Started], status: int = 0) -> None:
    for one in both:
        assert one.wait(SECONDS) == status, one.complained
    assert both[1].printed == "", "only the first process speaks"


@pytest.fixture(scope="module")
def trained(repository, machines, output) -> Path:
    """The same fold, trained by one process, and by two machines that share the weights out."""
    for name, both in (
        ("one", []),
        ("sharded", torchrun(machines, repository, *train(output, "sharded"), "trainer.strategy=fsdp")),
    ):
        if both:
            finish(both)
        else:
            done = run(repository, *train(output, name))
            assert done.returncode == 0, done.stderr
    return output / "lmsys"


def train(output: Path, name: str) -> list[str]:
    return ["train.py", *LONGER, f"output_dir={output}", f"name={name}"]


def assert_same(one: Path, other: Path) -> None:
    weights = [load_file(run / "fold0/model/model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=1e-5)
    curves = [pd.read_csv(run / "fold0/curve.csv") for run in (one, other)]
    np.testing.assert_allclose(*curves, atol=1e-5)
    rows = [pd.read_csv(run / "fold0/oof.csv", dtype={"id": str}) for run in (one, other)]
    assert rows[0]["id"].tolist() == rows[1]["id"].tolist()
    np.testing.assert_allclose(rows[0].iloc[:, 3:], rows[1].iloc[:, 3:], atol=1e-5)


def test_two_machines_that_shard_the_model_learn_what_one_process_learns(trained):
    assert_same(trained / "one", trained / "sharded")


def test_a_machine_that_dies_ends_all_with_one_line_and_the_same_command_goes_on(repository, machines, trained, output):
    command = train(output, "killed")
    first, _ = torchrun(machines, repository, *command)
    until = time.monotonic() + SECONDS
    while not list(output.glob("*/killed/**/last.ckpt")):
        assert first.poll() is None, first.complained
        assert time.monotonic() < until
        time.sleep(0.02)
    machines.kill(1)
    start = time.monotonic()
    assert first.wait(SECONDS) != 0
    assert time.monotonic() - start < 60
    assert lines(first) == [
        f"process 1 of this run, on {machines.names[1]}, is gone: it was killed or stopped, or its machine or the"
        " network failed; the same command goes on where this one stopped"
    ]
    both = torchrun(machines, repository, *command)
    finish(both)
    assert "resume:" in both[0].printed
    assert_same(trained / "one", trained / "killed")


def test_machines_predict_their_shares_of_the_rows_under_srun(repository, machines, trained, tmp_path):
    asked = ["predict.py", f"run={trained / 'one'}", f"submissions_dir={tmp_path}"]
    finish(both := srun(machines, repository, *asked, "name=two"))
    assert both[0].printed.count("validated") == 1
    assert run(repository, *asked, "name=one").returncode == 0
    one, two = (pd.read_csv(tmp_path / f"{name}.csv", dtype={"id": str}) for name in ("one", "two"))
    assert one["id"].tolist() == two["id"].tolist()
    np.testing.assert_allclose(one.iloc[:, 1:], two.iloc[:, 1:], atol=1e-5)
    assert len(pd.read_csv(tmp_path / "ledger.csv")) == 2


def test_a_machine_that_does_not_see_the_output_folder_is_refused(repository, machines, tmp_path):
    (folder := tmp_path / "output").mkdir()
    both = torchrun(machines, repository, *train(folder, "hidden"), hides=str(folder))
    finish(both, status=1)
    for one in both:
        (line,) = lines(one)
        assert "is not shared by all machines: process 1 on" in line
    assert not list(folder.iterdir())
