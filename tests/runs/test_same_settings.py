"""A sweep that is typed in another way goes on in the runs that it began, whatever their names."""

import os

import pytest

from nexttoken.runs.folder import RunFolder
from nexttoken.runs.sweep_job import run_with_settings
from support.composed import composed
from support.finished_runs import damage, write_finished_fold


@pytest.fixture
def config() -> dict:
    return composed() | {"seed": 3, "name": "new"}


def found(tmp_path, number, config) -> str:
    return run_with_settings(RunFolder(tmp_path / "new"), number, config).path.name


def test_a_run_of_another_name_is_known_by_its_settings(tmp_path, config):
    write_finished_fold(tmp_path / "a", seed=2)
    assert found(tmp_path, 0, config) == "new"
    write_finished_fold(tmp_path / "b", seed=3)
    assert found(tmp_path, 0, config) == "b"
    assert found(tmp_path, 4, config) == "b", "its further folds go there, too"


def test_of_several_runs_the_one_that_got_furthest_is_taken(tmp_path, config):
    write_finished_fold(tmp_path / "a", 1, seed=3)
    (write_finished_fold(tmp_path / "b", seed=3) / "metrics.json").unlink()
    assert found(tmp_path, 0, config) == "b", "it has a checkpoint"
    write_finished_fold(tmp_path / "c", seed=3)
    assert found(tmp_path, 0, config) == "c", "it is finished"


def test_the_run_of_the_job_s_own_name_comes_first(tmp_path, config):
    write_finished_fold(tmp_path / "a", seed=3)
    write_finished_fold(tmp_path / "new", 1, seed=3)
    assert found(tmp_path, 0, config) == "new"


def test_a_run_from_before_the_data_changed_is_another_run(tmp_path, config):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("id\n")
    fold = write_finished_fold(tmp_path / "a", seed=3, input_dir=str(data))
    config |= {"input_dir": str(data)}
    assert found(tmp_path, 0, config) == "a"
    begun = (fold / "config.yaml").stat().st_mtime
    os.utime(data / "train.csv", (begun + 1, begun + 1))
    assert found(tmp_path, 0, config) == "new"


@pytest.mark.parametrize("content", [None, "{", b"\xff"])
def test_a_damaged_run_is_no_run_to_go_on_with(tmp_path, config, content):
    damage(write_finished_fold(tmp_path / "a", seed=3) / "config.yaml", content)
    assert found(tmp_path, 0, config) == "new"
