"""A final model on all rows: trained beside the folds, used where it is asked for, never scored as a fold."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run, pipeline
from nexttoken.build import prepare
from nexttoken.commands.sweep import run_job
from nexttoken.data.checked_settings import check_settings
from nexttoken.errors import UserError
from nexttoken.runs.fold_rows import Rows
from nexttoken.runs.folder import RunFolder, latest_run
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import read_runs
from nexttoken.settings import Settings
from support.composed import composed as settings_of
from support.training import REPOSITORY, SAMPLE, TINY, composed, predict, train


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A fold, then the final model of the same run."""
    folder = tmp_path_factory.mktemp("output")
    train(folder, "fold=1", "logger=none")
    assert np.isnan(train(folder, "fold=all"))
    return folder


def rows(*overrides: str) -> Rows:
    parts, _ = prepare(composed("train", *TINY, "limit_rows=null", "fold=all", *overrides), [])
    examples = pipeline.read(parts, "train")
    chosen = pipeline.choose_rows(parts, examples, pipeline.split(parts, examples))
    assert sorted(one.id for one in chosen.learnt) == sorted(one.id for one in examples)
    return chosen


@pytest.mark.parametrize(("epochs", "refits"), [(0, False), (1, False), (2, True)])
def test_every_row_is_learnt_and_none_is_held_out(epochs, refits):
    chosen = rows(f"trainer.max_epochs={epochs}")
    assert (chosen.held_out, bool(chosen.dev), chosen.refits) == ([], refits, refits)


def test_the_folder_is_finished_without_a_score(output):
    final = output / "lmsys" / "tiny" / "all"
    saved = json.loads((final / "metrics.json").read_text())
    assert (saved["fold"], saved["trained"], saved["num_train_rows"]) == ("all", True, 48)
    assert not [key for key in saved if key.endswith(("log_loss", "accuracy"))]
    assert not (final / "oof.csv").exists()
    assert (final / "tensorboard" / "hparams.yaml").exists()


def test_a_second_command_only_reports_it(output, capsys):
    train(output, "fold=all")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a final model on all rows")
    assert "no out-of-fold score" in lines[0]
    assert lines[-1].endswith("predict.py run=" + str(output / "lmsys" / "tiny") + " fold=all")


def test_it_predicts_where_it_is_asked_for_and_the_folds_otherwise(output):
    of_fold, of_final = predict(output), predict(output, "fold=all")
    assert of_fold["id"].equals(of_final["id"])
    assert not np.allclose(of_fold.iloc[:, 1:], of_final.iloc[:, 1:])
    fold_line, final_line = read_ledger(output / "submissions" / "ledger.csv")
    saved = json.loads((output / "lmsys/tiny/fold1/metrics.json").read_text())
    assert (fold_line.file, fold_line.folds, fold_line.asked) == ("tiny.csv", "1", "")
    assert fold_line.oof_log_loss == pytest.approx(saved["log_loss"])
    assert final_line.file.startswith("tiny_fold-all_")
    assert (final_line.folds, final_line.asked, final_line.oof_log_loss) == ("all", "fold-all", None)
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str)
    in_notebook = load_run(output / "lmsys" / "tiny", fold="all").predict(test)
    np.testing.assert_allclose(in_notebook.iloc[:, 1:], of_final.iloc[:, 1:], atol=1e-6)


def test_reports_and_the_list_of_folds_leave_it_out(output):
    (run,) = read_runs(output)
    assert [fold.number for fold in run.folds] == [1]
    folder = RunFolder(output / "lmsys" / "tiny")
    assert [fold.number for fold in folder.finished_folds()] == [1]
    assert folder.final().number == "all"


def test_a_fold_number_is_still_for_open_answers(output):
    with pytest.raises(UserError, match="a fold's number are for open answers"):
        predict(output, "fold=1")


def test_a_run_of_a_final_model_alone_is_predicted_with_it(tmp_path, capsys):
    train(tmp_path, "fold=all", "trainer.max_epochs=2", "logger=none", "limit_rows=12")
    assert latest_run(tmp_path).path == tmp_path / "lmsys" / "tiny"
    predict(tmp_path)
    assert "has no finished fold: its final model predicts" in capsys.readouterr().out
    (line,) = read_ledger(tmp_path / "submissions" / "ledger.csv")
    assert (line.folds, line.asked, line.oof_log_loss) == ("all", "fold-all", None)
    loaded = load_run(tmp_path / "lmsys" / "tiny")
    with pytest.raises(UserError, match="none is held out"):
        loaded.held_out(loaded.folds[0])
    with pytest.raises(UserError, match="no final model on all rows; train one first"):
        RunFolder(tmp_path).final()


def test_open_answers_have_a_final_model_too(tmp_path):
    data = f"input_dir={REPOSITORY / 'input/sample-dialogue'}"
    task = ("task=dialogue", data, "limit_rows=8", "logger=none", "generate_rows=2", "generation.max_new_tokens=4")
    train(tmp_path, "fold=all", *task)
    saved = json.loads((tmp_path / "dialogue/tiny/all/metrics.json").read_text())
    assert (saved["fold"], saved["answers"], saved["num_held_out"]) == ("all", "texts", 0)
    places = (f"output_dir={tmp_path}", f"submissions_dir={tmp_path / 'submissions'}", "generation.max_new_tokens=4")
    path = pipeline.predict(composed("predict", *places, "fold=all"))
    (line,) = read_ledger(path.with_name("ledger.csv"))
    assert (line.folds, line.oof_log_loss) == ("all", None)


def test_a_sweep_prints_a_final_model_without_a_loss(capsys):
    run_job(["fold=all"], lambda: print("run: x/all") or float("nan"))
    assert "loss" not in capsys.readouterr().out


@pytest.mark.parametrize("fold", [-1, "al", "All", 1.5, None, True, "0"])
def test_any_other_fold_is_refused(fold):
    with pytest.raises(UserError, match="is not accepted: expected a number of at least 0, or all"):
        check_settings(Settings, settings_of() | {"name": "x", "fold": fold})
