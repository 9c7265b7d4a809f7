"""The command that shows a cascade's curve: its table, its files, and one line for wrong arguments."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nexttoken.commands.cascade import main
from nexttoken.errors import UserError
from nexttoken.report.cascade import BOTH, CHOSEN, LARGER, SMALL, curve_of
from nexttoken.runs.cascade import SHARES, Pair
from support.finished_runs import write_run

NUM_ROWS = 800


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """A larger run that knows every row's probabilities, and a small one that knows half of the rows'."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(3, 0.3), NUM_ROWS) * 0.98 + 0.02 / 3
    labels = (rng.random(NUM_ROWS)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    guess = np.full((NUM_ROWS, 3), 1 / 3) + 1e-3 * rng.random((NUM_ROWS, 3))
    small = np.where(rng.random(NUM_ROWS)[:, None] < 0.5, true, guess / guess.sum(axis=1, keepdims=True))
    return write_run(tmp_path / "small", small, labels), write_run(tmp_path / "larger", true, labels)


def count_tokens(runs: tuple[Path, Path]) -> None:
    """Add tokens and weights to the runs' metrics: a row costs the larger run a hundred times as much."""
    for path, tokens in zip(runs, (10, 1000), strict=True):
        for metrics in path.glob("fold*/metrics.json"):
            counted = {"num_prompt_tokens": tokens * NUM_ROWS // 4, "num_parameters": 7}
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | counted))


def test_the_table_has_every_share_and_the_next_command(runs, capsys):
    count_tokens(runs)
    main([f"run={runs[0]}", f"larger={runs[1]}"])
    shown = capsys.readouterr().out
    saved, pair = json.loads((runs[0] / "cascade.json").read_text()), Pair.read(*runs)
    assert len(re.findall(r"^\| \d+\.\d%", shown, flags=re.M)) == len(SHARES)
    assert max(map(len, shown.partition("\n\n")[0].splitlines())) <= 99, "one table"
    share = pair.choose_share()
    assert 0 < share < 1
    assert saved["share"] == share
    assert (saved["threshold"], saved["weights"]) == (pair.fit(share).threshold, [*pair.weights[None]])
    assert saved["relative_cost"] == pytest.approx(0.01)
    assert [point["name"] for point in saved["points"][len(SHARES) :]] == [SMALL, LARGER, BOTH, CHOSEN]
    assert f"predict.py run={runs[0]} cascade={runs[1]} cascade_share={share:g}" in shown
    assert (runs[0] / "cascade.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_lies_above_rows_at_random_where_the_small_run_knows_itself(runs):
    count_tokens(runs)
    pair = Pair.read(*runs)
    points, metric = curve_of(pair, pair.cross_chosen()), pair.runs[0].metric
    never, half, always = points[0], points[10], points[20]
    assert (never.score, always.score) == (never.at_random, always.at_random)
    assert never.gain == always.gain == 0
    assert half.at_random == pytest.approx((1 - half.share) * never.score + half.share * always.score)
    assert half.gain == pytest.approx(half.at_random - half.score)
    assert half.gain_interval.low > 0
    assert half.interval.low < half.score < half.interval.high
    named = {point.name: point for point in points if point.name}
    assert named[LARGER].score == pytest.approx(pair.runs[1].score(metric))
    assert [named[name].cost for name in (SMALL, LARGER, BOTH)] == pytest.approx([0.01, 1.0, 1.01])


def test_a_budget_chooses_the_share_and_out_the_folder(tmp_path, runs, capsys):
    count_tokens(runs)
    main([f"run={runs[0]}", f"larger={runs[1]}", "budget=0.4", f"out={tmp_path / 'there'}"])
    assert json.loads((tmp_path / "there" / "cascade.json").read_text())["share"] == pytest.approx(0.39)
    assert "cascade_share=0.39" in capsys.readouterr().out
    assert not (runs[0] / "cascade.json").exists()


def test_runs_without_counted_tokens_have_no_cost(runs, capsys):
    main([f"run={runs[0]}", f"larger={runs[1]}", "share=0.5"])
    assert json.loads((runs[0] / "cascade.json").read_text())["relative_cost"] is None
    assert "Tokens a row: unknown and unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["larger={b}"], "run= is missing"),
        (["run={a}"], "larger= is missing"),
        (["run={a}", "larger={b}", "share=2"], "share='2' is not accepted"),
        (["run={a}", "larger={b}", "share=0.5", "budget=0.5"], "both choose how many rows go on; give one"),
        (["run={a}", "larger={b}", "budget=0.5"], "budget=... needs the tokens and weights of both runs"),
        (["run={a}", "larger={a}"], "is named as the small and as the larger run"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(runs, arguments, message):
    with pytest.raises(UserError, match=message):
        main([one.format(a=runs[0], b=runs[1]) for one in arguments])
    assert not (runs[0] / "cascade.json").exists()
