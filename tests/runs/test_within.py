"""Prediction with a deadline: the prior at first, every pass by its worth, and the plain submission at the end."""

import csv
import subprocess
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken import pipeline
from nexttoken.build import make
from nexttoken.commands.ask import main as ask
from nexttoken.commands.blend import main as blend
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import prior_probs
from nexttoken.progress import UNANSWERED, Deadline
from nexttoken.runs.blend import read_blend, save_blend
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.load import load
from nexttoken.runs.lock import written_alone
from nexttoken.runs.timed import prediction as within
from nexttoken.runs.timed.passes import steps_of
from nexttoken.runs.timed.row_answers import RowAnswers, source_of
from nexttoken.runs.timed.shares import Shares
from nexttoken.runs.timed.slices import slices_of
from nexttoken.runs.timed.submission import reading_once
from nexttoken.types import LabelPredictions
from support.composed import CONF
from support.composed import composed as plain_config
from support.training import composed, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two folds, asked once; both were scored in both orders, too."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "logger=none")
    return folder


def predict(output: Path, submissions: Path, *overrides: str, run: str = "tiny") -> bytes:
    places = [f"run={output}/lmsys/{run}", f"submissions_dir={submissions}"]
    return pipeline.predict(composed("predict", *places, "name=x", *overrides)).read_bytes()


def test_with_time_enough_the_submission_and_its_ledger_are_those_of_a_plain_prediction(trained, tmp_path):
    plain, timed = (predict(trained, tmp_path / name, *more) for name, more in (("a", ()), ("b", ("within=10m",))))
    assert timed == plain
    (first, last), (line,) = (read_ledger(tmp_path / name / "ledger.csv") for name in ("b", "a"))
    assert (first.asked, first.oof_log_loss) == ("the prior 100%", None)
    assert (last.asked, last.oof_log_loss, last.sha256) == ("", line.oof_log_loss, line.sha256)


def test_a_cascade_with_time_enough_is_a_plain_one(trained, tmp_path):
    for fold, (name, size) in product((0, 1), (("small", 32), ("larger", 48))):
        more = ["limit_rows=60", f"model.scratch.hidden_size={size}", "logger=none"]
        train(trained, f"fold={fold}", f"name={name}", *more)
    more = [f"cascade={trained}/lmsys/larger", "cascade_share=0.3"]
    plain = predict(trained, tmp_path / "a", *more, run="small")
    assert predict(trained, tmp_path / "b", *more, "within=10m", run="small") == plain
    _, last = read_ledger(tmp_path / "b" / "ledger.csv")
    assert last.oof_log_loss == read_ledger(tmp_path / "a" / "ledger.csv")[0].oof_log_loss is not None


def test_without_time_to_answer_the_prior_is_a_valid_submission(trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        predict(trained, tmp_path, "within=1s")
    assert ended.value.code == UNANSWERED == 3
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    run = load(RunFolder(trained / "lmsys" / "tiny"))
    labels = [label for fold in run.folds for label in (example.label for example in run.held_out(fold))]
    assert len(rows) == 40
    assert np.allclose(np.array([row[1:] for row in rows], dtype=float), prior_probs(labels, 3, 3), atol=1e-15)
    assert "the prior 100%" in capsys.readouterr().out


def test_a_pass_that_is_cut_short_keeps_what_it_has_answered(trained, tmp_path, monkeypatch):
    run, states = load(RunFolder(trained / "lmsys" / "tiny")), []
    examples = pipeline.read(run.parts, "test")
    monkeypatch.setattr(within, "slices_of", lambda lengths, *_: np.array_split(np.argsort(lengths), 8))
    timed = within.TimedPrediction(run, examples, Deadline(600), lambda timed, _: states.append(timed.answers.probs))
    ask = timed._asker.ask

    def ask_three(step, rows):
        if timed.answers.has_answer.sum() >= 15:
            raise within.TimeIsUp  # whatever time there seems to be left
        return ask(step, rows)

    monkeypatch.setattr(timed._asker, "ask", ask_three)
    answers = timed.finish()
    assert timed.words == "fold 0 38%, the prior 62%"
    whole = run.inference(run.folds[0])(examples, run.answerer(run.folds[0])).probs
    known = answers.has_answer
    assert known.sum() == 15
    assert np.allclose(answers.probs[known], whole[known], atol=1e-6)
    assert np.allclose(answers.probs[~known], states[0][~known])
    lengths = timed.lengths
    assert lengths[known].max() <= lengths[~known].min()


def test_both_orders_follow_where_they_gained_and_no_question_is_asked_twice(trained, tmp_path, monkeypatch):
    name = trained / "lmsys" / "tiny"
    ask([f"run={name}", "inference=swap_averaged"])
    run = load(RunFolder(name))
    (way,) = run.folder.ways
    scores = {fold.path: fold.metrics() | {"log_loss": 0.9} for fold in map(way.fold, (0, 1))}  # as if it had gained
    metrics = FoldFolder.metrics
    monkeypatch.setattr(FoldFolder, "metrics", lambda fold: scores.get(fold.path) or metrics(fold))
    examples, asked = pipeline.read(run.parts, "test"), []
    answer = LabelAnswerer.__call__
    monkeypatch.setattr(LabelAnswerer, "__call__", lambda self, some: asked.append(len(some)) or answer(self, some))
    timed = within.TimedPrediction(run, examples, Deadline(600), lambda *_: None, load)
    answers = timed.finish()
    assert timed.words == "fold 0 100%, fold 1 100%, fold 0 SwapAveraged 100%, fold 1 SwapAveraged 100%"
    assert asked == [40, 37, 40, 37], "three pairs are the same in both orders"
    assert not timed.is_whole
    monkeypatch.setattr(FoldFolder, "metrics", metrics)
    assert np.allclose(answers.probs, load(way).answer(examples).probs, atol=1e-6)


def test_a_process_answers_its_own_rows_alone_and_the_first_those_that_another_left(trained, tmp_path):
    run = load(RunFolder(trained / "lmsys" / "tiny"))
    examples = pipeline.read(run.parts, "test")
    own = Shares(2, 1, tmp_path)
    second = within.TimedPrediction(run, examples, Deadline(600), lambda timed, _: own.save(timed.answers), shares=own)
    assert np.array_equal(np.flatnonzero(second.finish().has_answer), own.own(second.lengths))
    with np.load(own.file(1)) as saved:  # as if it had failed after its first pass
        np.savez(own.file(1), **{saved.files[0]: saved[saved.files[0]]})
    shares = Shares(2, 0, tmp_path, others=[subprocess.Popen(["false"])])
    shares.start = lambda seconds: None
    first = within.TimedPrediction(run, examples, Deadline(600), lambda *_: None, shares=shares)
    assert np.allclose(first.finish().probs, run.answer(examples).probs, atol=1e-6)
    assert first.is_whole


@given(st.lists(st.integers(100, 5000), min_size=1, max_size=300), st.integers(1, 5))
def test_shares_hold_every_row_once_and_their_lengths_are_alike(lengths, number):
    lengths = np.array(lengths)
    shares = [Shares(number, place).own(lengths) for place in range(number)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    totals = [lengths[rows].sum() for rows in shares]
    assert max(totals) - min(totals) <= 2 * lengths.max()


@given(st.lists(st.integers(100, 5000), min_size=1, max_size=300), st.sampled_from([1, 64, 4096]))
def test_slices_hold_every_row_once_and_the_longest_in_the_first(lengths, batch_tokens):
    slices = slices_of(np.array(lengths), batch_tokens)
    assert sorted(np.concatenate(slices).tolist()) == list(range(len(lengths)))
    assert max(lengths) in [lengths[row] for row in slices[0]]
    rest = [[lengths[row] for row in rows] for rows in slices[1:]]
    assert all(max(one) <= min(other) for one, other in pairwise(rest))


def test_a_blend_of_some_members_is_that_of_their_weights_among_each_other(trained):
    train(trained, "fold=0", "name=other", "seed=1", "logger=none")
    train(trained, "fold=1", "name=other", "seed=1", "logger=none")
    blend([f"runs={trained}/lmsys/tiny,{trained}/lmsys/other", "weights=equal", "name=both", "of=logits"])
    loaded = load(RunFolder(trained / "lmsys" / "both"))
    examples = pipeline.read(loaded.parts, "test")
    answers = RowAnswers.of(loaded, examples)
    one = loaded.members[0].answer(examples).probs
    for fold in loaded.members[0].folds:
        answers.put(source_of(loaded.members[0], fold.number), np.arange(40), one)
    assert np.allclose(answers.probs, one, atol=1e-12)
    timed = within.TimedPrediction(loaded, examples, Deadline(600), lambda *_: None)
    assert np.array_equal(timed.finish().probs, loaded.answer(examples).probs)
    assert timed.is_whole
    assert [step.title.split()[0] for step in steps_of(loaded)[:2]] != ["tiny", "tiny"]


def test_a_baseline_of_a_blend_is_fitted_once_and_is_no_answer_of_a_model(trained, monkeypatch):
    blend([f"runs={trained}/lmsys/tiny,baseline", "weights=equal", "name=counts"])
    folder = RunFolder(trained / "lmsys" / "counts")
    loaded = load(folder)
    examples = pipeline.read(loaded.parts, "test")
    monkeypatch.setattr(within, "slices_of", lambda lengths, *_: np.array_split(np.argsort(lengths), 8))
    fits: list[int] = []
    kind = type(loaded.members[1].task.baselines()[0])
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, rows: fits.append(len(rows)) or fit(self, rows))
    timed = within.TimedPrediction(loaded, examples, Deadline(600), lambda *_: None)
    load_models = timed._asker.load

    def load_baseline(step):
        if step.folds:
            timed.deadline = Deadline(0)
            raise within.TimeIsUp
        load_models(step)

    monkeypatch.setattr(timed._asker, "load", load_baseline)
    answers = timed.finish()
    assert timed.words == "baseline 100%"
    assert answers.has_answer.all()
    assert not timed.is_answered
    assert len(fits) == 2, "one of each fold"


def test_a_blend_whose_runs_have_no_weight_answers_by_its_baseline(trained):
    blend([f"runs={trained}/lmsys/tiny,baseline", "weights=equal", "name=alone"])
    folder = RunFolder(trained / "lmsys" / "alone")
    known = read_blend(folder.path)
    run, baseline = known.members
    save_blend(replace(known, members=(replace(run, weight=0.0), replace(baseline, weight=1.0))), folder.path)
    loaded = load(folder)
    examples = pipeline.read(loaded.parts, "test")
    timed = within.TimedPrediction(loaded, examples, Deadline(600), lambda *_: None)
    assert np.allclose(timed.finish().probs, loaded.answer(examples).probs, atol=1e-9)
    assert timed.is_whole
    assert timed.is_answered


def test_a_submission_that_another_command_writes_is_refused_and_left_alone(trained, tmp_path):
    before = predict(trained, tmp_path)
    with (
        written_alone(tmp_path / "x.csv"),
        pytest.raises(UserError, match=r"x\.csv is being written by another command; wait for it or end it, or choose"),
    ):
        predict(trained, tmp_path, "within=10m")
    assert (tmp_path / "x.csv").read_bytes() == before
    assert predict(trained, tmp_path, "within=10m") == before


@pytest.mark.parametrize("name", ["lmsys", "quiz", "marks", "wsdm", "map", "jigsaw_rules", "eedi"])
def test_a_task_that_reads_its_test_rows_once_writes_the_same_submission_again_and_again(name, tmp_path, monkeypatch):
    monkeypatch.chdir(CONF.parent)
    task = make(plain_config(f"task={name}")["task"], "task")
    test = task.read("test")
    sizes = [one.num_options or len(task.classes) for one in test]
    probs = LabelPredictions(tuple(one.id for one in test), prior_probs([0], len(task.classes), sizes))
    paths = [tmp_path / f"{number}.csv" for number in range(3)]
    task.write(probs, paths[0])
    with reading_once(task):
        assert task.read("test") is task.read("test")
        for path in paths[1:]:
            task.write(probs, path)
    assert len({path.read_bytes() for path in paths}) == 1
