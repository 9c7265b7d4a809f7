"""A search: the grammar of its space, what is refused before any training, and a search that is killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nexttoken.commands.search.space import Space, space_of
from nexttoken.data.packages import require
from nexttoken.errors import UserError
from support.training import REPOSITORY, TINY

optuna = pytest.importorskip("optuna")
FloatDistribution, IntDistribution = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution


def space(*overrides: str) -> Space:
    return space_of(OverridesParser.create().parse_overrides([*overrides]), (0, 1))


@pytest.mark.parametrize(
    ("typed", "distribution"),
    [
        ("interval(0.5,2)", FloatDistribution(0.5, 2)),
        ("tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("int(interval(8,64))", IntDistribution(8, 64)),
        ("tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
        ("range(1,10)", IntDistribution(1, 9)),
        ("range(10,1,-3)", IntDistribution(4, 10, step=3)),
        ("range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("16,64", optuna.distributions.CategoricalDistribution(("16", "64"))),
        ("choice(true,'a b')", optuna.distributions.CategoricalDistribution(("True", "a\\ b"))),
    ],
)
def test_hydras_grammar_is_a_distribution(typed, distribution):
    assert space(f"key={typed}").distributions == {"key": distribution}


def test_a_later_override_replaces_an_earlier_one_and_the_search_settings_are_none_of_a_trial():
    typed = ["a=1,2", "b=3,4", "sweep=search", "c='x y'", "fold=2,0", "b=5"]
    found = space_of(OverridesParser.create().parse_overrides(typed), (0, 1), own=["sweep"])
    assert (found.fixed, [*found.dimensions], found.folds) == (("b=5", "c='x y'"), ["a"], (2, 0))
    assert found.overrides({"a": "2"}) == ["b=5", "c='x y'", "a=2"]


def test_the_default_is_a_point_of_the_space_or_none():
    found = space("a=null,1,true", "b=interval(1,2)", "+c=x,y").dimensions
    assert [found["a"].of(value) for value in (None, 1, True, 2)] == ["null", "1", "True", None]
    assert [found["b"].of(value) for value in (1.5, 3, True, "1.5", None)] == [1.5, None, None, None, None]
    assert found["+c"].of("y") == "y"


def test_a_drawn_number_has_few_digits_and_stays_inside():
    one = space("a=interval(0.123456,0.2)").dimensions["a"]
    assert [one.rounded(value) for value in (0.1234561, 0.1567891)] == [0.1235, 0.1568]
    assert space("a=interval(0.123456,0.2)").dimensions["a"].rounded(0.1234) == 0.123456


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["a=1"], "nothing to search"),
        (["a=interval(2,1)"], "the first end of an interval must be below the second"),
        (["a=interval(1,inf)"], "expected ends from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
        (["a=interval(nan,1)"], "expected ends from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
        (["a=int(interval(1,1e23))"], "expected ends from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
        (["a=range(0,inf)"], "expected ends from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
        (["a=range(0,1e9)"], "has more than 10,000 values; use int(interval(...)) or interval(...)"),
        (["a=range(1000000000,0,-1)"], "has more than 10,000 values; use int(interval(...)) or interval(...)"),
        (["a=tag(log,interval(0,1))"], "both ends must be above 0"),
        (["a=tag(lg,interval(1,2))"], "the only tag is log, of an interval"),
        (["a=tag(log,choice(1,2))"], "the only tag is log, of an interval"),
        (["a=shuffle(1,2)"], "leave shuffle out"),
        (["a=range(1,2)"], "has 1 values; the end of range(start,stop,step) is left out"),
        (["seed=1,2"], "a seed is no better than another one"),
        (["name=a,b"], "give one name"),
        (["a=1,2", "fold=all"], "a trial is scored on its folds"),
        (["a=1,2", "fold=interval(0,4)"], "a trial is scored on its folds"),
        (["a=1,2", "fold=1,1"], "give each once"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(typed, words):
    with pytest.raises(UserError) as refused:
        space(*typed)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr("nexttoken.data.packages.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sweep=search needs the package optuna, .*pip install -e '\.\[search\]'"):
        require("sweep=search", "optuna")


SEARCH = [
    *("-m", "sweep=search", "sweep.trials=3", "sweep.startup=1", "fold=0,1", "logger=none", *TINY),
    *("fit.learning_rate=tag(log,interval(1e-4,1e-1))", "fit.batch_size=4,8"),
]


def start(output: Path) -> subprocess.Popen:
    """The search in a process group of its own."""
    command = [sys.executable, "train.py", *SEARCH, f"output_dir={output}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, **quiet)


def kill_at(output: Path, num_lines: int) -> None:
    """Start the search, and kill it with SIGKILL once its journal has so many lines."""
    process, journal = start(output), journal_of(output)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= num_lines):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def journal_of(output: Path) -> Path:
    return output / "lmsys" / "searches" / "tiny" / "journal.log"


def trials(output: Path) -> list[tuple]:
    backend = optuna.storages.journal.JournalFileBackend(str(journal_of(output)))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    return [(one.state.name, one.params, one.intermediate_values, one.value) for one in study.trials]


@pytest.mark.slow
def test_a_search_killed_twice_ends_as_an_undisturbed_one(tmp_path):
    whole = start(tmp_path / "whole")
    for num_lines in (3, 7):  # in the second fold of the default, and in a later trial
        kill_at(tmp_path / "killed", num_lines)
    assert start(tmp_path / "killed").wait() == 0
    assert whole.wait() == 0
    assert len(trials(tmp_path / "whole")) == 3
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path):
    assert [process.wait() for process in [start(tmp_path), start(tmp_path)]] == [0, 0]
    found = trials(tmp_path)
    assert len(found) == 3
    assert {state for state, *_ in found} <= {"COMPLETE", "PRUNED"}
    assert not [*journal_of(tmp_path).parent.glob(".trial*.lock")]
