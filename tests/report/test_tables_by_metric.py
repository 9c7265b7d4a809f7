"""Pages of a task with a metric of its own: it ranks the runs and stands first, computed anew from the rows."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from nexttoken.errors import UserError
from nexttoken.metrics.decisions import at_threshold, choose_threshold
from nexttoken.metrics.named import metric_named, metrics_of
from nexttoken.report.plots import _draw_metric
from nexttoken.report.tables import fold_table, runs_table
from nexttoken.runs.read import read_fold, read_runs
from support.commands import status_of
from support.tables import whole

NUM_ROWS, RULES = 90, ("spam", "law", "ads")
main = partial(status_of, "report")


def write_fold(
    run: Path, fold: int, name: str = "auc_by(rule)", skill: float = 2.0, scale: float = 1.0, **changed: object
) -> Path:
    """A finished fold of two classes: `skill` orders the rows, a `scale` above 1 makes the model too sure of itself."""
    rng = np.random.default_rng(fold)
    labels, rules = (rng.random(NUM_ROWS) < 0.3).astype(int), rng.choice(RULES, NUM_ROWS)
    positive = 1 / (1 + np.exp(-scale * (skill * labels + rng.normal(size=NUM_ROWS) - 1.5)))
    probs = np.column_stack([1 - positive, positive])
    folder = run / f"fold{fold}"
    folder.mkdir(parents=True)
    ids = np.array([f"{fold}-{row}" for row in range(NUM_ROWS)])
    oof = pd.DataFrame({"id": ids, "fold": fold, "label": labels, "0": probs[:, 0], "1": probs[:, 1]})
    oof.to_csv(folder / "oof.csv", index=False)
    rows = pd.DataFrame({"id": ids, "rule": rules, "num_options": 2})
    rows.sample(frac=1, random_state=fold).to_csv(folder / "rows.csv", index=False)  # may be in another order
    metrics = {
        "fold": fold,
        "metric": name,
        "is_quiz": False,
        "baseline": "TF-IDF",
        **{metric.name: metric.score(probs, labels, rules) for metric in metrics_of(name)},
        f"chance_{name}": 0.5,
        f"prior_{name}": 0.5,
        f"baseline_{name}": 0.61,
        "uniform_log_loss": 0.6931,
        "prior_log_loss": 0.6,
        "baseline_log_loss": 0.55,
        "num_examples": NUM_ROWS,
        "trained": True,
        "task": "rules",
        "dataset": "rules",
        "is_published_data": False,
        "has_published_scores": False,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | changed))
    return folder


def rows_of(table: str) -> dict[str, dict[str, str]]:
    """The cells of a table's rows by the first one without its marks, then by the header."""
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in whole(table).splitlines() if line[:1] == "|"
    ]
    return {line[0].strip("*"): dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_the_metric_stands_first_in_the_table_of_a_fold(tmp_path):
    saved = read_fold(write_fold(tmp_path, 0)).metrics
    rows = rows_of(fold_table(saved, metrics_of("auc_by(rule)")))
    row, score = rows["TF-IDF"], saved["auc_by(rule)"]
    assert list(row) == ["score of", "AUC by rule", "log loss", "accuracy", "difference in AUC by rule"]
    assert (row["AUC by rule"], row["log loss"]) == ("0.6100", "0.5500")
    assert float(row["difference in AUC by rule"]) == pytest.approx(score - 0.61, abs=5e-5)
    assert rows["this fold (trained)"]["AUC by rule"] == f"**{score:.4f}**"


def test_a_fold_without_a_score_has_its_log_loss_beside_an_open_cell(tmp_path):
    saved = read_fold(write_fold(tmp_path / "run", 0, **{"auc_by(rule)": None})).metrics
    row = rows_of(fold_table(saved, metrics_of("auc_by(rule)")))["this fold (trained)"]
    assert (row["AUC by rule"], row["log loss"]) == ("**–**", f"**{saved['log_loss']:.4f}**")
    row = rows_of(runs_table(read_runs(tmp_path)))["run"]
    assert (row["fold 0"], row["mean ± std"]) == ("–", "–")


def test_runs_are_ranked_by_the_metric_and_not_by_log_loss(tmp_path):
    for fold in range(2):
        write_fold(tmp_path / "sure", fold, skill=2.0, scale=8.0)
        write_fold(tmp_path / "calm", fold, skill=1.2)
    calm, sure = read_runs(tmp_path)
    assert (calm.name, sure.metric.name) == ("calm", "auc_by(rule)")
    assert log_loss(sure.oof["label"], sure.oof["1"]) > log_loss(calm.oof["label"], calm.oof["1"])
    table = runs_table([calm, sure])
    rows = rows_of(table)
    assert list(rows) == ["sure", "calm"]
    row = rows["sure"]
    assert row["fold 1"] == f"{sure.folds[1].metrics['auc_by(rule)']:.4f}"
    rules = pd.concat(pd.read_csv(fold.folder / "rows.csv", dtype={"id": str}) for fold in sure.folds)
    by_rule = sure.oof.merge(rules, on="id").groupby("rule")
    expected = np.mean([roc_auc_score(of_rule["label"], of_rule["1"]) for _, of_rule in by_rule])
    assert row["OOF AUC by rule"] == f"{expected:.3f}", "the interval supports three decimals"
    low, high = map(float, row["95 % interval"].split(" to "))
    assert low < expected < high
    assert row["vs. TF-IDF"] == f"{expected - 0.61:+.4f}"
    difference, error = map(float, rows["calm"]["vs. first run"].split(" ± "))
    assert difference < 0 < error
    assert "AUC by rule, higher is better." in table


def test_a_metric_needs_its_column_in_the_rows(tmp_path, capsys):
    folder = write_fold(tmp_path / "run", 0)
    rows = pd.read_csv(folder / "rows.csv", dtype=str)
    rows.drop(columns="rule").to_csv(folder / "rows.csv", index=False)
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "rows.csv" in message
    assert "rule" in message
    rows[1:].to_csv(folder / "rows.csv", index=False)
    with pytest.raises(UserError, match="lacks the ids 0-"):
        read_runs(tmp_path)


def test_thresholds_are_chosen_on_the_rows_of_other_folds(tmp_path):
    for fold in range(3):
        write_fold(tmp_path / "run", fold, "f1(binary)", threshold=0.3)
    [run] = read_runs(tmp_path)
    metric, decided = metric_named("f1(binary)"), []
    for fold in run.folds:
        others = pd.concat(other.oof for other in run.folds if other is not fold)
        threshold = choose_threshold(metric, others[["0", "1"]].to_numpy(), others["label"].to_numpy())
        decided.append(fold.oof["1"] > threshold)
    assert run.score(metric) == pytest.approx(f1_score(run.oof["label"], pd.concat(decided, ignore_index=True)))
    write_fold(tmp_path / "alone" / "one", 0, "f1(binary)", threshold=0.3)
    [alone] = read_runs(tmp_path / "alone")
    probs = at_threshold(alone.oof[["0", "1"]].to_numpy(), 0.3)
    assert alone.score(metric) == metric.score(probs, alone.oof["label"].to_numpy())


def test_the_report_and_its_curves_are_written_for_such_runs(tmp_path):
    folder = write_fold(tmp_path / "run", 0)
    write_fold(tmp_path / "run", 1)  # without a curve
    curve = {"step": [10, 20, 20], "train_loss": [0.7, 0.6, None], "dev_log_loss": [None, None, 0.65]}
    pd.DataFrame(curve | {"dev_auc_by(rule)": [None, None, 0.75]}).to_csv(folder / "curve.csv", index=False)
    [run] = read_runs(tmp_path)
    assert run.folds[0].curve["dev_metric"].dropna().tolist() == [0.75]
    assert _draw_metric(Figure().subplots(), run)
    assert not _draw_metric(Figure().subplots(), replace(run, folds=run.folds[1:]))
    assert main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "pictures" / "learning_curves.png").is_file()
    assert "OOF AUC by rule" in (tmp_path / "out" / "report.md").read_text()
