"""The page's leaderboard and ladder: the line of least squares, its predictions, and the steps of the report."""

import re

import numpy as np
import pytest
from scipy import stats

from nexttoken.report.ladder import ladder_tables
from nexttoken.report.leaderboard import LeaderboardLine
from nexttoken.report.page import ladder_section, leaderboard_section
from nexttoken.report.page.chapter import chapters_of
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read_all import read_all
from support.finished_runs import write_run

LABELS = np.random.default_rng(0).integers(3, size=120)
PUBLIC = {"a": 0.90, "b": 0.99, "c": 1.03}


@pytest.fixture
def folder(tmp_path):
    for place, name in enumerate([*PUBLIC, "unsent"]):
        weight = 0.5 - 0.1 * place
        write_run(tmp_path / "lmsys" / name, weight * np.eye(3)[LABELS] + (1 - weight) / 3, LABELS, name=name)
    return tmp_path / "lmsys"


def chapter_of(folder, public=PUBLIC):
    runs = read_all(folder).runs
    scores = {run.name: run.score(run.metric) for run in runs}
    lines = tuple(
        Submission(
            "2026-01-01T00:00", f"{name}.csv", f"output/lmsys/{name}", "0 1 2 3", scores[name], "0", public_lb=lb
        )
        for name, lb in public.items()
    )
    (chapter,) = chapters_of(runs, lines, submissions_dir=folder)
    return chapter, scores


def test_a_run_that_was_not_sent_has_the_score_of_the_least_squares_line(folder):
    chapter, scores = chapter_of(folder)
    html = leaderboard_section.section(chapter).html
    slope, intercept = np.polyfit([scores[name] for name in PUBLIC], list(PUBLIC.values()), 1)
    found = re.search(r'<th scope="row">unsent</th><td data-value="([^"]+)">[^<]+</td><td data-value="([^"]+)"', html)
    assert float(found[1]) == pytest.approx(scores["unsent"])
    assert float(found[2]) == pytest.approx(intercept + slope * scores["unsent"])
    assert "first pick: a.csv" in html


def test_the_interval_of_one_more_submission_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    own = rng.normal(1, 0.1, 12)
    line = LeaderboardLine.through(list(zip(own, 0.1 + 0.9 * own + rng.normal(0, 0.01, 12), strict=True)))
    design = np.column_stack([np.ones(12), own])
    new = np.array([1.0, 1.1])
    width = stats.t.ppf(0.975, 10) * line.spread * np.sqrt(1 + new @ np.linalg.inv(design.T @ design) @ new)
    found = line.interval(1.1)
    assert (found.low, found.high) == pytest.approx((line.at(1.1) - width, line.at(1.1) + width))


def test_two_submissions_have_a_line_and_no_interval(folder):
    chapter, _ = chapter_of(folder, {"a": 0.9, "b": 0.99})
    assert "in 95 % of cases" in leaderboard_section.section(chapter).html
    assert LeaderboardLine.through([(1.0, 0.9), (1.1, 1.0)]).interval(1.2) is None
    assert LeaderboardLine.through([(1.0, 0.9), (1.0, 1.0)]) is None


def test_the_ladder_is_that_of_the_report(folder):
    chapter, _ = chapter_of(folder)
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", ladder_section.section(chapter).html)
    (table,) = ladder_tables(chapter.runs)
    assert cells == [*table.header, *(cell for row in table.rows for cell in row)]
