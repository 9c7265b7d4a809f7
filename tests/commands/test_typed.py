"""The overrides of a sweep as they were typed."""

import sys

from nexttoken.commands.typed import in_typed_order, varied


def test_overrides_stand_in_the_order_in_which_they_were_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "+trainer.x=1", "label=a,b", "fit.y=2"])
    job = ["seed=0", "label=b", "fit.y=2", "head=text", "+trainer.x=1"]
    assert in_typed_order(job) == ["+trainer.x=1", "label=b", "fit.y=2", "seed=0", "head=text"]


def test_jobs_of_a_sweep_differ_in_what_has_several_values(monkeypatch):
    typed = [
        "train.py",
        "-m",
        "name=x",
        "fit.learning_rate=2e-3",
        "seed=0,1",
        "+a=[1,2]",
        "b='c,d'",
        "e=range(0,2)",
        "~sweep",
    ]
    monkeypatch.setattr(sys, "argv", typed)
    job = ["name=x", "fit.learning_rate=0.002", "seed=1", "+a=[1,2]", "b='c,d'", "e=0", "~sweep=null", "head=text"]
    assert varied(job) == ["seed=1", "e=0", "head=text"], "the last is from a sweep's file"
