"""A grid: its jobs are counted once, and a wrong one is named before the first begins, while the others go on."""

import sys

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from nexttoken.build import plain
from nexttoken.commands import grid
from nexttoken.commands.entry import compose_entry
from nexttoken.commands.grid import check_jobs, num_jobs
from nexttoken.errors import UserError
from support.composed import CONF


@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        (["fold=0,1,2,3,4", "adapter.r=16,64", "seed=range(0,3)", "name=x"], 30),
        (["name=x"], 1),
        (["seed=0,1,2", "head=label,vocabulary", "fold=0,1,2,3,4", "fold=0,1"], 12),
        (["fit.learning_rate=interval(1,2)"], 1),
    ],
    ids=["several", "one", "a later one replaces an earlier one", "an interval has no number"],
)
def test_the_jobs_of_a_grid_are_counted(overrides, number):
    assert num_jobs(OverridesParser.create().parse_overrides(overrides)) == number


@pytest.mark.parametrize(
    ("override", "line"),
    [("fold=range(5,0)", "has no values"), ("seed=range(0,1000000000)", "this grid has more than 10,000 jobs")],
)
def test_no_values_and_too_many_are_refused_without_a_list_of_them(override, line):
    with pytest.raises(UserError, match=line):
        num_jobs(OverridesParser.create().parse_overrides([override]))


def check(entry: str, *jobs: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader
        check_jobs(jobs, loader, loader.load_configuration(entry, ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN))


@pytest.mark.parametrize(
    ("entry", "jobs", "line"),
    [
        (
            "train",
            [["fold=0"], ["fold=7"]],
            "1 of 2 jobs cannot begin: fold=7: fold=7 does not exist: split.num_folds=5",
        ),
        (
            "train",
            [["fold=7", "split.num_folds=9"], ["fit.batch_size=0"]],
            "1 of 2 jobs cannot begin: fit.batch_size=0:",
        ),
        ("train", [["model=scratch", "adapter=lora"]], "adapter=lora needs a pretrained base, not model=scratch"),
        ("train", [["fold=8"], ["fold=9"]], "2 of 2 jobs cannot begin: the first one fold=8: fold=8 does not exist"),
        ("predict", [["run=a"], ["run=b", "devices=0"]], "1 of 2 jobs cannot begin: run=b devices=0: devices=0"),
    ],
)
def test_a_wrong_job_is_named_with_its_fault(monkeypatch, capsys, entry, jobs, line):
    """The others go on, unless there are none."""
    monkeypatch.setattr(sys, "argv", [f"{entry}.py"])
    try:
        check(entry, *jobs)
        shown = capsys.readouterr().err.removesuffix("; the others go on\n")
        assert not line.startswith("2 of 2")
    except UserError as refused:
        shown = str(refused)
        assert len(jobs) == 1 or line.startswith("2 of 2")
    assert line in shown
    assert "\n" not in shown


def test_the_checked_settings_are_those_that_hydra_composes_for_the_job(monkeypatch):
    """Also where values refer to others: the folder of the data, and what follows from the learning rate."""
    jobs = [
        ["task=table", "input_dir=a", "++task.id=key"],
        ["model.name_or_path=x", "adapter=lora", "adapter.r=4", "adapter.target_modules=[q_proj]"],
        ["model.name_or_path=y", "adapter=lora", "fit.learning_rate=1e-3", "~sweep"],
    ]
    found = []
    monkeypatch.setattr(grid, "check_job", lambda config, entry: found.append(plain(config)))
    check("train", *jobs)
    assert found == [plain(compose_entry(CONF.parent / "train.py", job)) for job in jobs]
    assert found[1]["adapter"]["alpha"] != found[2]["adapter"]["alpha"]


def test_jobs_may_need_files_that_an_earlier_job_makes():
    made = "output/lmsys/not-yet-trained"
    others = ("candidates.from_run", "model.from_run", "pseudo_labels.file", "input_dir")
    check("train", ["name=a"], [f"teacher.run={made}"], *([f"{key}={made}"] for key in others))
    check("predict", [f"run={made}"], [f"cascade={made}"])


def test_groups_are_composed_once_for_all_jobs_with_the_same_choices(monkeypatch):
    composed, load = [], ConfigLoaderImpl.load_sweep_config

    def noted(self, master, overrides):
        composed.append(overrides)
        return load(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", noted)
    check("train", *([f"head={head}", f"fold={fold}"] for head in ("label", "vocabulary") for fold in range(5)))
    assert composed == [["head=label"], ["head=vocabulary"]]
