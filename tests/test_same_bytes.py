"""The same seed gives the same bytes on a CPU, wherever and however the program is started: in processes of their own.

What may change them is stated here: another number of threads, and other batches.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.runs.reproduced import SETTINGS, TIMED
from support.training import SAMPLE, predict

ELSEWHERE = {  # each may order a set, name a day or read a text in another way
    "PYTHONHASHSEED": "12345",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",  # with the next line: files are read as ASCII where the code names no encoding
    "PYTHONCOERCECLOCALE": "0",
    "TZ": "Asia/Tokyo",
}
OTHER_THREADS = 1e-4  # of a probability, after a training without dropout in which sums had another order
OTHER_BATCHES = 1e-5  # of a probability, by the same weights
SAME_BYTES, THREADED = ("scratch", "noisy"), ("scratch", "quiet")  # trainings of support.trained_elsewhere
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # minutes where other programs use all cores


def train_in(folder: Path, base: Path, names: Iterable[str], **variables: str) -> Path:
    """Start a program in `folder` that trains and predicts; return its output folder."""
    folder.mkdir()
    tests = Path(__file__).parent
    paths = os.pathsep.join(map(str, (tests, tests.parent, tests.parent / "src")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": paths, **variables}
    call = [sys.executable, "-m", "support.trained_elsewhere", str(base), str(folder / "out"), ",".join(names)]
    subprocess.run(call, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return folder / "out"


@pytest.fixture(scope="module")
def first(base_dir, tmp_path_factory) -> Path:
    return train_in(tmp_path_factory.mktemp("first") / "here", base_dir, dict.fromkeys((*SAME_BYTES, *THREADED)))


def hashes(out: Path, name: str) -> dict[str, str]:
    saved = json.loads((out / "lmsys" / name / "fold0" / "metrics.json").read_text(encoding="utf-8"))
    return {file: value for file, value in saved["sealed"].items() if file not in (*TIMED, SETTINGS)}


def probabilities(path: Path) -> np.ndarray:
    return pd.read_csv(path).filter(like="winner_").to_numpy()


def test_folder_hash_seed_locale_and_time_zone_change_no_byte(first, base_dir, tmp_path):
    again = train_in(tmp_path / "other folder", base_dir, SAME_BYTES, **ELSEWHERE)
    for name in SAME_BYTES:
        assert "oof.csv" in hashes(first, name)
        assert any(file.endswith(".safetensors") for file in hashes(first, name))
        assert hashes(first, name) == hashes(again, name)
        answers = [out / "submissions" / f"{name}.csv" for out in (first, again)]
        assert answers[0].read_bytes() == answers[1].read_bytes()


def test_another_number_of_threads_stays_within_the_stated_tolerance(first, base_dir, tmp_path):
    again = train_in(tmp_path / "threads", base_dir, THREADED, OMP_NUM_THREADS="2")
    for name in THREADED:
        old, new = (probabilities(out / "lmsys" / name / "fold0" / "oof.csv") for out in (first, again))
        assert np.abs(old - new).max() <= OTHER_THREADS


@pytest.mark.parametrize("name", SAME_BYTES)
def test_batches_of_another_size_stay_within_the_stated_tolerance(first, name, tmp_path):
    expected = pd.read_csv(first / "submissions" / f"{name}.csv")
    answered = predict(tmp_path, f"run={first / 'lmsys' / name}", f"input_dir={SAMPLE}", "batch_tokens=300")
    assert [*answered["id"]] == [*expected["id"].astype(str)]
    apart = np.abs(answered.filter(like="winner_").to_numpy() - expected.filter(like="winner_").to_numpy())
    assert apart.max() <= OTHER_BATCHES
