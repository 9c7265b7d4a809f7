"""Two real processes on the CPU: the same run as one process, no row lost or doubled, and no process left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from nexttoken.errors import UserError
from nexttoken.models.processes import gather_rows

pytestmark = pytest.mark.slow

# Rows that two processes cannot share evenly: the last step has one id, which leaves the second process without rows.
SMALL = [
    "fold=0",
    "limit_rows=21",
    "max_tokens=160",
    "trainer.max_epochs=2",
    "fit.batch_size=5",
    "batch_tokens=600",
    "train_transforms=none",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
    f"prompt.system='{' '.join(map(str, range(40)))}'",  # a beginning of all rows that is worth reading once
]

WAYS = {
    "one": [],
    "two": ["trainer.devices=2"],
    "sharded": ["trainer.devices=2", "trainer.strategy=fsdp"],
}


def run(repository: Path, entry: str, *overrides: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, entry, *overrides]
    return subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def runs(repository, tmp_path_factory) -> Path:
    """The same fold, trained by one process, by two, and by two that share the weights out."""
    folder = tmp_path_factory.mktemp("devices")
    for name, ways in WAYS.items():
        done = run(repository, "train.py", *SMALL, f"output_dir={folder}", f"name={name}", *ways)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("this fold (trained)") == 1, "only the first process speaks"
    return folder / "lmsys"


@pytest.mark.parametrize("way", ["two", "sharded"])
def test_two_processes_learn_what_one_learns(runs, way):
    one, two = (load_file(runs / name / "fold0/model/model.safetensors") for name in ("one", way))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)
    curves = [pd.read_csv(runs / name / "fold0/curve.csv") for name in ("one", way)]
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)


@pytest.mark.parametrize("way", ["two", "sharded"])
def test_two_processes_answer_every_row_once(runs, way):
    one, two = (pd.read_csv(runs / name / "fold0/oof.csv", dtype={"id": str}) for name in ("one", way))
    assert one["id"].tolist() == two["id"].tolist()
    assert len(one) == one["id"].nunique() == 21
    np.testing.assert_allclose(one.iloc[:, 3:], two.iloc[:, 3:], atol=1e-5)


def test_predict_on_two_devices_writes_the_same_submission(repository, runs, tmp_path):
    for name, devices in (("one", 1), ("two", 2)):
        places = (f"run={runs / 'one'}", f"submissions_dir={tmp_path}", f"name={name}", f"devices={devices}")
        done = run(repository, "predict.py", *places)
        assert done.returncode == 0, done.stderr
        assert "validated" in done.stdout
    one, two = (pd.read_csv(tmp_path / f"{name}.csv", dtype={"id": str}) for name in ("one", "two"))
    assert one["id"].tolist() == two["id"].tolist()
    np.testing.assert_allclose(one.iloc[:, 1:], two.iloc[:, 1:], atol=1e-6)
    assert len(pd.read_csv(tmp_path / "ledger.csv")) == 2


def test_an_adapter_on_a_sharded_16_bit_base_is_the_one_of_a_single_process(repository, base_dir, tmp_path):
    """Killed in between and continued: weights and optimizer states find their shards again."""
    lora = [f"model.name_or_path={base_dir}", "adapter=lora", "adapter.dropout=0", f"output_dir={tmp_path}"]
    lora += ["model.dtype=bfloat16", "trainer.precision=32-true", "fit.checkpoint_steps=1"]
    lora += ["prompt.system=''"]  # in the base's own words the numbers are too long
    for name, ways in WAYS.items():
        if name == "sharded":
            command = [sys.executable, "train.py", *SMALL, *lora, f"name={name}", *ways]
            first = subprocess.Popen(
                command, cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
            )
            wait_for_checkpoint(tmp_path / "lmsys" / name, first)
            first.kill()
            first.wait()
            assert_nobody_left(tmp_path)
        if name != "two":
            done = run(repository, "train.py", *SMALL, *lora, f"name={name}", *ways)
            assert done.returncode == 0, done.stderr
            assert ("resume:" in done.stdout) == (name == "sharded")
    one, two = (
        load_file(tmp_path / "lmsys" / name / "fold0/adapter/adapter_model.safetensors") for name in ("one", "sharded")
    )
    assert one.keys() == two.keys()
    for name in one:  # products in bfloat16 are rounded by how rows lie together, and Adam follows a sign
        difference, whole = (np.linalg.norm(np.asarray(part)) for part in (one[name] - two[name], one[name]))
        assert difference <= 2**-8 * whole, name  # one rounding
    oof = [pd.read_csv(tmp_path / "lmsys" / name / "fold0/oof.csv").iloc[:, 3:] for name in ("one", "sharded")]
    np.testing.assert_allclose(*oof, atol=0.01)  # products in bfloat16


def wait_for_checkpoint(folder: Path, first: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("**/last.ckpt")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)


def test_a_wrong_setting_stops_all_processes_with_its_line(repository, tmp_path):
    done = run(repository, "train.py", *SMALL, f"output_dir={tmp_path}", "trainer.devices=2", "max_tokens=20")
    assert done.returncode == 2
    assert "max_tokens=20 does not hold the prompt" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nobody_left(tmp_path)


def test_a_process_that_dies_stops_the_others(repository, tmp_path):
    """The second process is killed as a crash or the system would; the first must not wait for it for ever."""
    command = [
        sys.executable,
        "train.py",
        *SMALL,
        f"output_dir={tmp_path}",
        "trainer.devices=2",
        "trainer.max_epochs=500",
        "logger=none",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        command, cwd=repository, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_checkpoint(tmp_path, first)
    (second,) = [pid for pid in processes(tmp_path) if pid != first.pid]
    os.kill(second, 9)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode != 0
    assert (
        stderr.splitlines()[-1] == "process 1 of this run stopped: it was killed (status -9), often for want of memory"
    )
    assert "Traceback" not in stderr
    assert_nobody_left(tmp_path)


def processes(output_dir: Path) -> list[int]:
    """Running processes whose command line names this test's folder."""
    found = subprocess.run(["pgrep", "-f", f"output_dir={output_dir}"], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def assert_nobody_left(output_dir: Path) -> None:
    deadline = time.monotonic() + 20
    while processes(output_dir):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.2)


def test_a_row_that_nobody_answered_is_an_error():
    assert gather_rows({1: "b", 0: "a"}, 2) == ["a", "b"]
    with pytest.raises(UserError, match=r"1 answers came back for 2 rows \(missing: 1\)"):
        gather_rows({0: "a"}, 2)
