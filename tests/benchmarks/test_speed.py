"""The benchmarks that run side by side: their arithmetic, their files, and that both sides do the same work."""

import json
from dataclasses import asdict, replace
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import precision
from benchmarks.cases import plot
from benchmarks.inference import main as compare_inference
from benchmarks.measure import Run, compare, merged, read_records, share_of_rate, table, write_records
from benchmarks.sides import Side, largest_difference, measured, working
from benchmarks.workload import GEMMA, REALISTIC, TINY, TINY_GEMMA, MatrixRate, Workload
from nexttoken.errors import UserError
from nexttoken.pipeline import train
from nexttoken.runs.load import load_run
from support.composed import config_of
from support.training import SAMPLE

WORK = Workload(TINY, 7, shortest=4, median=9, longest=60)
FIELDS = ("work", "peer", "precision", "ratio", "ratio_min", "ratio_max", "memory_ratio", "versions")
PAIRS = [(Run(1.0, 10), Run(4.0, 20)), (Run(2.0, 12), Run(5.0, 40)), (Run(3.0, 90), Run(9.0, 60))]


def record(**own):
    return compare("some work", "a peer", "fp32", PAIRS, **own)


def test_the_ratio_is_that_of_medians_and_the_spread_that_of_pairs():
    made = record(target=2.5, memory_target=0.3)
    assert (made.ratio, made.ratio_min, made.ratio_max) == (5 / 2, 5 / 2, 4)
    assert made.memory_ratio == 12 / 40
    assert made.reached
    assert not replace(made, target=2.6).reached
    assert not replace(made, memory_target=0.29).reached
    assert record().reached is None


def test_of_times_less_is_better():
    made = record(kind="time", target=0.4)
    assert (made.ratio, made.ratio_min, made.ratio_max) == (2 / 5, 1 / 4, 2 / 5)
    assert made.reached
    assert not replace(made, target=0.39).reached


def test_a_share_is_of_the_rate_measured_beside_each_run():
    made = share_of_rate("some work", "fp32", [0.5, 0.8], [Run(1.0), Run(1.0)], target=0.6)
    assert made.ratio == pytest.approx(0.65)
    assert (made.ratio_min, made.ratio_max) == (0.5, 0.8)
    assert made.reached
    assert "65 %" in table([made])


def test_records_are_files_with_the_promised_keys_and_a_plot(tmp_path):
    made = [record(target=2.0), record(kind="time", facts={"rows": 3}), record(note="slow")]
    write_records(tmp_path / "x.json", made)
    plot(made, tmp_path / "x.png", "a title")
    saved = json.loads((tmp_path / "x.json").read_text())
    assert all(tuple(row)[: len(FIELDS)] == FIELDS for row in saved)
    assert saved[0]["versions"]["torch"]
    assert read_records(tmp_path / "x.json") == made
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "2.50x" in table(made)


def test_a_later_record_takes_the_place_of_the_same_work():
    old, other = record(), compare("other work", "a peer", "fp32", PAIRS)
    new = replace(old, ratio=9.0)
    assert merged([old, other], [new]) == [new, other]


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('[{"work": 1}]')
    with pytest.raises(UserError, match="name another file"):
        read_records(tmp_path / "x.json")


def test_workloads_are_as_they_are_described():
    assert 23e6 < Workload(REALISTIC, 1).body < 25e6
    work = Workload(REALISTIC, 64)
    assert min(work.lengths) == 100
    assert 1500 < max(work.lengths) <= 2000
    assert 280 < np.median(work.lengths) < 320
    sample = sorted(Workload(REALISTIC, 48, alike=8).lengths)
    assert sum(8 * max(sample[i : i + 8]) for i in range(0, 48, 8)) / sum(sample) < 1.02, "batches of 8 have no padding"
    shared = work.with_prefix_share(1 / 3)
    assert shared.prefix * 64 / shared.tokens == pytest.approx(1 / 3, abs=0.01)
    assert len({tuple(prompt[: shared.prefix]) for prompt in shared.prompts}) == 1
    assert GEMMA.config().final_logit_softcapping


@pytest.mark.parametrize("shape", [TINY, TINY_GEMMA])
@pytest.mark.parametrize("peer", ["Harness", "PaddedBatches", "RowByRow"])
def test_prediction_and_its_peers_give_the_same_probabilities(shape, peer):
    from benchmarks import predictors

    work = replace(WORK, shape=shape)
    mine = predictors.Predict(work, batch_tokens=100).check()
    assert mine.std(axis=0).max() > 0.01, "the rows differ"
    np.testing.assert_allclose(mine, getattr(predictors, peer)(work).check(), atol=1e-5)


@pytest.mark.parametrize("peer", ["Sft", "FullLogits", "Classifier"])
def test_training_and_its_peers_have_the_same_losses(peer):
    if peer == "Sft" and find_spec("trl") is None:
        pytest.skip("trl is not installed (extra bench)")
    from benchmarks import ours_training, training_peers

    work = replace(WORK, rows=32)
    head, compared = ("label", 1) if peer == "Classifier" else ("vocabulary", 2)
    mine = ours_training.Train(work, 2, batch_tokens=100, check_head=head).check()
    theirs = getattr(training_peers, peer)(work, 2).check()
    assert len(mine) == len(theirs) == 2
    np.testing.assert_allclose(mine[:compared], theirs[:compared], atol=1e-4)


def test_padding_free_rows_do_not_see_each_other():
    if find_spec("trl") is None:
        pytest.skip("trl is not installed (extra bench)")
    from benchmarks import training_peers

    work = replace(WORK, rows=16)
    padded, free = (training_peers.Sft(work, 1, way) for way in ("8 rows", "8 rows padding-free"))
    np.testing.assert_allclose(padded.check(), free.check(), atol=1e-4)


def test_the_bare_loop_learns_what_fit_learns():
    from benchmarks import ours_training

    work = replace(WORK, rows=12)
    losses = [getattr(ours_training, kind)(work, 3, 100).check() for kind in ("Train", "BareLoop")]
    np.testing.assert_allclose(*losses, atol=1e-5)
    assert len(losses[0]) == 3


def test_the_rate_of_products_is_a_rate():
    assert 1e7 < MatrixRate(WORK.model())() < 1e14


class Sleeper:
    """Holds 60 MB for a moment."""

    def run(self):
        from benchmarks.sides import Answers

        return Answers(np.ones(60_000_000, dtype=np.int8) * 2, seconds=7.0)


def test_extra_memory_is_that_of_the_run():
    run = measured(Sleeper())
    assert run.seconds == 7.0
    assert run.extra_mb is not None
    assert 55 < run.extra_mb < 200


@pytest.mark.slow
def test_a_side_that_fails_says_why():
    with pytest.raises(UserError, match="TypeError"), working(Side("benchmarks.predictors:RowByRow", {"unknown": 1})):
        pass


def test_sides_that_differ_are_refused():
    assert largest_difference([1.0], [1.00001], 1e-4, "work") == pytest.approx(1e-5)
    with pytest.raises(UserError, match=r"\(1,\) and \(2,\)"):
        largest_difference([1.0], [1.0, 1.0], 1e-4, "work")
    for other in (2.0, float("nan")):
        with pytest.raises(UserError, match="the sides differ"):
            largest_difference([1.0], [other], 1e-4, "work")


@pytest.mark.slow
def test_a_rehearsal_writes_records_and_plot(tmp_path, capsys):
    out = tmp_path / "inference.json"
    compare_inference(["size=tiny", "repeats=2", "cases=rows", f"out={out}"])
    (made,) = read_records(out)
    assert made.repeats == 2
    assert made.ratio_min <= made.ratio <= made.ratio_max
    assert made.facts["largest_difference"] < 1e-5
    assert out.with_suffix(".png").exists()
    assert asdict(made)["work"].startswith("rehearsal: ")
    assert "one row at a time" in capsys.readouterr().out


def test_unknown_cases_are_refused():
    with pytest.raises(UserError, match="cases=harnes is not known"):
        compare_inference(["size=tiny", "cases=harnes"])


def test_a_precision_is_compared_on_a_trained_folds_rows(tmp_path):
    overrides = ["fold=0", "debug=fast", "name=small", f"output_dir={tmp_path}", f"input_dir={SAMPLE}"]
    train(config_of("train", *overrides), overrides)
    run = load_run(tmp_path / "lmsys" / "small")
    records = precision.measure(run, run.folds[0], 1000, 2, ["bf16", "nf4"])
    assert [record.precision for record in records] == ["fp32", "bf16", "nf4"]
    whole, half, packed = (record.facts for record in records)
    assert whole["difference"] == whole["largest_move"] == 0
    assert whole["log_loss"] == pytest.approx(run.folds[0].metrics()["log_loss"], abs=1e-5)
    assert half["weights_mb"] == pytest.approx(whole["weights_mb"] / 2)
    assert packed["weights_mb"] < whole["weights_mb"]
    assert 0 < half["largest_move"] < 0.1
    assert half["difference"] == pytest.approx(half["log_loss"] - whole["log_loss"])
    assert len(precision.table(records).splitlines()) == 5


def test_a_precision_of_a_run_of_ones_own_replaces_no_published_record():
    given = precision.PrecisionArguments.parse(["run=output/lmsys/none"])
    assert given.out.parts[0] == "output"


def test_a_precision_that_is_not_known_is_one_line():
    with pytest.raises(UserError, match="nf5"):
        precision.main(["run=output/lmsys/none", "cases=nf5"])
