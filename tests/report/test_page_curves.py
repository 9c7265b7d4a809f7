"""The page's curves: the drawn points are those of curve.csv, and the marked checkpoint is the one that was kept."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from nexttoken.report.page import curves_section
from nexttoken.report.page.chapter import chapters_of
from nexttoken.runs.read_all import read_all
from support.finished_runs import write_finished_fold

STEPS = np.arange(10, 1210, 10)
DEV = {400: 0.98, 800: 0.91, 1200: 0.95}


def write_curve(run, fold=0, dev=DEV, best=800, extra=None):
    folder = write_finished_fold(run, fold, name=run.name)
    first = pd.DataFrame({"step": STEPS, "train_loss": 1.2 - STEPS / 4000, "refit": 0})
    first["dev_log_loss"] = first["step"].map(dev)
    if extra:
        first[extra] = first["step"].map({400: 0.5, 800: 0.7, 1200: 0.6})
    second = pd.DataFrame({"step": STEPS[:80], "train_loss": 1.15 - STEPS[:80] / 4000, "refit": 1})
    pd.concat([first, second]).to_csv(folder / "curve.csv", index=False)
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best_step": best}))
    return folder


def section_of(folder):
    (chapter,) = chapters_of(read_all(folder).runs, ())
    return curves_section.section(chapter)


def circles(html, style):
    found = re.findall(rf'<circle class="dot [^"]*\b{style}" cx="([\d.]+)" cy="([\d.]+)"', str(html))
    return np.array(found, dtype=float)


def test_the_drawn_points_are_those_of_the_file(tmp_path):
    write_curve(tmp_path / "lmsys" / "a")
    dots = circles(section_of(tmp_path).html, "dev")
    across, up = np.polyfit([*DEV], dots[:, 0], 1), np.polyfit([*DEV.values()], dots[:, 1], 1)
    assert np.abs(np.polyval(across, [*DEV]) - dots[:, 0]).max() < 0.1  # pixels have one decimal
    assert np.abs(np.polyval(up, [*DEV.values()]) - dots[:, 1]).max() < 0.1
    assert up[0] < 0  # a lower loss stands lower


def test_the_marked_checkpoint_is_the_one_of_metrics_json(tmp_path):
    write_curve(tmp_path / "lmsys" / "a", best=1200)
    html = section_of(tmp_path).html
    assert "chosen checkpoint, 0.9500 at step 1,200" in html
    (chosen,), dots = circles(html, "chosen"), circles(html, "dev")
    assert chosen.tolist() == dots[2].tolist()


def test_the_training_loss_is_the_mean_of_equal_shares(tmp_path):
    folder = write_curve(tmp_path / "lmsys" / "a")
    curve = pd.read_csv(folder / "curve.csv")
    points = curves_section.thinned(curve.loc[curve["refit"] == 0, ["step", "train_loss"]], 12)
    assert points["train_loss"].to_numpy() == pytest.approx(
        curve["train_loss"][:120].to_numpy().reshape(12, 10).mean(1)
    )
    lines = re.findall(r'<polyline class="line ([^"]+)" points="([^"]+)"', str(section_of(tmp_path).html))
    thin = [(style, len(drawn.split())) for style, drawn in lines if "thin" in style]
    assert thin == [
        ("s0 run-0 fold-0 thin", curves_section.NUM_POINTS),
        ("s0 run-0 fold-0 thin dashed", curves_section.NUM_POINTS),
    ]


def test_runs_and_folds_have_boxes_and_runs_without_a_curve_are_named(tmp_path):
    write_curve(tmp_path / "lmsys" / "a")
    write_curve(tmp_path / "lmsys" / "a", 1)
    write_finished_fold(tmp_path / "lmsys" / "frozen")
    html = section_of(tmp_path).html
    assert re.findall(r'data-shows="([^"]+)"', html) == ["run-0", "fold-0", "fold-1"]
    assert "no step of a training was noted: lmsys/frozen" in html
    numbers = re.findall(r'<td data-value="([^"]*)"', html)
    assert [float(one) for one in numbers[:5]] == [0, 1200, 800, 0.91, 0.95]


def test_one_epoch_is_a_line_of_the_training_and_a_dot_of_the_dev_rows(tmp_path):
    write_curve(tmp_path / "lmsys" / "a", dev={1200: 0.95}, best=1200)
    html = section_of(tmp_path).html
    assert len(circles(html, "dev")) == 1
    assert "thin" in html


def test_another_dev_metric_has_a_plane_of_its_own(tmp_path):
    write_curve(tmp_path / "lmsys" / "a", extra="dev_accuracy")
    html = str(section_of(tmp_path).html)
    assert html.count('<svg class="plot"') == 2
    assert "0.7000 on dev rows at step 800" in html


def test_no_curve_at_all_is_no_section(tmp_path):
    write_finished_fold(tmp_path / "lmsys" / "frozen")
    assert section_of(tmp_path) is None
