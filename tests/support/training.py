"""Runs of a few seconds on the embedded sample, with a model of a few thousand parameters."""

import tempfile
from pathlib import Path

import pandas as pd

from nexttoken import pipeline
from support.composed import config_of as composed

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_ROWS = {"train": 400, "test": 40, "sample_submission": 40}  # reading and grouping 2,000 takes longer than training


def write_sample(folder: Path) -> Path:
    """The first rows of the embedded sample, with their truth."""
    whole, ids = REPOSITORY / "input" / "sample-preferences", {"id"}
    folder.mkdir()
    for name, number in NUM_ROWS.items():
        lines = (whole / f"{name}.csv").read_text(encoding="utf-8").splitlines()[: number + 1]
        ids |= {line.partition(",")[0] for line in lines}
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    truth = (whole / "truth.csv").read_text(encoding="utf-8").splitlines()
    known = [line for line in truth if line.partition(",")[0] in ids]
    (folder / "truth.csv").write_text("\n".join(known) + "\n", encoding="utf-8")
    return folder


_PLACE = tempfile.TemporaryDirectory()  # until this process ends
SAMPLE = write_sample(Path(_PLACE.name) / "sample-preferences")
TINY = [
    f"input_dir={SAMPLE}",
    "name=tiny",
    "limit_rows=24",
    "max_tokens=256",
    "trainer.max_epochs=1",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
]


def train(output_dir: Path, *overrides: str) -> float:
    return pipeline.train(composed("train", *TINY, f"output_dir={output_dir}", *overrides))


def predict(output_dir: Path, *overrides: str) -> pd.DataFrame:
    places = (f"output_dir={output_dir}", f"submissions_dir={output_dir / 'submissions'}")
    return pd.read_csv(pipeline.predict(composed("predict", *places, *overrides)), dtype={"id": str})
