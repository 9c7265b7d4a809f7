"""Predictions of a cascade from end to end, its line in the ledger, and what predict.py refuses before any answer."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run, pipeline
from nexttoken.commands.ask import main as ask
from nexttoken.commands.blend import main as blend
from nexttoken.errors import UserError
from nexttoken.runs.cascade import Pair
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.ledger import read_ledger
from support.composed import config_of as composed
from support.training import SAMPLE, predict, train

ROWS = ("limit_rows=120", "split.num_folds=2", "logger=none")


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Two folds of a small run, and of a larger one with another prompt, which needs a transform of its own."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", *ROWS)
        train(folder, f"fold={fold}", *ROWS, "name=other", "transforms=counts", "prompt=counts", "seed=1")
    return folder


@pytest.fixture(scope="module")
def runs(output) -> tuple[Path, Path]:
    return output / "lmsys" / "tiny", output / "lmsys" / "other"


@pytest.fixture(scope="module")
def alone(runs) -> list[np.ndarray]:
    """Each run's own predictions of the test file."""
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str)
    return [load_run(run).predict(test).iloc[:, 1:].to_numpy() for run in runs]


def test_the_least_certain_rows_get_both_runs_answers(output, runs, alone, capsys):
    predicted = predict(output, f"run={runs[0]}", f"cascade={runs[1]}", "cascade_share=0.5").iloc[:, 1:].to_numpy()
    pair = Pair.read(*runs)
    cascade = pair.fit(0.5)
    unsure = cascade.unsure(alone[0])
    assert 0 < unsure.sum() < len(unsure)
    expected = np.where(unsure[:, None], cascade.combine(*alone), alone[0])
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    assert f"cascade: {unsure.sum()} of {len(unsure)} rows go on to {runs[1]}" in capsys.readouterr().out
    line, scored = read_ledger(output / "submissions" / "ledger.csv")[-1], pair.cascaded(0.5).run
    assert (line.run, line.asked) == (str(runs[0]), "cascade-other cascade_share-0.5")
    assert line.file.startswith("tiny_cascade-other-cascade_share-0.5_")
    assert line.oof_log_loss == pytest.approx(scored.score(scored.metric))


def test_both_ends_are_the_small_run_and_the_blend(output, runs, alone):
    never = predict(output, f"run={runs[0]}", f"cascade={runs[1]}", "cascade_share=0")
    np.testing.assert_allclose(never.iloc[:, 1:], alone[0], atol=1e-6)
    blend([f"runs={runs[0]},{runs[1]}", "name=both"])
    always = predict(output, f"run={runs[0]}", f"cascade={runs[1]}", "cascade_share=1")
    np.testing.assert_allclose(always.iloc[:, 1:], predict(output, f"run={output / 'lmsys' / 'both'}").iloc[:, 1:])


def test_without_a_share_it_is_chosen_out_of_fold(output, runs, alone):
    predicted, pair = predict(output, f"run={runs[0]}", f"cascade={runs[1]}", "name=chosen"), Pair.read(*runs)
    cascade = pair.fit(pair.choose_share())
    expected = np.where(cascade.unsure(alone[0])[:, None], cascade.combine(*alone), alone[0])
    np.testing.assert_allclose(predicted.iloc[:, 1:], expected, atol=1e-6)
    line, scored = read_ledger(output / "submissions" / "ledger.csv")[-1], pair.cross_chosen().run
    assert line.oof_log_loss == pytest.approx(scored.score(scored.metric))


@pytest.mark.slow
def test_a_run_asked_in_another_way_takes_part_in_that_way(output, runs, alone):
    ask([f"run={runs[0]}", "inference=swap_averaged"])
    (way,) = (one.path for one in RunFolder(runs[0]).ways)
    predicted = predict(output, f"run={way}", f"cascade={runs[1]}", "cascade_share=0.5").iloc[:, 1:].to_numpy()
    pair = Pair.read(way, runs[1])
    swapped = load_run(way).predict(pd.read_csv(SAMPLE / "test.csv", dtype=str)).iloc[:, 1:].to_numpy()
    cascade = pair.fit(0.5)
    expected = np.where(cascade.unsure(swapped)[:, None], cascade.combine(swapped, alone[1]), swapped)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    assert read_ledger(output / "submissions" / "ledger.csv")[-1].asked.startswith("SwapAveraged cascade-other")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cascade_share=0.5"], "is the share of a larger run; name it, too: cascade="),
        (["cascade={larger}", "cascade_share=1.5"], "cascade_share=1.5 is not accepted"),
        (["cascade={larger}", "fold=all"], "asked as they were trained; leave inference"),
        (["cascade={larger}", "inference=swap_averaged"], "asked as they were trained; leave inference"),
        (["cascade={small}"], "is named as the small and as the larger run"),
        (["cascade={small}_gone"], "tiny_gone has no finished fold"),
        (["cascade={larger}", "base=/somewhere"], "has a model of its own, so base=... has no use"),
    ],
)  # fmt: skip
def test_what_cannot_be_cascaded_is_one_line(output, runs, given, message):
    overrides = [one.format(small=runs[0], larger=runs[1]) for one in given]
    with pytest.raises(UserError, match=message) as error:
        predict(output, f"run={runs[0]}", *overrides)
    assert "\n" not in str(error.value)


def test_altered_weights_of_the_larger_run_are_refused_before_the_first_answer(output, runs, capsys):
    path = next((runs[1] / "fold1" / "model").glob("*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match=r"other.fold1"):
            predict(output, f"run={runs[0]}", f"cascade={runs[1]}", "cascade_share=0.5")
        assert "fold 0" not in capsys.readouterr().out
    finally:
        path.write_bytes(content)


def test_ask_answers_held_out_rows_and_leaves_cascades_to_their_command(runs):
    with pytest.raises(UserError, match=r"cascade=... is for predict.py"):
        ask([f"run={runs[0]}", f"cascade={runs[1]}"])


def write_quiz(folder: Path) -> Path:
    """Questions of random words; the corpus has a passage for each that names the answer."""
    rng, letters, lines = np.random.default_rng(0), list("abcdefghijklmnopqrst"), {"train": [], "test": []}
    for number in range(130):
        words = ["".join(rng.choice(letters, 6)) for _ in range(8)]
        row = {"id": str(number), "genre": "g", "question": " ".join(words[:5]), "options": words[5:]}
        lines["train" if number < 120 else "test"].append(row | {"answer": number % 3})
    passages = [{"text": f"{row['question']}: {row['options'][row['answer']]}"} for row in lines["train"]]
    for path, rows in ((f"{split}.jsonl", rows) for split, rows in (lines | {"corpus/c": passages}).items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_given_retriever_is_for_the_run_that_searches(tmp_path):
    """A quiz answered without passages, and again with passages by the larger run."""
    quiz, output = write_quiz(tmp_path / "quiz"), tmp_path / "output"
    own = ["task=quiz", f"input_dir={quiz}", "max_tokens=256", "model.scratch.vocab_size=400", "trainer.max_epochs=0"]
    for fold in (0, 1):
        train(output, *ROWS, *own, f"fold={fold}")
        train(output, *ROWS, *own, f"fold={fold}", "name=other", "inference=retrieval", "retriever=bm25")
    runs = [f"run={output / 'quiz' / 'tiny'}", f"cascade={output / 'quiz' / 'other'}", "cascade_share=0.5"]
    places = (f"output_dir={output}", f"submissions_dir={output / 'submissions'}")
    path = pipeline.predict(composed("predict", *places, *runs, "retriever=bm25"))
    results = json.loads(path.with_name(f"{path.stem}.result.json").read_text())
    assert [sum(row["probs"]) for row in results] == pytest.approx([1.0] * 10)
