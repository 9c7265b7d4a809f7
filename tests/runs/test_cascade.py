"""The fit of a cascade on out-of-fold rows: known truth, both ends, honest folds, and runs that do not fit together."""

import json
from pathlib import Path

import numpy as np
import pytest

from nexttoken.errors import UserError
from nexttoken.inference.cascade import Cascade
from nexttoken.inference.gate import ABOVE
from nexttoken.metrics.pooling import fit_weights, pool
from nexttoken.runs.blend_fit import Members
from nexttoken.runs.cascade import Pair
from nexttoken.runs.scored_runs import probabilities
from support.finished_runs import write_run

NUM_ROWS = 1200
EASY = np.arange(NUM_ROWS) % 3 > 0  # two thirds of the rows, by triples


def answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small run that knows the easy rows only and says so, a larger one that knows all; and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=NUM_ROWS)
    hint = np.where(rng.random(NUM_ROWS) < 0.8, labels, rng.integers(3, size=NUM_ROWS))  # right in 87 %
    known = np.full((NUM_ROWS, 3), 0.065)
    known[np.arange(NUM_ROWS), hint] = 0.87
    guess = np.array([0.36, 0.33, 0.31])[None] + 0.01 * rng.random((NUM_ROWS, 3))
    small = np.where(EASY[:, None], known + 0.001 * rng.random((NUM_ROWS, 3)), guess)
    return small / small.sum(axis=1, keepdims=True), known, labels


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    small, larger, labels = answers()
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "small", small, labels), write_run(folder / "larger", larger, labels)


@pytest.fixture(scope="module")
def pair(runs) -> Pair:
    return Pair.read(*runs)


def test_share_zero_is_the_small_run_and_share_one_the_blend(pair, runs):
    never, always = pair.cascaded(0.0), pair.cascaded(1.0)
    np.testing.assert_array_equal(probabilities(never.run.oof), pair.small)
    assert not never.went_on.any()
    assert always.went_on.all()
    blended = Members.read([str(run) for run in runs]).blended("logits", is_fitted=True)
    np.testing.assert_array_equal(probabilities(always.run.oof), probabilities(blended.oof))
    assert always.run.score(pair.runs[0].metric) == blended.score(pair.runs[0].metric)
    alone = pair.cascaded(1.0, larger_alone=True)
    np.testing.assert_array_equal(probabilities(alone.run.oof), pair.larger)


def test_where_the_small_run_knows_what_it_does_not_know_a_third_is_enough(pair):
    metric, half = pair.runs[0].metric, pair.cascaded(0.35)
    easy = dict(zip((f"row {row}" for row in range(NUM_ROWS)), EASY, strict=True))
    is_easy = np.array([easy[one] for one in pair.runs[0].oof["id"]])
    hard = pair.cascaded(1 / 3).went_on
    assert (hard == ~is_easy).mean() > 0.99
    scores = {share: pair.cascaded(share).run.score(metric) for share in (0.0, 0.35, 1.0)}
    assert half.run.score(metric) == pytest.approx(scores[1.0], abs=0.02)
    assert scores[0.0] - scores[0.35] > 0.9 * (scores[0.0] - scores[1.0]) > 0.1
    assert 0.2 <= pair.choose_share() <= 0.35
    chosen = pair.cross_chosen()
    assert 0.2 < chosen.went_on.mean() < 0.4
    assert chosen.run.score(metric) == pytest.approx(scores[1.0], abs=0.02)


def test_each_fold_has_the_threshold_and_the_weight_of_the_others(pair):
    share, fold = 0.4, 2
    rest = pair.folds != fold
    weights = fit_weights(np.array([pair.small[rest], pair.larger[rest]]), pair.labels[rest], "logits")
    best = np.sort(pair.small[rest].max(axis=1))
    threshold = best[round(share * rest.sum())]
    assert pair.fit(share, fold) == Cascade(float(threshold), (float(weights[0]), float(weights[1])))
    rows, small = ~rest, pair.small[~rest]
    both = pool(np.array([small, pair.larger[rows]]), weights, "logits")
    expected = np.where(small.max(axis=1)[:, None] < threshold, both, small)
    cascaded = pair.cascaded(share)
    np.testing.assert_allclose(probabilities(cascaded.run.oof)[rows], expected, atol=1e-12)
    assert cascaded.run.folds[fold].metrics["log_loss"] == pytest.approx(
        -np.log(expected[np.arange(len(expected)), pair.labels[rows]]).mean()
    )


def test_a_larger_run_that_knows_nothing_gets_no_row(tmp_path, runs):
    labels = answers()[2]
    noise = np.random.default_rng(5).dirichlet(np.ones(3), NUM_ROWS)
    pair = Pair.read(runs[0], write_run(tmp_path / "noise", noise, labels))
    assert pair.weights[None][1] < 0.02
    assert pair.choose_share() == 0.0
    assert pair.fit(0.0).threshold == 0.0
    assert pair.fit(1.0).threshold == ABOVE


def test_the_share_is_chosen_by_the_tasks_metric(tmp_path, runs):
    """A small run that is right where the larger one is, but too unsure: only log loss gains there."""
    labels, larger = answers()[2], answers()[1]
    timid = np.where(EASY[:, None], 0.4 + 0.2 * larger, answers()[0])
    small = write_run(tmp_path / "timid", timid / timid.sum(axis=1, keepdims=True), labels)
    assert Pair.read(small, runs[1]).choose_share() > 0.9
    for metrics in small.glob("fold*/metrics.json"):
        metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"metric": "accuracy"}))
    assert Pair.read(small, runs[1]).choose_share() <= 0.35


def test_the_order_of_the_rows_changes_nothing(tmp_path, runs, pair):
    """The larger run's rows in another order: the same cascade."""
    turned = write_run(tmp_path / "turned", answers()[1], answers()[2])
    for path in turned.glob("fold*/oof.csv"):
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([head, *lines[::-1]]) + "\n")
    assert Pair.read(runs[0], turned).fit(0.3) == pair.fit(0.3)


def test_a_budget_is_a_share_and_the_small_runs_own_cost(tmp_path):
    small, larger, labels = answers()
    paths = [write_run(tmp_path / name, probs, labels) for name, probs in (("small", small), ("larger", larger))]
    with pytest.raises(UserError, match=r"budget=... needs the tokens and weights of both runs"):
        Pair.read(*paths).share_within(0.5)
    for path, tokens, weights in zip(paths, (30, 300), (10, 100), strict=True):
        for metrics in path.glob("fold*/metrics.json"):
            counted = {"num_prompt_tokens": tokens * NUM_ROWS // 4, "num_parameters": weights}
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | counted))
    pair = Pair.read(*paths)
    assert pair.relative_cost == pytest.approx(0.01)
    assert pair.share_within(0.5) == pytest.approx(0.49)
    assert pair.share_within(2.0) == 1.0
    with pytest.raises(UserError, match=r"budget=0.001 is less than the small run alone costs, 0.010 of the larger"):
        pair.share_within(0.001)


def test_runs_that_do_not_fit_together_are_one_line(tmp_path, runs):
    small, _, labels = answers()
    with pytest.raises(UserError, match="named as the small and as the larger run"):
        Pair.read(runs[0], runs[0])
    with pytest.raises(UserError, match="gone has no finished fold"):
        Pair.read(runs[0], tmp_path / "gone")
    fewer = write_run(tmp_path / "fewer", small, labels, num_folds=3)
    with pytest.raises(UserError, match="cannot be combined, they differ in finished folds 0, 1, 2 and 0, 1, 2, 3"):
        Pair.read(runs[0], fewer)
    single = [write_run(tmp_path / name, small, labels, num_folds=1) for name in ("one", "two")]
    with pytest.raises(UserError, match="has one finished fold"):
        Pair.read(*single)
    (runs_blend := tmp_path / "blend").mkdir()
    (runs_blend / "blend.json").write_text("{}")
    with pytest.raises(UserError, match="blend is a blend"):
        Pair.read(runs[0], runs_blend)
    for metrics in (open_run := write_run(tmp_path / "texts", small, labels)).glob("fold*/metrics.json"):
        metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"answers": "texts"}))
    with pytest.raises(UserError, match="texts answers with texts"):
        Pair.read(runs[0], open_run)
