"""The ledger's page: the line from out-of-fold to leaderboard scores with its uncertainty, and two final picks."""

import hashlib

import numpy as np
import pytest

from nexttoken.report.leaderboard import Scored, describe_line, difference, leaderboard, share_of_orders
from nexttoken.runs.ledger import Submission

ROWS = {  # file -> out-of-fold log loss, public score, probability of the first class in each row
    "best.csv": (0.95, 0.97, [0.5, 0.5]),
    "near.csv": (0.96, 0.98, [0.5, 0.6]),
    "far.csv": (0.97, 1.00, [0.9, 0.1]),
    "bad.csv": (1.08, 1.05, [0.0, 0.0]),
    "worst.csv": (1.20, None, [1.0, 1.0]),
}


def written(folder, rows=ROWS, metric="") -> list[Submission]:
    lines = []
    for name, (score, public, probs) in rows.items():
        path = folder / name
        path.write_text("id,a,b\n" + "".join(f"{row},{one},{1 - one}\n" for row, one in enumerate(probs)))
        scores = {"metric": metric, "oof_score": score} if metric else {}
        sha256, run = hashlib.sha256(path.read_bytes()).hexdigest(), f"output/lmsys/{path.stem}"
        lines.append(Submission("2026", name, run, "0", 1.0 if metric else score, sha256, public, **scores))
    return lines


def test_the_second_pick_is_good_and_different(tmp_path):
    page = leaderboard(written(tmp_path), tmp_path)
    first, second = page.splitlines()[-2:]
    assert first == "first pick: best.csv, the best out-of-fold log_loss (0.9500)"
    assert second.startswith("second pick: bad.csv: of the 3 next best it differs most from the first (0.5000 a row)")
    without = {name: row for name, row in ROWS.items() if name != "worst.csv"}
    assert "second pick: far.csv: of the 2 next best" in leaderboard(written(tmp_path, without), tmp_path)


def test_a_higher_metric_is_better_where_the_ledger_says_so(tmp_path):
    page = leaderboard(written(tmp_path, metric="auc"), tmp_path)
    assert "first pick: worst.csv, the best out-of-fold auc (1.2000)" in page


def test_changed_or_lost_files_are_not_compared(tmp_path):
    lines = written(tmp_path)
    (tmp_path / "bad.csv").unlink()
    (tmp_path / "far.csv").write_text("id,a,b\n0,0,1\n1,0,1\n")
    assert "second pick: near.csv: of the 1 next best" in leaderboard(lines, tmp_path)
    (tmp_path / "best.csv").unlink()
    assert "second pick: none" in leaderboard(lines, tmp_path)


def test_the_line_is_that_of_least_squares_with_its_uncertainty(tmp_path):
    lines = [Scored(line, line.oof_log_loss, None) for line in written(tmp_path)]
    [text] = describe_line(lines)
    own, public = np.array([(row[0], row[1]) for row in ROWS.values() if row[1] is not None]).T
    slope, intercept = np.polyfit(own, public, 1)
    assert f"4 submissions: public = {intercept:.3f} + {slope:.2f} x out-of-fold (slope ± " in text
    assert "rank correlation 1.00, which chance alone gives in 8% of orders" in text  # 2 of 24
    assert "too few points to rely on either" in text
    assert "add the scores of two submissions" in describe_line(lines[:1])[0]


@pytest.mark.parametrize("number", [6, 9])
def test_counted_orders_agree_with_the_t_distribution(number):
    rng = np.random.default_rng(0)
    own = np.arange(number, dtype=float)
    public = own + rng.normal(0, number / 3, number)
    from scipy import stats

    assert share_of_orders(own, public) == pytest.approx(stats.spearmanr(own, public).pvalue, abs=0.06)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("id,a,b\n1,0.5,0.5\n2,1,0\n", "id,a,b\n1,0.25,0.75\n2,1,0\n", 0.125),
        ("id,p\n1,0.5\n2,1\n", "id,p\n1,0.25\n2,0\n", 0.625),
        ("id,label\n1,x y\n2,z\n", "id,label\n1,y x\n2,z\n", 0.5),
        ("id,p\n1,0.5\n", "id,p\n2,0.5\n", None),
        ("id,p\n1,0.5\n", "id,p,q\n1,0.5,0\n", None),
    ],
)
def test_files_differ_by_probability_number_or_text(tmp_path, one, other, expected):
    paths = [tmp_path / "one.csv", tmp_path / "other.csv"]
    for path, text in zip(paths, (one, other), strict=True):
        path.write_text(text)
    assert difference(*paths) == expected
