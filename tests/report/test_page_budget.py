"""The page's budget: costs and scores are those of the files, and the front is what no other way beats in both."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from nexttoken.commands import cascade
from nexttoken.inference.gate import Gate
from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.page import budget_section
from nexttoken.report.page.budget_section import BudgetPoint, budget_points, front
from nexttoken.report.page.chapter import chapters_of
from nexttoken.runs.read_all import read_all
from nexttoken.runs.records import save_gate
from support.finished_runs import CLASSES, write_run

LABELS = np.random.default_rng(0).integers(3, size=240)
NOISE = np.random.default_rng(1).normal(size=(240, 3))


def write(folder, skill, **counted):
    weights = np.exp(skill * np.eye(3)[LABELS] + NOISE)
    write_run(folder, weights / weights.sum(axis=1, keepdims=True), LABELS, name=folder.name)
    for path in folder.glob("fold*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | counted))
    return folder


def chapter_of(folder):
    (chapter,) = chapters_of(read_all(folder).runs, ())
    return chapter


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "lmsys"
    counts = {"num_parameters": 10, "rows_per_second": 20.0, "peak_memory_mb": 100.0}
    write(folder / "small", 0.6, num_prompt_tokens=600, **counts)
    write(folder / "large", 2.0, num_prompt_tokens=6000, **counts | {"num_parameters": 100})
    return folder


def points_of(folder):
    points, reasons = budget_points(chapter_of(folder))
    return {point.name: point for point in points}, reasons


def test_scores_and_costs_are_those_of_the_files(runs):
    points, _ = points_of(runs)
    table = pd.concat([pd.read_csv(path) for path in sorted(runs.glob("large/fold*/oof.csv"))])
    large = points["large"]
    assert large.score == pytest.approx(log_loss(table["label"], table[list(CLASSES)]))
    assert (large.tokens, large.milliseconds, large.memory) == (100.0, 500.0, 100.0)
    assert large.rows_per_second == pytest.approx(20.0)
    html = str(budget_section.section(chapter_of(runs)).html)
    assert f'<td data-value="{large.score}"' in html
    assert '<svg class="plot"' in html


def test_the_front_holds_what_no_other_way_beats_in_both():
    rows = {"dear": (0.8, 9.0), "worse": (0.9, 9.5), "cheap": (1.0, 1.0), "same cost": (1.1, 1.0), "?": (0.1, None)}
    points = [BudgetPoint(name, score, tokens=tokens) for name, (score, tokens) in rows.items()]
    assert [points[place].name for place in front(points, "tokens", METRICS[0])] == ["cheap", "dear"]
    assert [points[place].name for place in front(points, "tokens", METRICS[1])] == ["same cost"]


def test_costs_that_hardly_differ_count_as_one():
    points = [BudgetPoint("faster by chance", 0.9, milliseconds=1.0), BudgetPoint("better", 0.8, milliseconds=1.01)]
    assert front(points, "milliseconds", METRICS[0]) == [1]


def test_a_gate_and_a_cascade_are_points(runs):
    cascade.main([f"run={runs / 'small'}", f"larger={runs / 'large'}", "share=0.5"])
    outcome = {"accuracy": 0.7, "log_loss": 0.71, "share_searched": 0.25, "seconds": 0.002, "tokens": 33.0}
    save_gate(Gate(0.5, 0.0), {"outcomes": {"gated (chosen out of fold)": outcome}}, runs / "small" / "gate.json")
    points, reasons = points_of(runs)
    assert reasons == []
    gate = points["small, gate"]
    assert (gate.score, gate.tokens, gate.milliseconds, gate.share) == (0.71, 33.0, 2.0, 0.25)
    chosen = next(
        one
        for one in json.loads((runs / "small" / "cascade.json").read_text())["points"]
        if one["name"] == "chosen out of fold"
    )
    both = points["small, then large"]
    assert (both.score, both.share, both.interval.low) == (chosen["score"], chosen["share"], chosen["interval"]["low"])
    assert both.tokens == pytest.approx(10 + chosen["share"] * 100)
    html = str(budget_section.section(chapter_of(runs)).html)
    assert re.findall(r"<td data-value=\"0.25\">25 %</td>", html)


def test_a_damaged_cascade_is_a_sentence(runs):
    (runs / "small" / "cascade.json").write_text('{"points": []}')
    points, reasons = points_of(runs)
    assert [*points] == ["large", "small"]
    assert "has no chosen cascade" in reasons[0]
    assert "has no chosen cascade" in budget_section.section(chapter_of(runs)).html


def test_one_way_to_answer_is_no_section(runs, tmp_path):
    assert budget_section.section(chapter_of(runs / "small")) is None
