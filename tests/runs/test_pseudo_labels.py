"""Pseudo-labels: test rows in training only, with soft labels, and never one that is like a held-out row."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import pipeline
from nexttoken.build import prepare
from nexttoken.errors import UserError
from nexttoken.runs.fold_rows import Rows
from nexttoken.runs.pseudo_labels import KEY, with_pseudo_labels
from nexttoken.transforms.demonstrations import AddDemonstrations
from support.training import REPOSITORY, composed, predict, train

SAMPLE = REPOSITORY / "input" / "sample-preferences"  # whole, with its near-duplicates
CLASSES = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture
def submission(tmp_path) -> Path:
    ids = pd.read_csv(SAMPLE / "test.csv", dtype=str)["id"].head(10)
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], len(ids))
    pd.DataFrame(probs, columns=CLASSES).assign(id=ids)[["id", *CLASSES]].to_csv(tmp_path / "s.csv", index=False)
    return tmp_path / "s.csv"


def added(submission: Path, *overrides: str):
    parts, _ = prepare(composed("train", f"input_dir={SAMPLE}", f"pseudo_labels.file={submission}", *overrides), [])
    examples = pipeline.read(parts, "train")
    rows = pipeline.choose_rows(parts, examples, pipeline.split(parts, examples))
    return with_pseudo_labels(parts, rows, examples).train_transforms[KEY]


def test_rows_of_the_test_file_are_learnt_with_the_probabilities_as_labels(submission):
    rows, table = added(submission).rows, pd.read_csv(submission, dtype={"id": str}).set_index("id")
    ids = [row.id.removeprefix("pseudo ") for row in rows]
    assert len(ids) == 8  # two are near-duplicates of rows that are held out
    table = table.loc[ids]
    np.testing.assert_allclose([row.votes for row in rows], table[CLASSES])
    assert [row.label for row in rows] == table[CLASSES].to_numpy().argmax(axis=1).tolist()
    (first,) = added(submission)([])[:1]
    assert first.fields["prompt"]


def test_a_row_like_a_held_out_or_dev_row_is_left_out(submission, tmp_path, capsys):
    """Each training row's text once as a test row: those of the fold and of its dev rows are not learnt."""
    folder = tmp_path / "rows"
    folder.mkdir()
    train_rows = pd.read_csv(SAMPLE / "train.csv", dtype=str, keep_default_na=False)
    test = train_rows[["id", "prompt", "response_a", "response_b"]]
    test.to_csv(folder / "test.csv", index=False)
    probs = dict.fromkeys(CLASSES, 1 / 3)
    for path in (submission, folder / "sample_submission.csv"):
        test[["id"]].assign(**probs).to_csv(path, index=False)
    rows = added(submission, f"pseudo_labels.input_dir={folder}", "fold=1").rows
    parts, _ = prepare(composed("train", f"input_dir={SAMPLE}", "fold=1"), [])
    examples = pipeline.read(parts, "train")
    folds = pipeline.split(parts, examples)
    chosen = pipeline.choose_rows(parts, examples, folds)
    group_of = dict(zip(folds.ids, folds.groups.tolist(), strict=True))
    assert chosen.dev
    guarded = {group_of[row.id] for row in (*chosen.held_out, *chosen.dev)}
    kept = {row.id.removeprefix("pseudo ") for row in rows}
    assert kept == {row.id for row in examples if group_of[row.id] not in guarded}
    assert f"{len(examples) - len(kept)} like held-out or dev rows are left out" in capsys.readouterr().out


def test_a_training_learns_them_and_scores_the_same_rows(submission, tmp_path):
    whole = ("fold=0", f"input_dir={SAMPLE}", "logger=none")
    train(tmp_path, *whole, f"pseudo_labels.file={submission}")
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    assert saved["num_train_rows"] == 2 * (24 + 9)  # both orders; one of the ten is like a held-out row
    assert len(pd.read_csv(fold / "soft_labels.csv")) == 9
    assert not pd.read_csv(fold / "oof.csv", dtype=str)["id"].str.startswith("pseudo").any()
    train(tmp_path / "alone", *whole)
    alone = json.loads((tmp_path / "alone/lmsys/tiny/fold0/metrics.json").read_text())
    assert saved["prior_log_loss"] == alone["prior_log_loss"]  # the references are those of the labelled rows
    assert saved["num_examples"] == alone["num_examples"]
    assert saved["log_loss"] != pytest.approx(alone["log_loss"], abs=1e-5)
    assert len(predict(tmp_path, f"run={fold.parent}"))


def test_a_file_that_does_not_fit_is_refused(submission, tmp_path):
    table = pd.read_csv(submission, dtype={"id": str})
    table.rename(columns={"winner_tie": "tie"}).to_csv(tmp_path / "columns.csv", index=False)
    with pytest.raises(UserError, match="lacks the columns winner_tie"):
        added(tmp_path / "columns.csv")
    table.assign(id=[f"x{number}" for number in range(len(table))]).to_csv(tmp_path / "ids.csv", index=False)
    with pytest.raises(UserError, match=r"answers 10 ids that the test file of .* has not \(x0, .*input_dir="):
        added(tmp_path / "ids.csv")
    table.assign(winner_tie=2.0).to_csv(tmp_path / "sums.csv", index=False)
    with pytest.raises(UserError, match=r"probabilities outside \[0, 1\]"):
        added(tmp_path / "sums.csv")
    with pytest.raises(UserError, match=r"pseudo_labels=\.\.\. is for a training on classes"):
        added(submission, "trainer.max_epochs=0")


def test_guessed_answers_are_not_shown_as_solved_examples(submission):
    parts, _ = prepare(composed("train", f"input_dir={SAMPLE}", f"pseudo_labels.file={submission}"), [])
    shows = replace(parts, train_transforms={"demonstrations": AddDemonstrations()})
    with pytest.raises(UserError, match="would show guessed answers as solved examples"):
        with_pseudo_labels(shows, Rows([], [], []), [])
