"""The overrides of a sweep as they were typed."""

import sys

import pytest

from nexttoken.commands.typed import in_typed_order, num_jobs, varied

BASIC = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}


def test_overrides_stand_in_the_order_in_which_they_were_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "+trainer.x=1", "label=a,b", "fit.y=2"])
    job = ["seed=0", "label=b", "fit.y=2", "head=text", "+trainer.x=1"]
    assert in_typed_order(job) == ["+trainer.x=1", "label=b", "fit.y=2", "seed=0", "head=text"]


def test_jobs_of_a_sweep_differ_in_what_has_several_values(monkeypatch):
    typed = ["train.py", "-m", "name=x", "fit.learning_rate=2e-3", "seed=0,1", "+a=[1,2]", "b='c,d'", "e=range(0,2)"]
    monkeypatch.setattr(sys, "argv", typed)
    job = ["name=x", "fit.learning_rate=0.002", "seed=1", "+a=[1,2]", "b='c,d'", "e=0", "head=text"]
    assert varied(job) == ["seed=1", "e=0", "head=text"], "the last is from a sweep's file"


@pytest.mark.parametrize(
    ("params", "overrides", "number"),
    [
        ({}, ["fold=0,1,2,3,4", "adapter.r=16,64", "seed=range(0,3)", "name=x"], 30),
        ({}, ["name=x"], 1),
        ({"seed": "0,1,2", "head": "label,vocabulary", "fold": "0,1,2,3,4"}, ["fold=0,1"], 12),
        ({}, ["head=glob(*)"], None),
    ],
)
def test_the_jobs_of_a_grid_are_counted_before_they_run(monkeypatch, params, overrides, number):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides])
    assert num_jobs({**BASIC, "params": params}) == number


def test_another_sweeper_decides_the_number_of_jobs_itself():
    assert num_jobs({"_target_": "hydra_plugins.other.Sweeper"}) is None
