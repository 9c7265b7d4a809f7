"""The report reads finished folds from disk, averages only what may be averaged, and says what may be compared."""

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from sklearn.metrics import log_loss

from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import markdown
from nexttoken.report.plots import _learning_panel, learning_curves, reliability_diagram
from nexttoken.report.published import KINDS, predicted_leaderboard, published_scores
from nexttoken.report.tables import fold_table, runs_table
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read import read_fold, read_runs
from support.commands import refusal, status_of
from support.tables import whole

main = partial(status_of, "report")

CLASSES = ["winner_model_a", "winner_model_b", "winner_tie"]
NUM_ROWS = 120
PUBLISHED_WORDS = ("ublished", "James Day", "private LB", "comparable", "public LB")


def write_fold(run: Path, fold: int, noise: float = 0.5, *, curve: bool = True, **changed) -> Path:
    """A finished fold: labels drawn from known probabilities (the same for every run), predictions a noisy copy."""
    true_rng, rng = np.random.default_rng(fold), np.random.default_rng([fold, int(noise * 1000)])
    logits = true_rng.normal(size=(NUM_ROWS, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([true_rng.choice(3, p=p) for p in true])
    guess = np.exp(logits + noise * rng.normal(size=logits.shape))
    probs = guess / guess.sum(axis=1, keepdims=True)
    folder = run / f"fold{fold}"
    folder.mkdir(parents=True)
    ids = [f"{fold:02d}{row:05d}" for row in range(NUM_ROWS)]
    oof = pd.DataFrame({"id": ids, "fold": fold, "label": labels, **dict(zip(CLASSES, probs.T, strict=True))})
    oof.to_csv(folder / "oof.csv", index=False)
    best = float(-np.log(true[np.arange(NUM_ROWS), labels]).mean())
    metrics = {
        "fold": fold,
        "log_loss": log_loss(labels, probs, labels=[0, 1, 2]),
        "accuracy": float((probs.argmax(axis=1) == labels).mean()),
        "num_examples": NUM_ROWS,
        "uniform_log_loss": math.log(3),
        "prior_log_loss": 1.09,
        "baseline_log_loss": 1.05,
        "best_possible_log_loss": best,
        "trained": True,
        "task": "lmsys",
        "dataset": "sample-preferences",
        "is_published_data": False,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | changed))
    if curve:
        steps = np.arange(0, 400, 10)
        dev = np.where(steps % 50 == 0, 0.9 + 0.01 * fold + 0.2 * np.exp(-steps / 90), np.nan)
        train = 0.85 + 0.3 * np.exp(-steps / 80) + 0.03 * rng.normal(size=len(steps))
        table = {"step": steps, "epoch": steps // 100, "train_loss": train, "learning_rate": 1e-3, "dev_log_loss": dev}
        pd.DataFrame(table).to_csv(folder / "curve.csv", index=False)
    return folder


@pytest.fixture
def task_dir(tmp_path) -> Path:
    """Two runs of three folds on the sample, one of them worse."""
    for fold in range(3):
        write_fold(tmp_path / "lmsys" / "good", fold, noise=0.3)
        write_fold(tmp_path / "lmsys" / "worse", fold, noise=1.5)
    return tmp_path / "lmsys"


def cells(table: str, first: str) -> dict[str, str]:
    """The row whose first cell holds `first`, by column name; a table's header is the line above its rule."""
    header: list[str] = []
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in whole(table).splitlines() if line[:1] == "|"
    ]
    for line, following in zip(lines, [*lines[1:], []], strict=True):
        if following and set(following[0]) <= {":", "-"}:
            header = line
        elif first in line[0]:
            return dict(zip(header, line, strict=True))
    raise AssertionError(f"no row {first!r} in\n{table}")


def table_of_fold(folder: Path) -> str:
    return fold_table(read_fold(folder).metrics, METRICS)


def test_fold_table_puts_the_fold_beside_every_reference(tmp_path):
    metrics = read_fold(write_fold(tmp_path, 0, chance_accuracy=1 / 3)).metrics
    table = fold_table(metrics, METRICS)
    names = {
        "uniform guess": "uniform",
        "class prior": "prior",
        "length/overlap": "baseline",
        "best poss": "best_possible",
    }
    for name, key in names.items():
        row, score = cells(table, name), metrics[f"{key}_log_loss"]
        assert row["log loss"] == f"{score:.4f}"
        assert float(row["difference in log loss"]) == pytest.approx(metrics["log_loss"] - score, abs=5e-5)
    assert cells(table, "uniform guess")["accuracy"] == "0.3333"
    own = cells(table, "this fold (trained)")
    assert (own["log loss"], own["accuracy"]) == (f"**{metrics['log_loss']:.4f}**", f"**{metrics['accuracy']:.4f}**")


def test_fold_table_leaves_out_an_unknown_best_possible_and_names_zero_shot(tmp_path):
    table = table_of_fold(write_fold(tmp_path, 0, best_possible_log_loss=None, trained=False))
    assert "best possible" not in table
    assert "this fold (zero-shot)" in table


@pytest.mark.parametrize("is_published_data", [False, True])
def test_fold_table_has_this_datas_scores_first_and_no_published_ones(tmp_path, is_published_data):
    table = table_of_fold(write_fold(tmp_path, 0, is_published_data=is_published_data))
    header = next(line for line in table.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in header.strip("|").split(" | ")] == [
        "score of", "log loss", "accuracy", "difference in log loss",
    ]  # fmt: skip
    assert not any(word in table for word in PUBLISHED_WORDS)


def test_published_scores_are_never_comparable_with_other_data(tmp_path):
    write_fold(tmp_path / "run", 0)
    table = runs_table(read_runs(tmp_path))
    assert "none is comparable with sample-preferences" in table
    for published in published_scores():
        row = cells(table, f"{published.who}: {published.what}")
        assert not {"comparable", "vs. best run"} & set(row)


def test_on_the_real_data_cv_is_comparable_and_leaderboards_are_not(tmp_path):
    for name, noise in (("good", 0.3), ("worse", 1.5)):
        write_fold(tmp_path / name, 0, noise, is_published_data=True, dataset="lmsys-chatbot-arena")
    table = runs_table(read_runs(tmp_path))
    row = cells(table, "James Day: Llama-3-8B")
    assert (row["CV"], row["comparable"]) == ("0.9020", "yes")
    best = read_fold(tmp_path / "good" / "fold0").metrics["log_loss"]
    assert float(row["vs. best run"]) == pytest.approx(best - 0.902, abs=5e-5)
    for name in ("ShelterW", "median"):
        assert (cells(table, name)["comparable"], cells(table, name)["vs. best run"]) == ("no", "")
    assert cells(table, "good")["predicted public LB"] == f"{0.890 * best + 0.125:.4f}"


def test_a_task_of_which_nothing_is_published_stands_beside_its_references_alone(tmp_path):
    other = {"task": "ratings", "dataset": "stars", "has_published_scores": False}
    folder = write_fold(tmp_path / "other", 0, is_published_data=True, **other)
    tables = (table_of_fold(folder), runs_table(read_runs(tmp_path)))
    assert cells(tables[0], "uniform guess")["log loss"] == f"{math.log(3):.4f}"
    assert cells(tables[1], "other")["fold 0"] == f"{read_fold(folder).metrics['log_loss']:.4f}"
    for table in tables:
        assert not any(word in table for word in PUBLISHED_WORDS)
    write_fold(tmp_path / "pairs", 0)
    assert "none is comparable with sample-preferences." in runs_table(read_runs(tmp_path))


def test_every_published_score_stands_in_the_column_of_its_own_test_set(tmp_path):
    write_fold(tmp_path / "run", 0)
    table = whole(runs_table(read_runs(tmp_path)).split("## Published scores")[1])
    header, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
    for line, published in zip(lines, published_scores(), strict=True):
        row = cells(f"{header}\n|:-|\n{line}", ": ")
        assert {kind: row[kind] for kind in KINDS if row[kind]} == {published.kind: f"{published.score:.4f}"}
    # The old public leaderboard and the final private one do not even overlap.
    public = [published.score for published in published_scores() if published.kind == "public LB"]
    private = [published.score for published in published_scores() if published.kind == "private LB"]
    assert max(public) <= 0.94 < 0.96 < min(private)


def test_predicted_leaderboard_is_james_days_line():
    assert predicted_leaderboard(0.9) == pytest.approx(0.926)


def test_runs_table_has_mean_and_sample_deviation_over_folds_and_the_pooled_score(task_dir):
    runs = read_runs(task_dir)
    table = runs_table(runs)
    for run in runs:
        losses, row = [fold.metrics["log_loss"] for fold in run.folds], cells(table, run.name)
        assert [row[f"fold {number}"] for number in range(3)] == [f"{loss:.4f}" for loss in losses]
        assert row["mean ± std"] == f"{np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f}"
        pooled = pd.concat(pd.read_csv(fold.folder / "oof.csv") for fold in run.folds)
        assert row["OOF log loss"] == f"{log_loss(pooled['label'], pooled[CLASSES]):.4f}"
        assert row["OOF accuracy"] == f"{(pooled[CLASSES].to_numpy().argmax(axis=1) == pooled['label']).mean():.4f}"
    assert table.index("| good") < table.index("| worse")
    assert "predicted public LB" not in table


def test_runs_are_paired_row_by_row(task_dir):
    good, worse = (run.oof["loss"] for run in read_runs(task_dir))
    difference = worse - good
    expected = f"{difference.mean():+.4f} ± {difference.std() / math.sqrt(len(difference)):.4f}"
    assert cells(runs_table(read_runs(task_dir)), "worse")["vs. first run"] == expected


def test_folds_scored_on_different_data_never_share_a_mean(task_dir):
    other = write_fold(task_dir / "good", 3, dataset="arena-mini")
    runs = read_runs(task_dir)
    assert [(run.name, run.data.dataset, len(run.folds)) for run in runs] == [
        ("good", "sample-preferences", 3),
        ("good", "arena-mini", 1),
        ("worse", "sample-preferences", 3),
    ]
    table = runs_table(runs)
    mini, sample = table.split("## sample-preferences")
    assert cells(mini, "good")["mean ± std"] == f"{read_fold(other).metrics['log_loss']:.4f} ± –"
    assert "fold 3" not in sample


def test_one_run_may_not_mix_two_splits(task_dir):
    oof = task_dir / "good" / "fold1" / "oof.csv"
    oof.write_text(oof.read_text().replace("\n0100007,", "\n0000007,"))
    with pytest.raises(UserError, match="0000007 scored in more than one fold"):
        read_runs(task_dir)


def test_missing_folds_leave_their_cell_open_and_are_pointed_out(task_dir):
    (task_dir / "worse" / "fold1" / "metrics.json").unlink()
    table = runs_table(read_runs(task_dir))
    assert cells(table, "worse")["fold 1"] == "–"
    assert "The runs have different folds" in table


def test_the_predicted_leaderboard_is_for_the_real_data_and_scores_come_from_the_ledger(tmp_path):
    run = tmp_path / "output" / "lmsys" / "big"
    for fold in range(2):
        write_fold(run, fold, is_published_data=True, dataset="lmsys-chatbot-arena")
    line = Submission(
        "2025-01-01T00:00:00+00:00", "big.csv", "output/lmsys/big", "0 1", 0.9, "0" * 64, private_lb=0.991
    )
    [read] = read_runs(run)
    row = cells(runs_table([read], [line]), "big")
    assert row["predicted public LB"] == f"{predicted_leaderboard(read.oof['loss'].mean()):.4f}"
    assert row["private LB"] == "0.9910"
    assert "public LB" not in row


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("metrics.json", "{", "broken"),
        ("metrics.json", "[]", "broken"),
        ("metrics.json", '{"fold": 0}', "has no 'log_loss'"),
        ("oof.csv", "", "is empty"),
        ("oof.csv", "id,fold,label,a,b\n1,0,0,0.5,nan\n", "not finite"),
        ("oof.csv", "id,fold,label,a,b\n1,0,2,0.5,0.5\n", "labels"),
        ("oof.csv", "id,fold,label,a,b\n1,0,x,0.5,0.5\n", "'x'"),
        ("oof.csv", "id,fold,label,a,b\n1,0,0,0.5,0.5\n", "1 rows of log loss 0.69315"),
        ("curve.csv", "step,loss\n1,2\n", "curve.csv is broken"),
        ("curve.csv", "", "curve.csv is broken"),
    ],
)
def test_a_broken_fold_is_refused_in_one_line(task_dir, name, content, reason, capsys):
    (task_dir / "good" / "fold0" / name).write_text(content)
    assert main([str(task_dir), f"out={task_dir / 'new'}"]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert name in message
    assert message.count("\n") == 1
    assert not (task_dir / "new").exists()


def test_a_fold_without_oof_is_refused(task_dir):
    (task_dir / "good" / "fold0" / "oof.csv").unlink()
    with pytest.raises(UserError, match=r"oof\.csv cannot be read"):
        read_runs(task_dir)


def test_curves_are_optional(task_dir, tmp_path):
    for curve in task_dir.rglob("curve.csv"):
        curve.unlink()
    assert main([str(task_dir), f"out={tmp_path / 'out'}"]) == 0
    assert not (tmp_path / "out" / "learning_curves.png").exists()
    assert (tmp_path / "out" / "report.md").exists()


def test_the_command_writes_the_page_and_its_pictures_without_torch(task_dir, tmp_path):
    code = (
        "import sys; from nexttoken.commands.report import main; main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'hydra'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(task_dir / "good"), f"out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.md").read_text()
    for picture in ("learning_curves.png", "reliability_good_sample-preferences.png"):
        assert f"(<pictures/{picture}>)" in page
        assert imread(tmp_path / "out" / "pictures" / picture).shape[0] > 300
        assert f"wrote {tmp_path / 'out' / 'pictures' / picture}" in done.stdout
    assert "| good" in done.stdout


def test_a_path_without_finished_runs_is_one_line_and_status_2(tmp_path, capsys):
    expected = f"{tmp_path} holds no finished run (<name>/fold<k>/metrics.json); run python train.py fold=0 first"
    assert refusal(capsys, "report", tmp_path) == expected


def test_plots_stand_extreme_shapes(tmp_path):
    write_fold(tmp_path / "one", 0, curve=False)
    (tmp_path / "one" / "fold0" / "curve.csv").write_text(
        "step,epoch,train_loss,learning_rate,dev_log_loss\n0,0,,,1.2\n"
    )
    runs = read_runs(tmp_path)
    learning_curves(runs * 3, tmp_path / "curves.png")
    certain = pd.DataFrame({"id": ["1"], "fold": [0], "label": [1], "a": [0.0], "b": [1.0]})
    reliability_diagram(certain, tmp_path / "reliability.png")
    assert imread(tmp_path / "curves.png").ndim == imread(tmp_path / "reliability.png").ndim == 3


def test_a_fold_without_dev_scores_has_its_held_out_score_at_the_end_of_its_curve(tmp_path):
    """One epoch has one checkpoint and nothing to choose by dev scores: its picture is more than a thin line."""
    write_fold(tmp_path / "one", 0)
    path = tmp_path / "one" / "fold0" / "curve.csv"
    pd.read_csv(path).assign(dev_log_loss=np.nan).to_csv(path, index=False)
    [run] = read_runs(tmp_path)
    _learning_panel(axes := Figure().subplots(), run, Lettering.for_names([run.name]))
    [diamond] = [line for line in axes.lines if line.get_marker() == "D"]
    step, score = float(diamond.get_xdata()[0]), float(diamond.get_ydata()[0])
    assert (step, score) == (run.folds[0].curve["step"].max(), run.folds[0].metrics["log_loss"])
    assert axes.get_ylim()[0] < score < axes.get_ylim()[1]
    assert "fold 0, dev" not in axes.get_legend_handles_labels()[1]


def test_runs_that_answer_with_texts_are_left_to_the_judge(task_dir, caplog):
    fold = task_dir / "open" / "fold0"
    fold.mkdir(parents=True)
    (fold / "metrics.json").write_text(json.dumps({"fold": 0, "log_loss": 2.0, "num_examples": 5, "answers": "texts"}))
    (fold / "oof.csv").write_text("id,fold,nll,num_tokens,num_characters\na,0,2.0,1,3\n")
    assert {run.name for run in read_runs(task_dir)} == {"good", "worse"}
    assert "1 folds answer with texts: see python -m nexttoken judge" in caplog.text
    with pytest.raises(UserError, match="see python -m nexttoken"):
        read_runs(task_dir / "open")


@given(
    names=st.lists(st.text("ab| \n", min_size=1, max_size=70), min_size=1, max_size=4), num_columns=st.integers(1, 25)
)
def test_a_table_is_at_most_a_hundred_characters_wide_and_loses_no_cell(names, num_columns):
    rows = [[name, *(f"{place}.{column:04}" for column in range(num_columns))] for place, name in enumerate(names)]
    table = markdown(["run", *(f"fold {column}" for column in range(num_columns))], rows)
    assert max(map(len, table.splitlines())) <= 100
    for row in rows:
        assert all(table.count(cell) == 1 for cell in row[1:])


def test_long_names_keep_both_ends_and_stay_apart():
    names = ["x" * 60 + end for end in ("first", "second")]
    assert f"| {'x' * 24}…{'x' * 18}first |" in markdown(["run", "score"], [[name, "1"] for name in names])
    alike = [f"{'x' * 40}{middle}{'y' * 40}" for middle in "ab"]
    table = markdown(["run", "score"], [[name, "1"] for name in alike])
    assert all(f"| …{'x' * 8}{middle}{'y' * 38}" in table or f"{middle}{'y' * 14}…" in table for middle in "ab"), table


def test_a_run_named_in_letters_without_a_font_is_drawn_without_a_warning(tmp_path, recwarn):
    write_fold(tmp_path / "芸能", 0)
    assert status_of("report", [str(tmp_path)]) == 0
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
    assert (tmp_path / "report" / "report.md").is_file()
