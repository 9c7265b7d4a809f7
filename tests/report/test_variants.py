"""Variants are ranked on common rows, noise is called noise, and seeds that disagree are heard."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from nexttoken.errors import UserError
from nexttoken.report.ranking import LOSS_COLUMNS, PER_CHARACTER, PER_TOKEN, Comparison, Ranking, Scored
from nexttoken.report.variants import summary, variants_page, variants_plot
from nexttoken.runs.read_open import short_names

NUM_ROWS = 80
OWN = ("chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match")


def table(shift: float = 0.0, seed: int = 0, rows: int = NUM_ROWS, spread: float = 0.05, outputs: int = 0, **columns):
    """Answers that cost 2 nats a token and some `spread` of this seed's own, plus `shift`."""
    lengths = np.random.default_rng(7).integers(5, 30, NUM_ROWS)[:rows]
    hard = np.random.default_rng(8).normal(size=NUM_ROWS)[:rows]
    own = np.random.default_rng([seed, int(1000 * abs(shift))]).normal(size=NUM_ROWS)[:rows]
    frame = pd.DataFrame(
        {
            "id": [f"d{row:03}" for row in range(rows)],
            "group": [f"group {row // 2}" for row in range(rows)],
            "nll": lengths * (2 + shift + 0.3 * hard + spread * own),
            "num_tokens": lengths.astype(float),
            "num_characters": lengths * 3.0,
        }
    )
    for name in OWN:
        frame[name] = np.where(np.arange(rows) < outputs, 50 - 10 * shift, np.nan)
    return frame.assign(mark=np.nan, **columns)


def compared(tables, by: str = "") -> Comparison:
    return Comparison.of(tables, by)


def test_values_are_ratios_of_sums_and_the_lowest_loss_is_chosen():
    tables = {("a", 0): table(0.0), ("b", 0): table(0.5)}
    ranking = compared(tables).ranking
    for place, frame in enumerate(tables.values()):
        assert ranking.values[place] == pytest.approx(frame["nll"].sum() / frame["num_tokens"].sum())
    assert ranking.measure == PER_TOKEN
    assert ranking.variants[ranking.best] == "a"
    assert not ranking.is_noise(1, 0)
    interval = ranking.difference(1, 0)
    assert interval.low < ranking.values[1] - ranking.values[0] < interval.high


def test_a_real_difference_and_noise_are_told_apart_in_words():
    page = variants_page(compared({("a", 0): table(0.0), ("b", 0): table(0.001), ("c", 0): table(0.5)}))
    assert page.count("chosen") == 2
    assert "noise: a and b cannot be told apart by these 80 rows" in page or "noise: b and a cannot" in page
    assert "beyond noise: c." in page
    assert "One seed (0)" in page


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Two variants that are equally good: noise is the verdict nineteen times out of twenty."""
    rng, calls = np.random.default_rng(0), 0
    for _ in range(60):
        frames = {
            (name, 0): table().assign(nll=lambda t: t["num_tokens"] * (2 + rng.normal(size=len(t)))) for name in "ab"
        }
        calls += Ranking(Scored.of(frames, LOSS_COLUMNS), PER_TOKEN).is_noise(0, 1)
    assert 50 <= calls <= 60


def test_the_same_order_with_every_seed_is_said():
    tables = {(name, seed): table(shift, seed) for name, shift in (("a", 0.0), ("b", 0.4)) for seed in (0, 1)}
    assert "the same with each of the seeds 0, 1: a > b." in variants_page(compared(tables))


def test_seeds_that_disagree_make_noise_of_a_difference_whatever_its_interval():
    shifts = {("a", 0): 0.0, ("a", 1): 0.3, ("b", 0): 0.31, ("b", 1): 0.29, ("c", 0): 1.0, ("c", 1): 1.1}
    comparison = compared({place: table(shift, place[1], spread=0.0) for place, shift in shifts.items()})
    page = variants_page(comparison)
    assert "The ranking changes with the seed (seed 0: a > b > c; seed 1: b > a > c)" in page
    assert [entry["verdict"] for entry in summary(comparison)] == ["chosen", "noise", "worse"]


def test_only_common_rows_are_compared_and_said_so():
    comparison = compared({("a", 0): table(), ("b", 0): table(0.2, rows=60)})
    assert comparison.losses.num_rows == 60
    assert "Only common rows with the same answer are compared: 60; scored were a 80." in variants_page(comparison)
    changed = table().assign(num_characters=lambda t: t["num_characters"] + (t.index == 3))
    assert compared({("a", 0): table(), ("b", 0): changed}).losses.num_rows == NUM_ROWS - 1
    with pytest.raises(UserError, match="a, b share no held-out row"):
        compared({("a", 0): table(), ("b", 0): table().assign(id=lambda t: "x" + t["id"])})


def test_other_tokens_are_compared_by_character_only():
    other = table(0.2).assign(num_tokens=lambda t: t["num_tokens"] + 1)
    comparison = compared({("a", 0): table(), ("b", 0): other})
    assert comparison.measure == PER_CHARACTER
    assert "losses per token and perplexities are not compared" in variants_page(comparison)
    with pytest.raises(UserError, match="use by=loss_per_character"):
        compared({("a", 0): table(), ("b", 0): other}, by="loss_per_token")


def test_marks_decide_where_all_have_them_and_other_measures_are_named():
    marks = {"a": 1.5, "b": 3.0}
    tables = {
        (name, 0): table(0.5 * (name == "b"), outputs=50).assign(
            mark=lambda t, name=name: np.where(t["chrf"].notna(), marks[name], np.nan)
        )
        for name in marks
    }
    comparison = compared(tables)
    page = variants_page(comparison)
    assert comparison.measure.key == "mark"
    assert comparison.ranking.scored.num_rows == 50
    assert "chosen: b, 3.0000 mark, the best of 2 on 50 rows." in page
    assert "nats per token: would choose a (beyond noise)." in page
    assert compared(tables, by="chrf").ranking.best == 0


def test_measures_that_are_not_there_are_refused_with_the_fix():
    tables = {("a", 0): table(outputs=10), ("b", 0): table(0.1)}
    with pytest.raises(UserError, match="b wrote no outputs; generate some with rows=50"):
        compared(tables, by="chrf")
    with pytest.raises(UserError, match="name a judge"):
        compared({("a", 0): table(outputs=10)}, by="mark")
    assert "b wrote no outputs" in variants_page(compared(tables))


def test_variants_without_a_common_seed_are_means_over_their_own():
    comparison = compared({("a", 0): table(), ("a", 1): table(0.2), ("b", 2): table(0.5)})
    page = variants_page(comparison)
    assert comparison.losses.seeds == ()
    assert "share no seed" in page
    both = (table()["nll"].sum() + table(0.2)["nll"].sum()) / 2 / table()["num_tokens"].sum()
    assert comparison.ranking.values[0] == pytest.approx(both)


def test_neighbours_below_the_best_are_noise_too_where_they_are():
    shifts = {"a": 0.0, "b": 0.5, "c": 0.501}
    page = variants_page(compared({(name, 0): table(shift) for name, shift in shifts.items()}))
    assert "noise further down: b and c." in page or "noise further down: c and b." in page


def test_a_seed_that_not_every_variant_has_is_left_out_and_named():
    comparison = compared({("a", 0): table(), ("a", 1): table(0.9), ("b", 0): table(0.5)})
    assert comparison.losses.seeds == (0,)
    assert "not every variant has the seed: a seed=1." in variants_page(comparison)
    assert comparison.ranking.best == 0


def test_one_variant_has_nothing_to_choose_from():
    assert "nothing to choose from" in variants_page(compared({("a", 0): table()}))


def test_the_plot_is_a_picture_with_every_measure(tmp_path):
    tables = {(name, seed): table(0.2 * (name == "猫"), seed, outputs=9) for name in ("a", "猫") for seed in (0, 1)}
    variants_plot(compared(tables), tmp_path / "judge.png")
    assert imread(tmp_path / "judge.png").shape[1] > 1000


def test_names_are_told_without_the_words_that_all_have():
    long = [
        f"sweep_windows_{kind}_stories_learning_{end}"
        for kind, end in (("all_2", "ra-d66a8952"), ("first_2", "x-eab1995c"))
    ]
    assert short_names(long) == ["all", "first"]
    assert short_names(["first_4", "first_4_short"]) == ["first_4", "first_4_short"]
    assert short_names(["e20", "shown"]) == ["e20", "shown"]
    assert short_names(["alone"]) == ["alone"]
