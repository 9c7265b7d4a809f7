"""predict.py within=... as a program: a valid file at every moment, the end in time, and after kills the same again."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import deadline
from benchmarks.deadline import DeadlineArguments
from support.training import REPOSITORY, SAMPLE, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "logger=none", "model.scratch.hidden_size=128", "model.scratch.num_layers=6")
    return folder / "lmsys" / "tiny"


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return deadline.write_rows(tmp_path_factory.mktemp("rows") / "sample-preferences", 4000, seed=0)


@pytest.mark.parametrize(("busy", "devices"), [(True, 1), (False, 2)])
def test_a_prediction_ends_in_time_and_its_file_is_valid_at_every_moment(trained, rows, tmp_path, busy, devices):
    given = DeadlineArguments(run=trained, within="45s", busy=busy, devices=devices)
    result = deadline.predict(given, rows, tmp_path)  # raises UserError for a file that is not valid
    assert result.seconds <= 45
    assert result.status in (0, 3)
    assert result.num_valid >= 10
    assert result.first_file < 25
    assert result.status == 0 or result.seconds >= 0.85 * 45, "it uses the time that it needs"


def test_a_prediction_that_is_killed_leaves_a_valid_file_and_goes_on(trained, rows, tmp_path):
    given = DeadlineArguments(run=trained, within="30s", kills=3, seed=1)
    *killed, last = deadline.kill(given, rows, tmp_path)  # reads the file after every kill
    assert {result.status for result in killed} <= {0, 3, -9, -15, 143}
    assert any(result.status in (-9, -15, 143) for result in killed)
    assert last.status in (0, 3)
    assert last.seconds <= 30


def test_each_job_of_a_sweep_has_the_time(trained, tmp_path):
    command = [sys.executable, "predict.py", "-m", f"run={trained}", f"input_dir={SAMPLE}", "name=a,b", "within=5m"]
    subprocess.run([*command, f"submissions_dir={tmp_path}"], check=True, cwd=REPOSITORY)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
