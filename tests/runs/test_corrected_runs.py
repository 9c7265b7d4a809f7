"""Zero-shot runs with a correction: learnt from the fold's training rows, saved with it, and applied by prediction."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.commands.ask import ask
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.load import load_run
from support.training import SAMPLE, composed, predict, train

ZERO_SHOT = ("fold=0", "trainer.max_epochs=0")
KINDS = ("batch", "content_free", "option_prior", "fitted")


@pytest.fixture(scope="module")
def uncorrected(tmp_path_factory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Out-of-fold and test probabilities of the same fold without a correction, by id."""
    folder = tmp_path_factory.mktemp("raw")
    train(folder, *ZERO_SHOT)
    return oof(folder), predict(folder).set_index("id")


def oof(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "lmsys" / "tiny" / "fold0" / "oof.csv", index_col="id").drop(columns=["fold", "label"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_shot_fold_learns_its_correction_and_predicts_with_it(tmp_path, uncorrected, kind, capsys):
    train(tmp_path, *ZERO_SHOT, f"correction={kind}")
    assert "correction: " in capsys.readouterr().out
    saved = json.loads((tmp_path / "lmsys" / "tiny" / "fold0" / "inference.json").read_text())["correction"]
    for raw, own in zip(uncorrected, (oof(tmp_path), predict(tmp_path).set_index("id")), strict=True):
        logits = np.array(saved["scales"] or 1.0) * np.log(raw.loc[own.index].to_numpy()) + saved["offsets"]["3"]
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert own.to_numpy() == pytest.approx(expected, abs=1e-5)


def test_a_corrected_run_can_be_asked_without_its_correction_and_with_another(tmp_path, uncorrected):
    train(tmp_path, *ZERO_SHOT, "correction=batch")
    run = tmp_path / "lmsys" / "tiny"
    for kind in ("none", "option_prior"):
        ask(composed("predict", f"run={run}", f"correction={kind}"))
    ways = {way.path.name.rpartition("_")[0]: way for way in RunFolder(run).ways}
    assert ways.keys() == {"correction-none", "OptionPrior"}
    own = pd.read_csv(ways["correction-none"].fold(0).path / "oof.csv", index_col="id")
    pd.testing.assert_frame_equal(own.drop(columns=["fold", "label"]), uncorrected[0])


def test_the_folds_of_one_model_ask_it_once_each_with_its_own_correction(tmp_path, base_dir, monkeypatch):
    for fold in (0, 1):
        train(tmp_path, f"fold={fold}", "trainer.max_epochs=0", f"model.name_or_path={base_dir}", "correction=batch")
    test, asked = pd.read_csv(SAMPLE / "test.csv", dtype=str).head(20), []
    whole = load_run(tmp_path / "lmsys" / "tiny")
    singles = [replace(whole, folds=[fold]).predict(test).iloc[:, 1:].to_numpy() for fold in whole.folds]
    assert not np.allclose(*singles)
    call = LabelAnswerer.__call__
    monkeypatch.setattr(LabelAnswerer, "__call__", lambda self, rows: (asked.append(len(rows)), call(self, rows))[1])
    np.testing.assert_allclose(whole.predict(test).iloc[:, 1:], np.mean(singles, axis=0), atol=1e-9)
    assert asked == [20]


def test_a_trained_run_is_not_fitted_on_the_rows_it_learnt(tmp_path):
    with pytest.raises(UserError, match="by heart"):
        train(tmp_path, "fold=0", "correction=fitted")
    assert not list(tmp_path.iterdir())
