"""Runs that differ in their seed alone: found, averaged once for predict.py, and the noise band in the report."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.errors import UserError
from nexttoken.metrics.intervals import noise_band
from nexttoken.metrics.probabilities import log_loss
from nexttoken.report.compare import compare
from nexttoken.report.seeds import replicas_among, seeds_section
from nexttoken.runs.blend import read_blend
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.read import read_run, read_runs
from nexttoken.runs.replicas import average_replicas, replicas_of
from support.finished_runs import damage, write_run
from support.training import SAMPLE, composed, predict, train


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with noise of their own around the same truth, and the same labels."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), 200)
    labels = (rng.random(200)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    noisy = true * np.exp(np.random.default_rng(seed + 1).normal(size=true.shape) / 2)
    return noisy / noisy.sum(axis=1, keepdims=True), labels


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [write_run(tmp_path / f"a_seed-{seed}_x", *drawn(seed), seed=seed) for seed in (0, 1, 2)]


def test_runs_that_differ_in_the_seed_alone_are_found(tmp_path, runs):
    write_run(tmp_path / "other", *drawn(5), seed=5, max_tokens=99)
    write_run(tmp_path / "fewer", *drawn(6), 3, seed=6)
    write_run(tmp_path / "twice", *drawn(0), seed=0)
    found = replicas_of(RunFolder(runs[1]))
    assert [run.path for run in found.runs] == runs
    assert found.seeds == (0, 1, 2)
    assert found.folder.path == tmp_path / "a_x_seeds-0-1-2"
    assert replicas_of(RunFolder(tmp_path / "other")) is None
    assert average_replicas(RunFolder(tmp_path / "other")).path == tmp_path / "other"


def test_a_seed_of_a_transform_is_the_same_setting(tmp_path):
    options = {"_target_": "nexttoken.transforms.ShuffleOptions"}
    for seed in (0, 3):
        write_run(tmp_path / f"b{seed}", *drawn(seed), seed=seed, train_transforms={"o": options | {"seed": seed}})
    write_run(tmp_path / "c", *drawn(4), seed=4, train_transforms={"o": options | {"seed": 9}})
    assert replicas_of(RunFolder(tmp_path / "b0")).seeds == (0, 3)


def test_the_average_is_written_once_and_again_after_a_training(runs, capsys):
    average = average_replicas(RunFolder(runs[0]))
    assert "3 runs differ in the seed alone (0, 1, 2): averaged in" in capsys.readouterr().out
    assert {member.weight for member in read_blend(average.path).members} == {1 / 3}
    mean, labels = np.mean([drawn(seed)[0] for seed in (0, 1, 2)], axis=0), drawn(0)[1]
    run = read_run(average.path)
    assert run.score(run.metric) == pytest.approx(log_loss(mean, labels), abs=1e-6)
    before = (average.path / "fold0" / "metrics.json").stat().st_mtime_ns
    assert average_replicas(RunFolder(runs[2])) == average
    assert (average.path / "fold0" / "metrics.json").stat().st_mtime_ns == before
    path = runs[0] / "fold1" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 2.0}))
    average_replicas(RunFolder(runs[2]))
    assert (average.path / "fold0" / "metrics.json").stat().st_mtime_ns != before


def test_a_folder_of_that_name_is_never_replaced(runs):
    folder = runs[0].parent / "a_x_seeds-0-1-2"
    folder.mkdir()
    with pytest.raises(UserError, match="is no average of runs; move it away, or replicas=false"):
        average_replicas(RunFolder(runs[0]))
    assert folder.is_dir()


def test_another_run_that_cannot_be_read_does_not_matter(tmp_path, runs):
    damage(write_run(tmp_path / "broken", *drawn(5), seed=5) / "fold0" / "config.yaml", "a: [")
    assert replicas_of(RunFolder(runs[0])).seeds == (0, 1, 2)


def test_replicas_that_cannot_be_averaged_say_how_to_do_without(runs):
    damage(runs[1] / "fold0" / "metrics.json", "{}")
    with pytest.raises(UserError, match=r"seed-1.*metrics\.json has no .*; or replicas=false asks .*a_seed-0_x alone"):
        average_replicas(RunFolder(runs[0]))
    assert not replicas_of(RunFolder(runs[0])).folder.path.exists()


def test_the_report_shows_the_average_and_the_noise_band(tmp_path, runs):
    write_run(tmp_path / "other", *drawn(5), seed=5, max_tokens=99)
    read = read_runs(tmp_path)
    assert [len(group) for group in replicas_among(read)] == [3, 1]
    section = "\n".join(seeds_section(read))
    scores = [log_loss(*drawn(seed)) for seed in (0, 1, 2)]
    mean = log_loss(np.mean([drawn(seed)[0] for seed in (0, 1, 2)], axis=0), drawn(0)[1])
    spread, band = f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}", noise_band(np.array([scores]))
    for cell in (spread, f"{mean:.4f}", f"{band:.4f}"):
        assert f" {cell} |" in section
    assert mean < min(scores)
    assert band == pytest.approx(4.3027 * np.std(scores, ddof=1) * 2**0.5, rel=1e-4)
    assert seeds_section(read[-1:]) == []


def test_the_average_is_no_variant_of_a_comparison(tmp_path, runs):
    average_replicas(RunFolder(runs[0]))
    for seed in (0, 1, 2):
        write_run(tmp_path / f"other_{seed}", *drawn(seed + 5), seed=seed, max_tokens=99)
    page = compare([tmp_path], "max_tokens")
    scores = np.array([[log_loss(*drawn(seed + start)) for seed in (0, 1, 2)] for start in (0, 5)])
    found = re.search(r"noise: two runs of one variant with other seeds differ by less than (\d\.\d+) in 95 %", page)
    assert float(found[1]) == pytest.approx(noise_band(scores), abs=0.5 * 10.0 ** -len(found[1][2:]))


@pytest.mark.slow
def test_predict_averages_the_seeds_unless_it_is_told_not_to(tmp_path):
    for seed in (0, 1):
        train(tmp_path, "fold=0", "logger=none", f"name=tiny_seed-{seed}", f"seed={seed}")
    path = tmp_path / "lmsys" / "tiny_seed-0"
    alone = [predict(tmp_path, f"run={path.with_name(f'tiny_seed-{seed}')}", "replicas=false") for seed in (0, 1)]
    both = predict(tmp_path, f"run={path}")
    np.testing.assert_allclose(both.iloc[:, 1:], (alone[0].iloc[:, 1:] + alone[1].iloc[:, 1:]) / 2, atol=1e-9)
    assert (tmp_path / "submissions" / "tiny_seeds-0-1.csv").is_file()
    assert both["id"].tolist() == pd.read_csv(SAMPLE / "test.csv", dtype=str)["id"].tolist()
    assert composed("predict").replicas is True
