"""Variants are compared only where that is fair, and the intervals know the noise of rows, groups and seeds."""

import json
import math
import re
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from nexttoken.errors import UserError
from nexttoken.metrics.intervals import percentile_interval, resampled_means, two_sided_p
from nexttoken.metrics.named import metric_named
from nexttoken.metrics.probabilities import accuracy, log_loss
from nexttoken.report.compare import COMPARED, compare
from nexttoken.runs.read import read_runs
from support.commands import refusal as refused_command
from support.commands import status_of

main = partial(status_of, "compare")

HEADS = ("LabelSoftmax", "WholeVocabulary", "Classification")
CONFIG = {
    "input_dir": "input/sample-preferences",
    "fold": 0,
    "seed": 0,
    "batch_tokens": 4096,
    "adapter": {"r": 16, "alpha": 32.0},
    "fit": {"learning_rate": 0.001},
    "head": {"_target_": "nexttoken.engine.heads.LabelSoftmax"},
}


def write_fold(run: Path, of_label: np.ndarray, fold: int = 0, *, dataset: str = "sample", **changed) -> Path:
    """A finished fold of two classes: row i has id f<fold>-i, group i // 2, label i % 2 of that probability."""
    folder, places = run / f"fold{fold}", np.arange(len(of_label))
    folder.mkdir(parents=True)
    labels, ids = places % 2, [f"f{fold}-{place}" for place in places]
    probs = np.where(np.arange(2) == labels[:, None], np.array(of_label)[:, None], 1 - np.array(of_label)[:, None])
    pd.DataFrame({"id": ids, "fold": fold, "label": labels, "a": probs[:, 0], "b": probs[:, 1]}).to_csv(
        folder / "oof.csv", index=False
    )
    scores = {"log_loss": log_loss(probs, labels), "accuracy": accuracy(probs, labels), "num_examples": len(labels)}
    references = {f"{name}_log_loss": math.log(2) for name in ("uniform", "prior", "baseline")}
    data = {"fold": fold, "trained": True, "task": "lmsys", "dataset": dataset, "is_published_data": False}
    (folder / "metrics.json").write_text(json.dumps(scores | references | data))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"fold": fold} | changed))
    (folder / "data.sha256").write_text("0" * 64)
    table = run / "folds.csv"
    lines = [f"{id},{1000 * fold + place // 2},{fold}\n" for id, place in zip(ids, places, strict=True)]
    table.write_text((table.read_text() if table.exists() else "id,group,fold\n") + "".join(lines))
    return folder


def head(name: str) -> dict:
    return {"head": {"_target_": f"nexttoken.engine.heads.{name}"}}


def write_sweep(output: Path, shifts: dict[str, float], num_rows: int = 60, spread: float = 0.0, **changed) -> Path:
    """Heads x seeds 0-2 x folds 0-1; a head's row losses are the rows' own, its shift, and noise of seed and row."""
    for (number, (name, shift)), seed, fold in product(enumerate(shifts.items()), range(3), range(2)):
        own = np.random.default_rng(fold).uniform(0.2, 1.5, num_rows)
        rng = np.random.default_rng([number, seed, fold])
        losses = own + shift + rng.normal(0, 0.05, num_rows) + spread * (seed - 1) * (1 if number else -1)
        run = output / "lmsys" / f"{name}_seed={seed}"
        write_fold(run, np.exp(-np.maximum(losses, 1e-3)), fold, seed=seed, **head(name), **changed)
    return output


@pytest.fixture
def sweep(tmp_path) -> Path:
    return write_sweep(tmp_path / "output", dict.fromkeys(HEADS, 0.0))


def refusal(*paths: Path, by: str = "head", **options) -> str:
    with pytest.raises(UserError) as caught:
        compare(paths, by, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(config: Path, **changed) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changed))


# The page


def test_the_page_of_a_hand_made_case_is_exact(tmp_path, capsys):
    for seed in range(2):
        write_fold(tmp_path / f"label{seed}", [0.5, 0.25, 0.5, 0.5], seed=seed, **head("Label"))
        of_label = np.array([0.25, 0.125, 0.25, 0.25]) * (1 + seed)  # ln 2 worse than Label, then equal to it
        write_fold(tmp_path / f"class{seed}", of_label, seed=seed, **head("Class"))
    out = tmp_path / "heads.md"
    given = [str(tmp_path), "by=head", "baseline=head.label", "metric=log_loss", f"out={out}"]
    assert main(given) == 0
    # Groups are rows 0-1 and 2-3, so that resampled means of Label are ln 2 times 1.5, 1.25 or 1. The difference is
    # ln 2, half of it, or 0, by the seeds drawn, with shares of 1/4, 1/2 and 1/4: p is near twice 1/4.
    expected = """\
## sample (lmsys) by head

4 rows in 2 groups, folds 0, seeds 0, 1: 4 trained folds that differ in `head` alone.

| head  | seeds |    log loss | 95 % interval |    vs. Label | its 95 % interval |     p |
| :---- | ----: | ----------: | ------------: | -----------: | ----------------: | ----: |
| Class |     2 | 1.21 ± 0.49 |  0.69 to 1.73 | +0.35 ± 0.49 |    +0.00 to +0.69 | 0.490 |
| Label |     2 | 0.87 ± 0.00 |  0.69 to 1.04 |              |                   |       |

- Class and Label: no difference to be seen in log loss (+0.00 to +0.69)
- noise: two runs of one variant with other seeds differ by less than 2.11 in 95 % of cases

| log loss per seed |     0 |     1 |
| :---------------- | ----: | ----: |
| Class             |  1.56 |  0.87 |
| Label             |  0.87 |  0.87 |
| Class vs. Label   | +0.69 | +0.00 |

Mean over seeds of the score of all out-of-fold rows, ± its sample standard deviation over seeds. Intervals: \
percentiles of 10,000 resamples of groups of rows and of seeds, the same for all variants; each holds for its own \
difference, none is corrected for how many there are. With few seeds, intervals are too narrow where the spread over \
seeds makes up much of their width.

"""
    page = out.read_text()
    assert page == expected + f"Command: `python -m nexttoken compare {' '.join(given)}`\n"
    assert capsys.readouterr().out == f"{page}\nwrote {out}\n"


def test_scores_are_those_of_the_pooled_rows_and_of_the_metrics(sweep):
    page = compare([sweep], "head")
    for name in HEADS:
        runs = [pd.concat(map(pd.read_csv, sweep.glob(f"lmsys/{name}_seed={s}/fold*/oof.csv"))) for s in range(3)]
        for score in (log_loss, accuracy):
            values = [score(oof[["a", "b"]].to_numpy(), oof["label"].to_numpy()) for oof in runs]
            # Three decimals are what the intervals of 120 rows support, four those of paired differences in log loss.
            assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in page
            assert all(f" {value:.{4 if score is log_loss else 3}f} |" in page for value in values)


def test_a_known_difference_is_found_covered_and_put_into_words(tmp_path):
    write_sweep(tmp_path, {"LabelSoftmax": 0.2, "WholeVocabulary": 0.25})
    page = compare([tmp_path], "head", metrics=[COMPARED["log_loss"]])
    pattern = r"- WholeVocabulary is (.*) worse than LabelSoftmax in log loss \(95 % interval (.*) to (.*)\)"
    [(difference, low, high)] = re.findall(pattern, page)
    assert 0.03 < float(low) < 0.05 < float(high) < 0.07
    assert float(low) < float(difference) < float(high)
    turned = compare([tmp_path], "head", baseline="vocabulary")
    sentence = f"LabelSoftmax is {difference} better than WholeVocabulary in log loss (95 % interval {low} to {high})"
    assert sentence in turned


def test_a_baseline_is_looked_for_in_the_names_before_the_settings(tmp_path):
    for name, of_label in (("LabelSoftmax", [0.5, 0.6] * 4), ("WholeVocabulary", [0.3, 0.4] * 4)):
        write_fold(
            tmp_path / name, of_label, head={"_target_": f"nexttoken.engine.heads.{name}", "label_smoothing": 0.1}
        )
    assert re.search(r"WholeVocabulary \S+ \S+ is .* worse than LabelSoftmax", compare([tmp_path], "head", "label"))


def test_settings_that_differ_together_make_one_variant(tmp_path):
    """Each head at its own learning rate; a third difference is refused, and so is an unknown key among several."""
    for name, rate, right in (("Label", 0.001, 0.5), ("Class", 0.01, 0.25)):
        write_fold(tmp_path / name, [right] * 4, **head(name), fit={"learning_rate": rate})
    assert "differ in more than head (fit.learning_rate: 0.01 -> 0.001)" in refusal(tmp_path)
    page = compare([tmp_path], "head,fit.learning_rate", "Label", [COMPARED["log_loss"]])
    assert "Class, 0.01 is 0.6931 worse than Label, 0.001 in log loss" in page
    assert "no run has the key 'fit.rate'" in refusal(tmp_path, by="head,fit.rate")
    assert "runs are not compared by seed" in refusal(tmp_path, by="head,seed")


def test_variants_that_answer_alike_show_no_difference(tmp_path):
    for name, seed in product(HEADS, range(3)):
        write_fold(tmp_path / f"{name}{seed}", np.random.default_rng(seed).uniform(size=150), seed=seed, **head(name))
    page = compare([tmp_path], "head", "label")
    for name in ("Classification", "WholeVocabulary"):
        assert f"- {name} and LabelSoftmax: no difference to be seen in log loss (+0.0000 to +0.0000)" in page
    assert page.count("+0.0000 ± 0.0000 |") == page.count("| 1.000 |") == 4


def test_accuracy_is_better_when_higher(tmp_path):
    for name, of_label in (("LabelSoftmax", [0.4] * 8), ("Classification", [0.6] * 8)):
        write_fold(tmp_path / name, of_label, **head(name))
    page = compare([tmp_path], "head", "label", [COMPARED["accuracy"]])
    assert "- Classification is 1.0000 better than LabelSoftmax in accuracy (95 % interval 1.0000 to 1.0000)" in page
    assert "log loss" not in page
    assert "One seed: what another seed would change is in no interval." in page
    assert "0.0000 ± –" in page


def test_the_same_runs_give_the_same_page_whatever_their_order(sweep):
    page = compare([sweep], "head")
    oof = sweep / "lmsys" / "LabelSoftmax_seed=1" / "fold0" / "oof.csv"
    header, *rows = oof.read_text().splitlines()
    oof.write_text("\n".join([header, *reversed(rows)]) + "\n")
    folders = sorted((sweep / "lmsys").iterdir(), reverse=True)
    assert compare([*folders, sweep], "head") == page  # and a run that is named twice counts once


def test_each_data_set_has_its_own_tables(sweep):
    for name in HEADS[:2]:
        write_fold(sweep / "lmsys" / f"mini_{name}", np.full(10, 0.7), dataset="mini", **head(name))
    page = compare([sweep], "head")
    mini, sample = page.split("## sample")
    assert mini.startswith("## mini (lmsys) by head\n\n10 rows in 5 groups, folds 0, seeds 0: 2 trained folds")
    assert "120 rows in 60 groups, folds 0, 1, seeds 0, 1, 2: 18 trained folds" in sample


@pytest.mark.parametrize(
    ("by", "values", "names"),
    [
        ("adapter.r", [{"adapter": {"r": r, "alpha": 32.0}} for r in (64, 8, 16)], ["8", "16", "64"]),
        ("adapter", [{"adapter": None}, {"adapter": {"r": 8}}], ["none", "{r: 8}"]),
        ("head", [{"head": {"_target_": "x.Smooth", "by": b}} for b in (0.1, 0.2)], ["Smooth {by: 0.1}", "{by: 0.2}"]),
        ("fit.learning_rate", [{"fit": {"learning_rate": r}} for r in (1e-3, 2e-4)], ["0.0002", "0.001"]),
    ],
)
def test_variants_are_the_values_of_any_key_in_their_order(tmp_path, by, values, names):
    for number, value in enumerate(values):
        write_fold(tmp_path / f"run{number}", np.full(10, 0.5), batch_tokens=number, input_dir=f"/{number}", **value)
    table = compare([tmp_path], by).splitlines()[6:]
    assert all(name in line for name, line in zip(names, table, strict=False))


def test_data_with_one_variant_is_named_and_the_others_are_compared(sweep):
    write_fold(sweep / "lmsys" / "mini", np.full(10, 0.7), dataset="mini", **head(HEADS[0]))
    page = compare([sweep], "head")
    assert page.startswith("Not compared: all runs on mini have head LabelSoftmax.\n\n## sample (lmsys) by head")


def test_long_variants_make_no_table_wider_than_a_terminal(tmp_path):
    for number in range(12):
        name = f"Smooth {'a very long name of a method ' * 5} {number}"
        write_fold(tmp_path / f"run{number}", np.full(40, 0.3 + number / 20), head=name)
    tables = [line for line in compare([tmp_path], "head").splitlines() if line.startswith("|")]
    assert max(map(len, tables)) <= 100
    names = {line.split("|")[1].strip() for line in tables}
    assert all(any(name.endswith(f" {number}") for name in names) for number in range(12))


# Refusals


def test_other_settings_are_named(sweep):
    edit(sweep / "lmsys" / "Classification_seed=1" / "fold1" / "config.yaml", fit={"learning_rate": 0.01})
    message = refusal(sweep)
    assert "Classification_seed=1/fold1 differ in more than head (fit.learning_rate: 0.0" in message


def test_missing_runs_are_named(sweep):
    (sweep / "lmsys" / "Classification_seed=1" / "fold1" / "metrics.json").unlink()
    (sweep / "lmsys" / "WholeVocabulary_seed=2" / "fold0" / "metrics.json").unlink()
    assert "Classification seed=1 fold=1, WholeVocabulary seed=2 fold=0; train" in refusal(sweep)


def test_a_run_made_twice_is_refused(sweep):
    write_fold(sweep / "again", np.full(60, 0.5), **head("LabelSoftmax"))
    message = refusal(sweep)
    assert "again/fold0" in message
    assert "are both LabelSoftmax seed=0 fold=0" in message


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "fold0/oof.csv",
            "f0-3,",
            "new,",
            "2 rows in one of them, of another label or in another group: f0-3, new",
        ),
        ("folds.csv", "f0-3,1,", "f0-3,7,", "1 rows in one of them, of another label or in another group: f0-3"),
        ("fold0/oof.csv", ",a,b", ",a,c", "fold0/oof.csv; run the fold again"),
        ("fold0/data.sha256", "0", "1", "the texts of the data have changed between them (data.sha256)"),
    ],
)
def test_other_rows_are_refused(sweep, file, old, new, reason):
    run = sweep / "lmsys" / "WholeVocabulary_seed=2"
    (run / "folds.csv").write_text((run / "folds.csv").read_text() + "new,1,0\n")
    (run / file).write_text((run / file).read_text().replace(old, new))
    message = refusal(sweep)
    assert "not scored on the same rows" in message
    assert message.endswith(reason)


def test_transforms_may_change_the_texts_but_not_the_rows(tmp_path):
    for number, transforms in enumerate([{}, {"counts": {"_target_": "nexttoken.transforms.Counts"}}]):
        folder = write_fold(tmp_path / str(number), np.full(10, 0.5), transforms=transforms)
        (folder / "data.sha256").write_text(str(number))
    assert "no difference to be seen" in compare([tmp_path], "transforms")


def test_rows_without_a_group_are_refused(sweep):
    table = sweep / "lmsys" / "LabelSoftmax_seed=0" / "folds.csv"
    table.write_text(table.read_text().replace("f1-7,", "f1-x,"))
    assert "folds.csv lacks the ids f1-7 of" in refusal(sweep)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"by": "haed"}, "no run has the key 'haed' in its config.yaml; did you mean 'head'?"),
        ({"by": "seed"}, "runs are not compared by seed"),
        ({"by": "name"}, "runs are not compared by name"),
        ({"by": "adapter.r"}, "differ in more than adapter.r (head._target_: "),
        ({"baseline": "labl"}, "baseline=labl is no variant; "),
        ({"baseline": "a"}, "baseline=a is a part of Classification, LabelSoftmax, WholeVocabulary"),
    ],
)
def test_a_wrong_question_is_refused(sweep, options, reason):
    assert reason in refusal(sweep, **options)


def test_one_variant_is_nothing_to_compare(tmp_path):
    write_sweep(tmp_path, {"LabelSoftmax": 0.0})
    assert "all runs on sample have head LabelSoftmax: nothing to compare" in refusal(tmp_path)


def test_the_command_needs_no_torch_and_ends_with_one_line_and_status_2(sweep, tmp_path, capsys):
    code = (
        "import sys; sys.argv.insert(1, 'compare'); from nexttoken.__main__ import main; main(); "
        "assert not {'torch', 'transformers', 'hydra'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(sweep), "by=head"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    line = refused_command(capsys, "compare", tmp_path / "none", "by=head")
    assert line.startswith(f"{tmp_path / 'none'} holds no finished run")


# Intervals


def width(draws: np.ndarray) -> float:
    interval = percentile_interval(draws)
    return interval.high - interval.low


def table(num_seeds: int, num_rows: int, seed: int, of_seed: float = 0.0) -> np.ndarray:
    """(1, S, N): effects of standard deviation `of_seed`, 1 and 0.5 of seed, row and both together."""
    rng = np.random.default_rng(seed)
    both = 0.5 * rng.normal(size=(num_seeds, num_rows)) + rng.normal(size=num_rows)
    return (both + of_seed * rng.normal(size=(num_seeds, 1)))[None]


def test_resamples_are_those_of_groups_and_seeds_drawn_together():
    values = np.array([[[1.0, 2, 4, 8], [3, 5, 9, 17]]])  # 1 variant, 2 seeds, groups of 3 rows and 1 row
    groups = np.array([7, 7, 3, 7])
    expected = []
    for drawn, seeds in product(product((7, 3), repeat=2), product((0, 1), repeat=2)):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        expected.append(values[0][np.array(seeds)][:, rows].mean())
    draws = resampled_means(values, groups, num_resamples=100_000)[:, 0]
    found, counts = np.unique(draws.round(9), return_counts=True)
    exact, shares = np.unique(np.round(expected, 9), return_counts=True)
    assert found.tolist() == exact.tolist()
    assert counts / 100_000 == pytest.approx(shares / 16, abs=0.01)


def test_draws_in_pieces_do_not_depend_on_memory(monkeypatch):
    values, groups = table(3, 40, seed=0), np.arange(40) // 2
    whole = resampled_means(values, groups, 500)
    monkeypatch.setattr("nexttoken.metrics.intervals.DRAWS_AT_ONCE", 70)
    assert resampled_means(values, groups, 500) == pytest.approx(whole, abs=1e-12)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    hits = [
        0 in percentile_interval(resampled_means(table(3, 100, seed, of_seed=0.05), np.arange(100), 500)[:, 0])
        for seed in range(300)
    ]
    assert 0.91 < np.mean(hits) < 0.985


def test_the_width_is_that_of_the_normal_theory_where_only_rows_vary():
    rows = np.random.default_rng(0).normal(size=2000)
    draws = resampled_means(rows[None, None], np.arange(2000))[:, 0]
    assert width(draws) == pytest.approx(2 * 1.96 * rows.std() / 2000**0.5, rel=0.04)


def test_pairing_narrows_the_interval_of_a_difference():
    first = table(3, 300, seed=0)
    second = first + 0.1 + 0.1 * table(3, 300, seed=1)
    groups = np.arange(300)
    draws = resampled_means(np.concatenate([first, second]), groups)
    unpaired = resampled_means(second, groups, seed=1)[:, 0] - resampled_means(first, groups, seed=2)[:, 0]
    assert width(draws[:, 1] - draws[:, 0]) < 0.2 * width(unpaired)


def test_rows_of_one_group_count_as_one():
    values = np.repeat(table(3, 100, seed=0), 4, axis=2)  # every row four times
    alone, grouped = (resampled_means(values, groups)[:, 0] for groups in (np.arange(400), np.arange(400) // 4))
    assert width(grouped) == pytest.approx(2 * width(alone), rel=0.1)


def test_the_spread_over_seeds_widens_the_interval(tmp_path):
    values, groups = table(3, 300, seed=0), np.arange(300)
    apart = values + np.array([-0.2, 0.0, 0.2])[None, :, None]
    assert width(resampled_means(apart, groups)[:, 0]) > 1.4 * width(resampled_means(values, groups)[:, 0])
    shifts = {"LabelSoftmax": 0.2, "WholeVocabulary": 0.25}
    assert "worse than LabelSoftmax in log loss" in compare([write_sweep(tmp_path / "quiet", shifts)], "head")
    noisy = compare([write_sweep(tmp_path / "noisy", shifts, spread=0.1)], "head")
    assert "WholeVocabulary and LabelSoftmax: no difference to be seen in log loss" in noisy


def test_p_is_the_rarer_side_twice():
    assert two_sided_p(np.array([-1.0] * 5 + [1.0] * 94)) == pytest.approx(2 * 6 / 100)
    assert two_sided_p(np.ones(9999)) == 2 / 10_000
    assert two_sided_p(np.zeros(10)) == 1


def test_a_task_is_compared_by_its_own_metric_first_also_where_it_is_no_mean_over_rows(tmp_path):
    rng, by_variant = np.random.default_rng(0), {}
    for name, skill in (("LabelSoftmax", 1.0), ("WholeVocabulary", 3.0)):
        for seed in range(2):
            noise = rng.normal(size=80) + skill
            folder = write_fold(tmp_path / f"{name}{seed}", 1 / (1 + np.exp(-noise)), **head(name), seed=seed)
            saved = json.loads((folder / "metrics.json").read_text())
            (folder / "metrics.json").write_text(json.dumps(saved | {"metric": "auc", "auc": 0.5}))
            oof = pd.read_csv(folder / "oof.csv")
            by_variant.setdefault(name, []).append(roc_auc_score(oof["label"], oof["b"]))
    page = compare([tmp_path], "head")
    assert page.index("AUC") < page.index("log loss") < page.index("accuracy")
    worse, better = (float(np.mean(scores)) for scores in by_variant.values())
    (line,) = re.findall(r"WholeVocabulary is ([\d.]+) better than LabelSoftmax in AUC", page)
    assert float(line) == pytest.approx(better - worse, abs=5e-4)
    assert len(line) == len("0.000"), "three decimals are what 80 rows support"
    assert "in accuracy" not in compare([tmp_path], "head", metrics=[metric_named("auc")])
    with pytest.raises(UserError, match="rule of their rows is not known"):
        compare([tmp_path], "head", metrics=[metric_named("auc_by(rule)")])


def test_rows_of_one_class_have_a_sentence_instead_of_a_table(tmp_path):
    for name in HEADS[:2]:
        folder = write_fold(tmp_path / name, [0.75], **head(name))
        assert (pd.read_csv(folder / "oof.csv")["label"] == 0).all()
    page = compare([tmp_path], "head", metrics=[metric_named("auc")])
    assert "AUC cannot be computed on these rows." in page


def test_thresholds_and_means_over_rows_are_compared_as_the_report_scores_them(tmp_path):
    rng = np.random.default_rng(1)
    for name, fold in product(HEADS[:2], range(2)):
        write_fold(tmp_path / name, rng.uniform(0.2, 0.9, 60), fold, **head(name))
    runs = {run.name: run for run in read_runs(tmp_path)}
    for expression in ("f1(binary)", "mrr"):
        metric = metric_named(expression)
        page = compare([tmp_path], "head", metrics=[metric])
        for name, run in runs.items():
            assert f"{run.score(metric):.3f} ± –" in next(line for line in page.splitlines() if f"| {name}" in line)
