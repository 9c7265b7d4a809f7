"""predict.py that is killed at any moment goes on with the rows that it has, and its submission is the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nexttoken import pipeline
from support.training import composed, train

KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/runs"]
from test_predict_resumes import predict
predict(Path({output!r}), {submissions!r})
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folds 0 and 1 of a run that asks in both orders."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "inference=swap_averaged", "logger=none")
    return folder


def predict(output_dir: Path, submissions: str, *overrides: str) -> bytes:
    """The submission's bytes; small batches, so that there are many moments to be killed at."""
    places = [f"output_dir={output_dir}", f"submissions_dir={output_dir / submissions}"]
    return pipeline.predict(composed("predict", *places, "batch_tokens=300", *overrides)).read_bytes()


def num_lines(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.jsonl"))


@pytest.mark.slow
def test_a_prediction_that_is_killed_goes_on_where_it_stopped(trained, repository):
    undisturbed = predict(trained, "whole")
    total = num_lines(trained / "whole" / "written")
    written = trained / "killed" / "written"
    code = KILLED.format(tests=str(repository / "tests"), output=str(trained), submissions="killed")
    for moment in (1, total // 3, total * 3 // 4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=repository)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if num_lines(written) > moment:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
        assert process.wait() == -signal.SIGKILL, "it was killed in the middle"
        assert not list((trained / "killed").glob("*.csv"))
    assert predict(trained, "killed") == undisturbed
    assert num_lines(written) == total
    for journal in written.iterdir():
        keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]
        assert len(keys) == len(set(keys)), "no row was asked twice"


def test_a_finished_prediction_is_repeated_from_what_it_has(trained, capsys):
    first = predict(trained, "submissions")
    (one, other) = (trained / "submissions" / "written").iterdir()
    before = one.read_bytes(), other.read_bytes()
    assert predict(trained, "submissions", "name=again") == first
    assert (one.read_bytes(), other.read_bytes()) == before
    said = capsys.readouterr().out
    assert all(re.search(rf"^fold {fold}: \d+ rows were answered before", said, re.M) for fold in (0, 1)), said
