"""The section of mistakes: its numbers against scikit-learn and pandas, and what it does without texts."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from benchmarks.page_runs import write_bank_table, write_sample_run
from nexttoken.data.near_duplicates import group_ids
from nexttoken.report.page.both_orders import BothOrders
from nexttoken.report.page.chapter import chapters_of
from nexttoken.report.page.class_scores import class_scores, confusion, most_confused, worst_class_sentence
from nexttoken.report.page.mistakes_section import label_noise, section
from nexttoken.report.page.order_effects import order_effects
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.reliability import by_class, calibrated_probs, of_all_rows
from nexttoken.report.page.slices import OTHERS, slice_scores
from nexttoken.report.page.text_parts import Texts, swap_of
from nexttoken.runs.read import read_run
from nexttoken.runs.read_all import read_all
from support.finished_runs import CLASSES, write_run


def made_up(num_rows=480, seed=0):
    """Too sure probabilities (N, 3) of three classes, the third of them seldom found, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=num_rows, p=[0.45, 0.35, 0.2])
    logits = 2 * rng.normal(size=(num_rows, 3)) + 2 * np.eye(3)[labels] * [1, 1, 0.2]
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True), labels


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "lmsys" / "one", *made_up())


@pytest.fixture
def chapter(run_folder):
    return chapters_of(read_all(run_folder.parent).runs, ())[0]


@pytest.fixture
def outcome(chapter):
    return Outcome.of(chapter.runs[0], chapter.groups[0])


def oof_of(folder):
    return pd.concat([pd.read_csv(path) for path in sorted(folder.glob("fold*/oof.csv"))], ignore_index=True)


def panels_of(html):
    """The tables of a section's first panel: by label, the rows as lists of data-value."""
    first = str(html).split('data-panel="1"')[0]
    tables = re.findall(r'aria-label="([^"]+)"><table.*?<tbody>(.*?)</tbody>', first, re.S)
    return {
        name: [re.findall(r'data-value="([^"]*)"', row) for row in re.findall(r"<tr>.*?</tr>", body, re.S)]
        for name, body in tables
    }


def test_the_confusion_and_the_scores_of_classes_are_those_of_scikit_learn(chapter, run_folder):
    oof, tables = oof_of(run_folder), panels_of(section(chapter).html)
    probs, labels = oof[list(CLASSES)].to_numpy(), oof["label"].to_numpy()
    decided = probs.argmax(axis=1)
    shown = np.array(tables["Confusion of one"], dtype=int)
    assert (shown == confusion_matrix(labels, decided)).all()
    precision, recall, f1, counts = precision_recall_fscore_support(labels, decided)
    numbers = np.array(tables["Scores of each class of one"], dtype=float)
    losses = [log_loss(labels[labels == k], probs[labels == k], labels=[0, 1, 2]) for k in range(3)]
    shares = counts / len(labels)
    wanted = [counts, np.bincount(decided), recall, precision, f1, losses, probs.mean(axis=0), shares]
    np.testing.assert_allclose(numbers.T, [*wanted, probs.mean(axis=0) - shares], atol=1e-9)


def test_intervals_hold_the_value_and_shrink_with_more_rows(tmp_path):
    widths = []
    for number in (240, 3840):
        folder = write_run(tmp_path / str(number), *made_up(number))
        run = read_run(folder)
        score = class_scores(Outcome.of(run, np.arange(number)))[0]
        assert score.recall.value in score.recall.interval
        widths.append(score.recall.interval.high - score.recall.interval.low)
    share = score.recall.value
    expected = 2 * 1.96 * np.sqrt(share * (1 - share) / score.count)
    assert widths[1] == pytest.approx(expected, rel=0.15)
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.35)


def test_rows_of_a_group_are_drawn_together(run_folder):
    run = read_run(run_folder)
    alone = class_scores(Outcome.of(run, np.arange(len(run.oof))))[0].recall.interval
    together = class_scores(Outcome.of(run, run.oof["label"].to_numpy() * 2 + np.arange(len(run.oof)) % 2))[0].recall
    assert together.interval != alone
    assert class_scores(Outcome.of(run, np.zeros(len(run.oof))))[0].recall.interval is None


def test_the_worst_class_is_named_with_what_it_becomes(outcome):
    counts = confusion_matrix(outcome.labels, outcome.decisions)
    recall = counts.diagonal() / counts.sum(axis=1)
    worst = int(recall.argmin())
    taken = int(np.where(np.arange(3) == worst, -1, counts[worst]).argmax())
    sentence = worst_class_sentence(outcome)
    assert f"{CLASSES[worst]}: {counts[worst, worst]} of its {counts[worst].sum()} rows" in sentence
    assert f"{counts[worst, taken]} are taken for {CLASSES[taken]}" in sentence


def test_confidence_is_off_by_what_pandas_computes_and_less_after_calibration(chapter, outcome):
    after = calibrated_probs(chapter.runs[0])
    table = pd.DataFrame({"sure": outcome.probs.max(axis=1), "right": outcome.probs.argmax(axis=1) == outcome.labels})
    bins = table.groupby(pd.cut(table["sure"], np.linspace(0, 1, 11), right=False), observed=True)
    off = (bins["sure"].mean() - bins["right"].mean()).abs() * bins.size() / len(table)
    shown = of_all_rows(outcome, after)
    assert shown.before == pytest.approx(off.sum())
    assert shown.after < shown.before
    for k, one in enumerate(by_class(outcome, after).values()):
        table = pd.DataFrame({"sure": outcome.probs[:, k], "right": outcome.labels == k})
        bins = table.groupby(pd.cut(table["sure"], np.linspace(0, 1, 11), right=False), observed=True)
        assert one.before == pytest.approx(
            ((bins["sure"].mean() - bins["right"].mean()).abs() * bins.size()).sum() / len(table)
        )


def test_a_fold_is_calibrated_by_the_others_alone(chapter, run_folder):
    before = calibrated_probs(chapter.runs[0])
    path = run_folder / "fold0" / "oof.csv"
    table = pd.read_csv(path)
    table["label"] = table[list(CLASSES)].to_numpy().argmin(axis=1)
    table.to_csv(path, index=False)
    metrics = json.loads((path.parent / "metrics.json").read_text())
    metrics["log_loss"] = log_loss(table["label"], table[list(CLASSES)], labels=[0, 1, 2])
    (path.parent / "metrics.json").write_text(json.dumps(metrics))
    after = calibrated_probs(read_run(run_folder))
    own = chapter.runs[0].oof["fold"].to_numpy() == 0
    np.testing.assert_allclose(after[own], before[own])
    assert not np.allclose(after[~own], before[~own])


def test_slices_have_their_own_scores_and_differences_to_the_rest(chapter, outcome):
    metric, kind = chapter.metric, np.where(np.arange(len(outcome.ids)) % 3 == 0, "third", "rest")
    found = slice_scores(outcome, {"kind": pd.Categorical(kind)}, metric, None)
    losses = pd.Series(outcome.losses).groupby(kind).mean()
    for one in found:
        other = "rest" if one.value == "third" else "third"
        assert one.score.value == pytest.approx(losses[one.value])
        assert one.difference.value == pytest.approx(losses[one.value] - losses[other])
        assert one.accuracy == pytest.approx(outcome.right[kind == one.value].mean())
        assert np.isnan(one.error_after)


def test_a_slice_is_marked_only_where_the_interval_leaves_zero_out(chapter, outcome):
    hard = np.where(outcome.losses > np.median(outcome.losses), "hard", "easy")
    marks = slice_scores(outcome, {"kind": pd.Categorical(hard)}, chapter.metric, None)
    assert {one.value: one.verdict for one in marks} == {"hard": "worse", "easy": "better"}
    chance = np.random.default_rng(1).integers(2, size=(40, len(hard)))
    factors = {str(place): pd.Categorical(row) for place, row in enumerate(chance)}
    marked = [one for one in slice_scores(outcome, factors, chapter.metric, None) if one.verdict]
    assert len(marked) <= 12  # of 80; 5 % by chance, in pairs


def test_rare_values_of_a_factor_are_put_together(chapter, outcome):
    values = np.minimum(np.arange(len(outcome.ids)) // 2, 200)
    found = slice_scores(outcome, {"tag": pd.Categorical(values)}, chapter.metric, None)
    assert len(found) == 13
    assert {one.value for one in found} >= {"200", OTHERS}
    assert sum(one.count for one in found) == len(values)


def test_a_run_of_one_fold_without_texts_has_a_section(tmp_path):
    write_run(tmp_path / "lmsys" / "one", *made_up(60), num_folds=1)
    html = str(section(chapters_of(read_all(tmp_path / "lmsys").runs, ())[0]).html)
    assert "One fold alone cannot be calibrated on others" in html
    assert "Lengths, turns and languages are missing" in html


def test_texts_give_slices_by_length_and_turns(tmp_path):
    write_sample_run(tmp_path / "lmsys" / "good", "task=lmsys")
    html = str(section(chapters_of(read_all(tmp_path / "lmsys").runs, ())[0]).html)
    for words in ("length of the prompt", "length of the answers", "longest quarter", "turns"):
        assert words in html


def test_many_classes_are_shown_as_their_most_confused_pairs(tmp_path):
    write_sample_run(tmp_path / "bank" / "one", *write_bank_table(tmp_path / "data"), num_folds=2)
    chapter = chapters_of(read_all(tmp_path / "bank").runs, ())[0]
    found = most_confused(Outcome.of(chapter.runs[0], chapter.groups[0]))
    tables = panels_of(section(chapter).html)
    counts = confusion(Outcome.of(chapter.runs[0], chapter.groups[0]))
    wrong = np.sort((counts - np.diag(counts.diagonal())).ravel())[::-1]
    assert [one.count for one in found] == wrong[:15].tolist()
    assert [int(row[0]) for row in tables["Classes most often confused by one"]] == wrong[:15].tolist()


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The chapter of two runs of the sample's judgements, whose texts are here."""
    folder = tmp_path_factory.mktemp("runs") / "lmsys"
    for seed, (name, skill) in enumerate({"good": 1.6, "poor": 1.2}.items()):
        write_sample_run(folder / name, "task=lmsys", skill=skill, seed=seed)
    return chapters_of(read_all(folder).runs, ())[0]


def outcomes_of(chapter):
    return [Outcome.of(run, groups) for run, groups in zip(chapter.runs, chapter.groups, strict=True)]


def test_sides_and_lengths_are_those_of_the_texts(judged):
    own, texts = outcomes_of(judged)[0], Texts.of(judged)
    found = order_effects(own, swap_of(judged), texts)
    fields = [judged.examples[one].fields for one in own.ids]
    lengths = [[len("\n".join(one[f"response_{side}"])) + 1 for side in "ab"] for one in fields]
    ratios = np.array([one / other for one, other in lengths])
    gaps = pd.cut(ratios, [0, 0.5, 0.9, 1.1, 2, np.inf], labels=False)
    table = pd.DataFrame({"first": own.probs[:, 0], "wins": own.labels == 0, "second": own.probs[:, 1]}).groupby(gaps)
    assert [one.count for one in found.sides] == [len(own.ids), *table.size()]
    wanted = table[["first", "wins", "second"]].mean().to_numpy()
    shown = [(one.first_expected.value, one.first_share.value, one.second_expected.value) for one in found.sides[1:]]
    np.testing.assert_allclose(shown, wanted)


@pytest.mark.parametrize(("place", "words"), [(0, "first answer is favoured"), (1, "second answer is favoured")])
def test_a_favoured_side_is_named(judged, place, words):
    own = outcomes_of(judged)[0]
    probs = own.probs + 0.3 * np.eye(3)[place]
    biased = replace(own, probs=probs / probs.sum(axis=1, keepdims=True))
    assert words in order_effects(biased, swap_of(judged), Texts.of(judged)).sentences[0]


def test_ties_that_are_expected_too_seldom_favour_no_side(judged):
    own = outcomes_of(judged)[0]
    alike = np.tile([0.45, 0.45, 0.1], (len(own.labels), 1))
    labels = np.tile([0, 1, 2], len(own.labels) // 3 + 1)[: len(own.labels)]
    fair = replace(own, probs=alike, labels=labels)
    assert "No position bias" in order_effects(fair, swap_of(judged), Texts.of(judged)).sentences[0]


def test_flips_are_counted_among_the_pairs_asked_in_both_orders(judged):
    own, texts = outcomes_of(judged)[0], Texts.of(judged)
    swapped = np.where(np.arange(len(own.ids))[:, None] % 4 == 0, own.probs[:, [1, 0, 2]], own.probs)
    swapped[::3] = np.nan
    known = np.isfinite(swapped).all(axis=1)
    found = order_effects(own, swap_of(judged), texts, BothOrders(own.probs, swapped))
    flips = own.probs.argmax(axis=1)[known] != swapped[known].argmax(axis=1)
    assert found.flips[0].value == pytest.approx(flips.mean())
    assert len(found.flips) == len(found.sides)
    assert "other order" in found.sentences[-1]
    assert not order_effects(own, swap_of(judged), texts).flips


def test_contradictions_are_near_duplicates_with_different_labels(judged):
    found = label_noise(judged, outcomes_of(judged), Texts.of(judged))
    assert found.contradictions
    for group in found.contradictions:
        assert len({row.label for row in group}) > 1
        texts = [
            "\n".join(turn for turns in judged.examples[row.id].fields.values() for turn in turns) for row in group
        ]
        assert len(set(group_ids(texts))) == 1


def test_rows_that_every_run_is_sure_to_know_otherwise_are_listed(judged):
    tables = [run.oof.set_index("id") for run in judged.runs]
    probs = [table[list(CLASSES)].to_numpy() for table in tables]
    same = (tables[0].index == tables[1].index).all()
    labels, guess = tables[0]["label"].to_numpy(), probs[0].argmax(axis=1)
    agreed = (guess != labels) & (guess == probs[1].argmax(axis=1))
    least = np.minimum(probs[0].max(axis=1), probs[1].max(axis=1)) * agreed
    found = label_noise(judged, outcomes_of(judged), Texts.of(judged))
    assert same
    assert found.num_agreed == (least >= 0.8).sum() > 0
    order = tables[0].index[np.argsort(-least, kind="stable")]
    assert [row.id for row in found.agreed] == order[: len(found.agreed)].tolist()
    assert found.agreed[0].link == f"#c1-row-{order[0]}"


def test_without_texts_the_groups_of_folds_are_taken(chapter, outcome):
    found = label_noise(chapter, [outcome], Texts.of(chapter))
    table = pd.DataFrame({"group": outcome.groups, "label": outcome.labels}).groupby("group")["label"].nunique()
    assert found.num_contradictions == (table > 1).sum() > 0
    assert not found.whole_texts
    assert found.contradictions[0][0].link.startswith("#c1-row-row%20")
