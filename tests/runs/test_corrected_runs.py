"""Zero-shot runs with a correction: learnt from the fold's training rows, saved with it, and applied by prediction."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.errors import UserError
from support.training import predict, train

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


def test_a_trained_run_is_not_fitted_on_the_rows_it_learnt(tmp_path):
    with pytest.raises(UserError, match="by heart"):
        train(tmp_path, "fold=0", "correction=fitted")
    assert not list(tmp_path.iterdir())
