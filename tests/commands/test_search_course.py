"""The course of a search: what is proposed, given up, continued and found, with scores that need no training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nexttoken.commands import sweep
from nexttoken.commands.search.space import space_of
from nexttoken.commands.sweep import Job
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import METRICS
from nexttoken.types import Metric

optuna = pytest.importorskip("optuna")
from nexttoken.commands.search.journal import open_journal  # noqa: E402
from nexttoken.commands.search.search import Search, SearchSettings  # noqa: E402
from nexttoken.commands.search.trial_tables import print_end  # noqa: E402

LOG_LOSS, ACCURACY = METRICS[0], next(metric for metric in METRICS if metric.higher_is_better)
TYPED = ("rate=tag(log,interval(1e-4,1e-1))", "kind=a,b")
Score = Callable[[float, str, int, int], float]


def distance(rate: float, kind: str, seed: int, fold: int) -> float:
    """A loss that is lowest at a rate of 0.01 and the kind b; folds and seeds move it a little."""
    return abs(rate - 0.01) ** 0.5 + (kind == "a") + fold * 0.01 + 0.001 * ((7 * fold + 3 * seed) % 5)


@pytest.fixture(autouse=True)
def jobs(monkeypatch) -> list[Job]:
    monkeypatch.setattr(sweep, "JOBS", [])
    return sweep.JOBS


def search(folder: Path, score: Score = distance, metric: Metric = LOG_LOSS, **settings: object) -> Search:
    chosen = SearchSettings(**{"trials": 12, "folds": [0, 1, 2], "seeds": 1, "startup": 4, "prune": True, **settings})
    space = space_of(OverridesParser.create().parse_overrides([*TYPED]), chosen.folds)

    def launch(overrides: Sequence[Sequence[str]]) -> None:
        for given in overrides:
            values = dict(one.split("=") for one in given)
            seed, fold = values.get("seed", ""), int(values["fold"])
            told = tuple(one for one in given if one.split("=")[0] in ("rate", "kind"))
            found = score(float(values.get("rate", 0.5)), values.get("kind", "a"), int(seed or 0), fold)
            run = str(folder.parent / f"run_{'_'.join(told)}_{seed}")
            known = {"metric": f"dev {metric.title}", "higher_is_better": metric.higher_is_better}
            error = "too large" if found != found else ""
            sweep.JOBS.append(Job(" ".join(told), run, fold, found, error, settings=told, seed=seed, **known))

    described = {"seed": 0, "space": TYPED[0]}
    default = {key: one.of(value) for (key, one), value in zip(space.dimensions.items(), (0.05, "a"), strict=True)}
    journal = open_journal(folder, space, default, metric.higher_is_better, described, chosen.startup)
    return Search(journal, space, chosen, metric, launch)


def trials(found: Search) -> list[tuple]:
    return [(one.state.name, one.params, one.intermediate_values, one.value) for one in found.journal.trials]


def test_a_trial_counts_with_all_its_folds_and_the_default_is_the_first(tmp_path):
    found = search(tmp_path / "x")
    found.run()
    states = [one.state.name for one in found.journal.trials]
    assert len(states) == 12
    assert found.journal.trials[0].params == {"rate": 0.05, "kind": "a"}
    assert {"COMPLETE", "PRUNED"} == set(states)
    for one in found.journal.trials:
        number = len(one.intermediate_values)
        assert number == 3 if one.state.name == "COMPLETE" else number < 3
    assert states[:5] == ["COMPLETE"] * 5, "nothing is given up before four trials are complete"
    best = found.journal.study.best_trial
    assert best.params["kind"] == "b"
    assert best.value == pytest.approx(sum(distance(**best.params, seed=0, fold=fold) for fold in range(3)) / 3)


@pytest.mark.parametrize("moments", [(1, 9), (4, 17), (14, 3)])
def test_a_search_that_ends_in_the_middle_twice_ends_as_an_undisturbed_one(tmp_path, moments):
    """A job that ends its process leaves the trial as a kill does; the command then begins anew."""
    whole = search(tmp_path / "whole")
    whole.run()
    for moment in moments:
        left = iter(range(moment))

        def ending(*place, left=left) -> float:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return distance(*place)

        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "killed", ending).run()
    last = search(tmp_path / "killed")
    last.run()
    assert trials(last) == trials(whole)


def test_a_longer_search_begins_with_the_trials_of_the_shorter(tmp_path):
    search(tmp_path / "x", trials=6).run()
    found, whole = search(tmp_path / "x"), search(tmp_path / "y")
    found.run()
    whole.run()
    assert trials(found) == trials(whole)


def test_a_small_space_is_gone_through_before_a_trial_is_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.TYPED", ("rate=0.05,0.01", "kind=a,b,c"))
    found = search(tmp_path / "x", trials=6, startup=1, prune=False)
    found.run()
    assert len({tuple(one.params.values()) for one in found.journal.trials}) == 6


def test_a_metric_with_a_direction_of_its_own_is_maximised(tmp_path):
    found = search(tmp_path / "x", lambda *place: 1 - distance(*place), ACCURACY)
    found.run()
    assert found.journal.study.best_value == max(one.value for one in found.journal.trials if one.value is not None)
    assert found.journal.study.best_trial.params["kind"] == "b"


def test_a_failing_trial_is_marked_and_a_failing_default_ends_the_search(tmp_path, capsys):
    found = search(tmp_path / "x", lambda rate, kind, seed, fold: 1.0 if rate > 0.01 else float("nan"))
    found.run()
    states = [one.state.name for one in found.journal.trials]
    assert {"COMPLETE", "FAIL"} <= set(states)
    assert print_end(found).startswith(f"{states.count('FAIL')} trainings failed: ")
    assert f"{states.count('FAIL')} failed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the default configuration fails \(too large\)"):
        search(tmp_path / "y", lambda *place: float("nan")).run()


def test_a_job_with_a_score_by_another_metric_fails(tmp_path):
    found = search(tmp_path / "x")
    by_accuracy = Search(found.journal, found.space, found.settings, ACCURACY, found.launch)
    with pytest.raises(UserError, match="it has no score by accuracy"):
        by_accuracy.run()


def test_a_trial_of_another_process_is_left_to_it(tmp_path, capsys):
    found = search(tmp_path / "x")
    with found.journal.claimed(1) as trial:
        assert trial.number == 0
        other = search(tmp_path / "x", trials=3)
        other.run()
        assert [one.state.name for one in other.journal.trials] == ["RUNNING", "COMPLETE", "COMPLETE"]
        print_end(other)
    assert "trial0 is being trained by process" in capsys.readouterr().out


def test_other_settings_and_a_damaged_journal_are_refused(tmp_path):
    found = search(tmp_path / "x", trials=1)
    found.run()
    with pytest.raises(UserError, match=r"other settings \(seed: 0 -> 1\); choose another name"):
        open_journal(found.journal.folder, found.space, {}, False, {"seed": 1, "space": TYPED[0]}, 4)
    path = tmp_path / "x" / "journal.log"
    path.write_text("{" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match=r"journal\.log is no journal of a search, or damaged"):
        search(tmp_path / "x")


def test_the_end_says_whether_fresh_seeds_confirm_the_best(tmp_path, capsys):
    found = search(tmp_path / "x", seeds=3)
    found.run()
    capsys.readouterr()
    assert print_end(found) == ""
    said = capsys.readouterr().out
    assert "In 6 trainings of each with further seeds, which chose nothing" in said
    assert "better beyond noise" in said
    assert "best: python train.py -m fold=0,1,2 rate=" in said
    for name in ("parallel_coordinates.png", "importance.png"):
        assert f"picture: {tmp_path / 'x' / name}" in said
        assert (tmp_path / "x" / name).read_bytes().startswith(b"\x89PNG")


def test_a_best_that_was_lucky_is_within_noise(tmp_path, capsys):
    """Scores that no setting moves: the best of twelve looks better, and further seeds take that back."""

    def lucky(rate: float, kind: str, seed: int, fold: int) -> float:
        return 1 + (hash((round(rate, 9), kind == "a", seed, fold)) % 1000) / 1000

    found = search(tmp_path / "x", lucky, seeds=3, prune=False)
    found.run()
    capsys.readouterr()
    print_end(found)
    assert "within noise" in capsys.readouterr().out


def test_nothing_better_than_the_default_is_said_so(tmp_path, capsys):
    found = search(tmp_path / "x", lambda rate, kind, seed, fold: abs(rate - 0.05) + (kind == "b"), trials=5)
    found.run()
    print_end(found)
    assert "Nothing better than the default was found." in capsys.readouterr().out


def test_a_trial_is_one_line_of_the_journal_with_all_its_parameters(tmp_path):
    """Else a kill between two lines would leave a trial whose other parameters are drawn anew, differently."""
    found = search(tmp_path / "x", trials=3)
    found.run()
    lines = [json.loads(line) for line in (tmp_path / "x" / "journal.log").read_text(encoding="utf-8").splitlines()]
    created = [line for line in lines if line["op_code"] == 4]
    assert [sorted(line["params"]) for line in created] == [["kind", "rate"]] * 3
