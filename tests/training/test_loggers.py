"""The configured loggers get a run's settings and its out-of-fold scores, trained or not, of every kind of answer."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.training import train

CSV = ("+logger.csv._target_=lightning.pytorch.loggers.CSVLogger", "+logger.csv.name=csv", "+logger.csv.version=''")
DIALOGUE = ("task=dialogue", f"input_dir={Path(__file__).resolve().parents[2] / 'input' / 'sample-dialogue'}")


def last_scalars(folder: Path) -> dict[str, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("overrides", [["fit.batch_size=2"], ["trainer.max_epochs=0"]])
def test_settings_and_out_of_fold_scores_are_logged(tmp_path, overrides):
    train(tmp_path, "fold=0", *CSV, *overrides)
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    for logger in ("tensorboard", "csv"):
        logged = yaml.safe_load((fold / logger / "hparams.yaml").read_text())
        assert logged["model.scratch.hidden_size"] == 32
        assert logged["fit.learning_rate"] == 2e-3
        assert logged["seed"] == 0
    scalars = last_scalars(fold / "tensorboard")
    table = pd.read_csv(fold / "csv" / "metrics.csv")
    for name in ("log_loss", "accuracy"):
        assert scalars[f"oof_{name}"] == pytest.approx(saved[name], rel=1e-6)
        assert table[f"oof_{name}"].dropna().tolist() == pytest.approx([saved[name]])
    assert ("train_loss" in scalars) == saved["trained"]  # the curve is still there


def test_open_answers_are_logged_too(tmp_path):
    train(tmp_path, "fold=0", *DIALOGUE, "limit_rows=8")
    fold = tmp_path / "dialogue" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    scalars = last_scalars(fold / "tensorboard")
    for name in ("log_loss", "nll_per_character", "perplexity"):
        assert scalars[f"oof_{name}"] == pytest.approx(saved[name], rel=1e-6)
