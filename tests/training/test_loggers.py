"""The configured loggers get a run's settings and its out-of-fold scores, trained or not, of every kind of answer."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nexttoken.training.loggers import log_scores, opened_loggers
from support.training import train

CSV = ("+logger.csv._target_=lightning.pytorch.loggers.CSVLogger", "+logger.csv.name=csv", "+logger.csv.version=''")
DIALOGUE = ("task=dialogue", f"input_dir={Path(__file__).resolve().parents[2] / 'input' / 'sample-dialogue'}")


def last_scalars(folder: Path) -> dict[str, float]:
    """The value of each scalar that was written last; files of one second are read by name, `.10` before `.9`."""
    events = EventAccumulator(str(folder)).Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: max(found, key=lambda event: event.wall_time).value for tag, found in scalars.items()}


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


def columns_of_hparams(folder: Path) -> list[str]:
    """The scores that TensorBoard's table of settings shows and sorts by."""
    metadata = EventAccumulator(str(folder)).Reload().SummaryMetadata("_hparams_/experiment")
    infos = HParamsPluginData.FromString(metadata.plugin_data.content).experiment.metric_infos
    return [info.name.tag for info in infos]


def test_the_table_of_settings_can_be_sorted_by_the_scores(tmp_path):
    train(tmp_path, "fold=0", "trainer.max_epochs=0")
    names = ["oof_log_loss", "oof_accuracy", "oof_expected_calibration_error"]
    assert columns_of_hparams(tmp_path / "lmsys" / "tiny" / "fold0" / "tensorboard") == names


def test_names_that_a_server_refuses_are_changed_in_settings_and_scores(tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "csv", "version": ""}
    with opened_loggers({"csv": node}, tmp_path, {"task.swap.Yes (sure)": "No"}) as loggers:
        log_scores(loggers, {"auc_by(rule)": 0.5, "left_out": ["a"]}, 3)
    assert yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text()) == {"task.swap.Yes _sure": "No"}
    assert pd.read_csv(tmp_path / "csv" / "metrics.csv").to_dict("records") == [{"oof_auc_by_rule": 0.5, "step": 3}]


def test_open_answers_are_logged_too(tmp_path):
    train(tmp_path, "fold=0", *DIALOGUE, "limit_rows=8")
    fold = tmp_path / "dialogue" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    scalars = last_scalars(fold / "tensorboard")
    assert columns_of_hparams(fold / "tensorboard") == ["oof_log_loss", "oof_perplexity", "oof_nll_per_character"]
    for name in ("log_loss", "nll_per_character", "perplexity"):
        assert scalars[f"oof_{name}"] == pytest.approx(saved[name], rel=1e-6)
