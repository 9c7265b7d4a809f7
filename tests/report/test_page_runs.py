"""The page's table of runs, its comparison of two, and its advice: every number is that of the files."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from sklearn.metrics import accuracy_score, log_loss

from nexttoken.report.compare import COMPARED, read_cells, score_cells
from nexttoken.report.page import pairs, runs_section, short_section
from nexttoken.report.page.chapter import chapters_of
from nexttoken.report.page.runs_section import differing_settings
from nexttoken.report.ranking import Measure, Ranking
from nexttoken.runs.read import read_groups
from nexttoken.runs.read_all import read_all
from support.finished_runs import CLASSES, write_run

LABELS = np.random.default_rng(0).integers(3, size=240)


def write(folder, name, weight, noise=0.0, **changed):
    rng = np.random.default_rng([*name.encode()])
    probs = weight * np.eye(3)[LABELS] + (1 - weight) / 3
    probs = probs * np.exp(noise * rng.normal(size=probs.shape))
    write_run(folder / name, probs / probs.sum(axis=1, keepdims=True), LABELS, name=name, **changed)


def chapter_of(folder):
    (chapter,) = chapters_of(read_all(folder).runs, ())
    return chapter


def out_of_fold(run):
    table = pd.concat([pd.read_csv(path) for path in sorted(run.glob("fold*/oof.csv"))])
    return table["label"].to_numpy(), table[list(CLASSES)].to_numpy()


def test_scores_are_those_of_scikit_learn_best_first(tmp_path):
    write(tmp_path, "good", 0.5, 0.3)
    write(tmp_path, "poor", 0.1, 0.3)
    html = runs_section.section(chapter_of(tmp_path)).html
    rows = re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', html, re.S)
    assert [name for name, _ in rows] == ["good", "poor"]
    for name, cells in rows:
        labels, probs = out_of_fold(tmp_path / name)
        values = [float(value) for value in re.findall(r'data-value="([^"]+)"', cells)]
        assert values[0] == pytest.approx(log_loss(labels, probs))
        assert values[2] == pytest.approx(accuracy_score(labels, probs.argmax(axis=1)))


def test_only_settings_that_differ_are_columns():
    one = {
        "seed": 0,
        "name": "a",
        "fit": {"learning_rate": 1e-3, "batch_size": 8},
        "head": {"_target_": "nexttoken.engine.A"},
    }
    two = {
        "seed": 1,
        "name": "b",
        "fit": {"learning_rate": 2e-3, "batch_size": 8},
        "head": {"_target_": "nexttoken.engine.B"},
    }
    found = differing_settings([one, two])
    assert found == {"learning_rate": ["0.001", "0.002"], "head": ["engine.A", "engine.B"], "seed": ["0", "1"]}
    assert differing_settings([one, one]) == {}


def test_a_clear_lead_is_called_better_and_a_small_one_noise(tmp_path):
    write(tmp_path, "good", 0.6, 0.3)
    write(tmp_path, "poor", 0.1, 0.3)
    write(tmp_path, "fair", 0.1, 0.3)
    chapter = chapter_of(tmp_path)
    places = {run.name: place for place, run in enumerate(chapter.runs)}
    groups = [one.tolist() for one in chapter.groups]
    found = {(one.one, one.other): one for one in pairs.pair_differences(chapter.runs, groups, chapter.metric)}
    clear = found[places["good"], places["poor"]]
    losses = [log_loss(*out_of_fold(tmp_path / name)) for name in ("good", "poor")]
    assert clear.value == pytest.approx(losses[0] - losses[1])
    assert clear.sentence.startswith("good is better than poor by ")
    assert clear.interval.low < clear.value < clear.interval.high < 0
    close = found[tuple(sorted((places["poor"], places["fair"])))]
    assert close.is_noise
    assert close.sentence.endswith("It may be noise.")


def test_runs_of_other_rows_are_compared_on_those_that_both_scored(tmp_path):
    write(tmp_path, "all", 0.5)
    write(tmp_path, "part", 0.2)
    for fold in (2, 3):
        (tmp_path / "part" / f"fold{fold}" / "metrics.json").unlink()
    chapter = chapter_of(tmp_path)
    (pair,) = pairs.pair_differences(chapter.runs, [one.tolist() for one in chapter.groups], chapter.metric)
    assert pair.num_rows == len(LABELS) / 2


def test_the_summary_names_the_worst_class_and_the_second_run(tmp_path):
    labels = np.arange(240) % 3
    probs = np.full((240, 3), 0.1)
    probs[np.arange(240), np.where(labels == 2, 0, labels)] = 0.8
    write_run(tmp_path / "no_ties", probs, labels, name="no_ties")
    html = short_section.section(chapter_of(tmp_path)).html
    assert (
        "The worst class is winner_tie: 0 of its 80 rows are decided rightly; 80 are taken for winner_model_a." in html
    )


def test_the_advice_follows_from_what_was_measured(tmp_path):
    write(tmp_path, "first", 0.1, 0.2)
    write(tmp_path, "second", 0.1, 0.3)
    reasons = " ".join(one.reason for one in short_section.next_steps(chapter_of(tmp_path)))
    assert "blend is usually better" in reasons
    path = tmp_path / "first" / "fold0" / "metrics.json"
    metrics = json.loads(path.read_text())
    (tmp_path / "first" / "fold3" / "metrics.json").unlink()
    for fold in range(3):
        path = tmp_path / "first" / f"fold{fold}" / "metrics.json"
        path.write_text(json.dumps(metrics | json.loads(path.read_text()) | {"prior_log_loss": 0.5}))
    reasons = [one.reason for one in short_section.next_steps(chapter_of(tmp_path / "first"))]
    assert reasons[0].startswith("The class prior, which reads nothing, has 0.5000")
    assert any("1 of 4 folds of first are not trained" in reason for reason in reasons)


def test_means_and_spreads_of_folds_and_intervals_are_those_of_the_files(tmp_path):
    write(tmp_path, "only", 0.3, 0.4)
    html = runs_section.section(chapter_of(tmp_path)).html
    cells = re.search(r'<th scope="row">only</th>(.*?)</tr>', html, re.S).group(1)
    shown = re.findall(r'<td data-value="([^"]*)">([^<]*)</td>', cells)
    folds = [pd.read_csv(path) for path in sorted((tmp_path / "only").glob("fold*/oof.csv"))]
    scores = [log_loss(fold["label"], fold[list(CLASSES)].to_numpy()) for fold in folds]
    whole = log_loss(*out_of_fold(tmp_path / "only"))
    low, high = map(float, shown[1][1].split(" to "))
    assert low < whole < high
    assert float(shown[3][0]) == pytest.approx(np.mean(scores))
    assert shown[3][1].endswith(f"± {np.std(scores, ddof=1):.{len(shown[0][1].partition('.')[2])}f}")
    assert [float(value) for value, _ in shown[4:8]] == pytest.approx(scores)


def test_the_difference_of_a_pair_has_the_interval_of_the_command_compare(tmp_path):
    write(tmp_path, "good", 0.4, 0.4, head="one")
    write(tmp_path, "poor", 0.3, 0.4, head="two")
    chapter = chapter_of(tmp_path)
    groups = [run.oof["id"].map(read_groups(run.folder)).tolist() for run in chapter.runs]
    (pair,) = pairs.pair_differences(chapter.runs, groups, chapter.metric)
    scored = score_cells(read_cells([tmp_path], "head"), "head", [COMPARED["log_loss"]])
    ranking = Ranking(scored, Measure("log_loss", "log loss", "log_loss", False))
    places = [ranking.variants.index(name) for name in ("one", "two")]
    if chapter.runs[0].name == "poor":
        places.reverse()
    wanted = ranking.difference(*places)
    assert [pair.interval.low, pair.interval.high] == pytest.approx([wanted.low, wanted.high])
    assert pair.value == pytest.approx(ranking.values[places[0]] - ranking.values[places[1]])


def test_a_pair_is_compared_fold_by_fold_where_both_have_the_same_rows(tmp_path):
    write(tmp_path, "good", 0.6, 0.3)
    write(tmp_path, "poor", 0.1, 0.3)
    (tmp_path / "poor" / "fold3" / "metrics.json").unlink()
    chapter = chapter_of(tmp_path)
    (pair,) = pairs.pair_differences(chapter.runs, [one.tolist() for one in chapter.groups], chapter.metric)
    assert pair.by_fold.startswith("Lead of good by fold: ")
    shown = {int(fold): float(value) for fold, value in re.findall(r"fold (\d+) (\+[\d.]+\d)", pair.by_fold)}
    assert shown.keys() == {0, 1, 2}
    for fold, value in shown.items():
        good, poor = (pd.read_csv(tmp_path / name / f"fold{fold}" / "oof.csv") for name in ("good", "poor"))
        losses = [log_loss(table["label"], table[list(CLASSES)].to_numpy()) for table in (good, poor)]
        assert value == pytest.approx(losses[1] - losses[0], abs=0.01)


def test_runs_that_differ_by_their_seed_state_the_noise_of_seeds(tmp_path):
    write(tmp_path, "first", 0.3, 0.4, seed=0)
    write(tmp_path, "second", 0.3, 0.4, seed=1)
    html = runs_section.section(chapter_of(tmp_path)).html
    scores = [log_loss(*out_of_fold(tmp_path / name)) for name in ("first", "second")]
    band = t.ppf(0.975, 1) * np.sqrt(2) * np.std(scores, ddof=1)
    assert "differ by their seed alone" in html
    assert f"differ by less than {band:.4f} in 95 % of cases" in html


def test_long_names_lose_what_all_of_them_share_and_their_folders_are_listed(tmp_path):
    names = [f"sample-preferences_learning_rate-{rate}_max_epochs-2" for rate in ("0.001", "0.004")]
    for place, name in enumerate(names):
        write(tmp_path, name, 0.5 - 0.2 * place)
    chapter = chapter_of(tmp_path)
    assert [run.name for run in chapter.runs] == ["rate-0.001", "rate-0.004"]
    html = runs_section.section(chapter).html
    assert f"<code>{tmp_path / names[0]}</code>" in html
