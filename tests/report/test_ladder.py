"""The ladder: each step against what it builds on, replicas over seeds together, noise called noise."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nexttoken.metrics.intervals import Interval
from nexttoken.metrics.probabilities import log_losses
from nexttoken.report.ladder import ladder_tables
from nexttoken.report.ladder_steps import Gain, Step, steps_of
from nexttoken.runs.calibration import save_calibration
from nexttoken.runs.calibration_fit import fit_calibration
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.read import read_run, read_runs
from support.commands import status_of
from support.finished_runs import write_run

NUM_ROWS = 240
LABELS = np.random.default_rng(0).integers(0, 3, NUM_ROWS)
NOISE = np.random.default_rng(1).normal(size=(NUM_ROWS, 3))
main = partial(status_of, "report")


def probs(skill: float, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """The higher the skill, the nearer to the labels; a scale above 1 is too sure."""
    noise = NOISE + 0.05 * np.random.default_rng(seed).normal(size=NOISE.shape)
    weights = np.exp(scale * (skill * np.eye(3)[LABELS] + noise / 2))
    return weights / weights.sum(axis=1, keepdims=True)


def write(folder: Path, skill: float, time: int, seed: int = 0, scale: float = 1.0, **changed: object) -> Path:
    run = write_run(folder, probs(skill, scale, seed), LABELS, seed=seed, **changed)
    for path in run.glob("fold*/metrics.json"):
        os.utime(path, (time, time))
    return run


def by_name(path: Path) -> dict[str, tuple[Step, str | None]]:
    """Each step by its name, in order, with the name of its base."""
    steps = steps_of(read_runs(path))
    return {step.name: (step, None if step.base is None else steps[step.base].name) for step in steps}


def test_each_step_stands_on_what_it_builds_on(tmp_path):
    write(tmp_path / "first", 0.5, 1)
    write(tmp_path / "wider", 0.6, 2, head={"_target_": "x", "label_smoothing": 0.1})
    write(tmp_path / "wider_again", 0.7, 3, head={"_target_": "x", "label_smoothing": 0.2})
    way = write(tmp_path / "first" / "asked" / "swap_averaged", 0.6, 9, inference={"_target_": "y"})
    for path in way.glob("fold*/metrics.json"):
        answered_by = FoldFolder(tmp_path / "first" / path.parent.name).training_id
        path.write_text(json.dumps(json.loads(path.read_text()) | {"answered_by": answered_by}))
        os.utime(path, (9, 9))
    members = {"of": "logits", "members": ["../first", "../wider_again"]}
    write(tmp_path / "blend", 0.8, 10, blend=members)
    write(tmp_path / "later", 0.7, 11, max_tokens=9)
    found = by_name(tmp_path)
    assert [(name, base) for name, (_, base) in found.items()] == [
        ("first", None),
        ("first asked swap_averaged", "first"),
        ("wider", "first"),
        ("wider_again", "wider"),
        ("blend", "wider_again"),
        ("later", "first"),
    ]


def test_replicas_are_one_step_and_their_spread_is_part_of_the_verdict(tmp_path):
    for seed in range(3):
        write(tmp_path / f"a_seed-{seed}", 0.5, 1 + seed, seed)
        write(tmp_path / f"b_seed-{seed}", 0.8, 11 + seed, seed, max_tokens=99)
        write(tmp_path / f"c_seed-{seed}", 0.5 + 0.01 * (seed - 1), 21 + seed, seed, max_tokens=77)
    found = by_name(tmp_path)
    assert [len(step.runs) for step, _ in found.values()] == [3, 3, 3]
    a, b, c = (step for step, _ in found.values())
    better = Gain.of(b, a)
    expected = [log_losses(probs(s, seed=i), LABELS).mean() for s in (0.5, 0.8) for i in range(3)]
    assert better.value == pytest.approx(np.mean(expected[:3]) - np.mean(expected[3:]), abs=1e-9)
    assert better.interval.low < better.value < better.interval.high
    assert better.verdict == "gain"
    assert Gain.of(a, b).verdict == "worse"
    assert Gain.of(c, a).is_noise, "seeds disagree"
    assert Gain(0.1, Interval(-0.1, 0.3), is_noise=True).verdict == "noise"


def test_the_gain_over_the_prior_is_that_of_all_seeds(tmp_path):
    for seed, share in enumerate((0.5, 0.9)):
        write(tmp_path / f"a_seed-{seed}", share, 1 + seed, seed)
    ((step, _),) = by_name(tmp_path).values()
    gain, losses = Gain.over(1.0, step), [run.score(run.metric) for run in step.runs]
    assert gain.value == pytest.approx(1 - np.mean(losses), abs=1e-9)
    assert gain.interval.low < 1 - max(losses) < 1 - min(losses) < gain.interval.high
    assert Gain.over(float(np.mean(losses)), step).is_noise, "one seed is above it, the other below"


def test_a_calibration_is_a_step_of_its_run(tmp_path):
    run = write(tmp_path / "sure", 0.5, 1, scale=4.0)
    read = read_run(run)
    save_calibration(fit_calibration(read), {}, run)
    found = by_name(tmp_path)
    step, base = found["sure, calibrated"]
    assert base == "sure"
    assert Gain.of(step, found["sure"][0]).verdict == "gain"


def test_a_blend_does_not_count_a_members_calibration_as_its_own_gain(tmp_path):
    run = write(tmp_path / "sure", 0.5, 1, scale=4.0)
    save_calibration(fit_calibration(read_run(run)), {}, run)
    write(tmp_path / "blend", 0.5, 2, blend={"of": "logits", "members": ["../sure", "baseline"]})
    assert by_name(tmp_path)["blend"][1] == "sure, calibrated"


def test_the_command_writes_a_page_with_the_references_first(tmp_path, capsys):
    write(tmp_path / "first", 0.5, 1)
    write(tmp_path / "second", 0.9, 2, max_tokens=99)
    assert main(["ladder", str(tmp_path)]) == 0
    page = (tmp_path / "report" / "ladder.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    names = [row[0] for row in rows[2:]]
    assert names == ["0 uniform guess", "1 class prior", "2 length/overlap baseline", "3 first", "4 second"]
    assert [row[1] for row in rows[2:]] == ["", "0", "1", "1", "3"]
    assert rows[-1][5] == "gain"
    for path in tmp_path.glob("first/fold*/config.yaml"):
        path.unlink()
    assert "first" in by_name(tmp_path), "an earlier version left no config.yaml"
    assert "wrote" in capsys.readouterr().out


def test_rows_without_a_common_one_are_not_compared(tmp_path):
    write(tmp_path / "first", 0.5, 1)
    other = write_run(tmp_path / "other", probs(0.5)[:1], LABELS[:1], num_folds=1)
    for path in other.glob("fold*/oof.csv"):
        path.write_text(path.read_text().replace("row 0", "another"))
    assert by_name(tmp_path)["other"][1] is None
    assert ladder_tables(read_runs(tmp_path))
