"""Runs of a few seconds on the embedded sample, with a model of a few thousand parameters."""

from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from nexttoken import pipeline

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "input" / "sample-preferences"
TINY = [
    f"input_dir={SAMPLE}",
    "name=tiny",
    "limit_rows=24",
    "max_tokens=256",
    "trainer.max_epochs=1",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
]


def composed(name: str, *overrides: str):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose(name, list(overrides))


def train(output_dir: Path, *overrides: str) -> float:
    return pipeline.train(composed("train", *TINY, f"output_dir={output_dir}", *overrides))


def predict(output_dir: Path, *overrides: str) -> pd.DataFrame:
    places = (f"output_dir={output_dir}", f"submissions_dir={output_dir / 'submissions'}")
    return pd.read_csv(pipeline.predict(composed("predict", *places, *overrides)), dtype={"id": str})
