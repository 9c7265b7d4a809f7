"""Questions with options through the whole spine: train, gate, predict, report, on a quiz of a few dozen rows."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run, pipeline
from nexttoken.commands.report import main as report
from nexttoken.errors import UserError
from nexttoken.runs.ledger import read_ledger
from support.training import composed

TINY = [
    "name=tiny",
    "split.num_folds=3",
    "max_tokens=160",
    "trainer.max_epochs=1",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
    "model.scratch.vocab_size=400",
    "logger=none",
]
COLOURS = ["red", "blue", "green", "white", "black"]


def rows(count: int, first: int = 0, known: bool = True) -> list[dict]:
    draw = random.Random(first)
    made = []
    for number in range(first, first + count):
        options = draw.sample(COLOURS, 2 + number % 4)
        answer = draw.randrange(len(options)) if known else None
        question = f"Which colour has house number {number * 37} of street {number % 7}?"
        made.append({"id": f"{number:03}", "genre": f"genre {number % 2}", "question": question, "options": options}
                    | {"answer": answer})  # fmt: skip
    return made


def write_lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def quiz(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quiz")
    train = rows(48)
    write_lines(folder / "train.jsonl", train)
    unknown = rows(1, first=200, known=False)[0] | {"options": ["red", "red", "blue"], "plan": "b"}
    write_lines(folder / "test.jsonl", [*rows(9, first=100)[:8], unknown])
    passages = [{"text": f"House number {n * 37} is {row['options'][row['answer']]}."} for n, row in enumerate(train)]
    write_lines(folder / "corpus" / "houses.jsonl", passages)
    return folder


def train(quiz: Path, output_dir: Path, *overrides: str) -> float:
    own = ["task=quiz", *TINY, f"input_dir={quiz}", f"output_dir={output_dir}", *overrides]
    return pipeline.train(composed("train", *own))


@pytest.fixture(scope="module")
def gated(quiz, tmp_path_factory) -> Path:
    """Folds 0 and 1 with a gate that opens for every question."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(quiz, folder, f"fold={fold}", "inference=gated_retrieval", "retriever=bm25", "inference.min_top1=1.01")
    return folder


def predict(output_dir: Path) -> Path:
    places = (f"output_dir={output_dir}", f"submissions_dir={output_dir / 'submissions'}")
    return pipeline.predict(composed("predict", *places))


def test_a_fold_of_a_quiz_leaves_what_the_report_needs(gated):
    fold = gated / "quiz" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    assert saved.keys() >= {"map_at_3", "chance_accuracy", "share_searched", "device", "precision", "batch_tokens"}
    assert saved["share_searched"] == 1
    kept, oof = pd.read_csv(fold / "rows.csv", dtype={"id": str}), pd.read_csv(fold / "oof.csv", dtype={"id": str})
    assert kept["id"].tolist() == oof["id"].tolist()
    assert set(kept["genre"]) == {"genre 0", "genre 1"}
    assert (kept["seconds"] > 0).all()
    probs = oof[list("01234")].to_numpy()
    absent = np.arange(5) >= kept["num_options"].to_numpy()[:, None]
    assert (probs[absent] == 0).all()
    assert (probs[~absent] > 0).all()
    assert saved["chance_accuracy"] == pytest.approx((1 / kept["num_options"]).mean())
    assert saved["uniform_log_loss"] == pytest.approx(np.log(kept["num_options"]).mean())
    assert "temperature" in json.loads((fold / "inference.json").read_text())


def test_rows_whose_prompt_was_cut_are_recorded(tmp_path):
    lines = rows(24)
    for row in lines[::2]:
        row["question"] += " It has a garden." * 20
    write_lines(tmp_path / "train.jsonl", lines)
    write_lines(tmp_path / "test.jsonl", lines[:2])
    texts = {}
    for max_tokens in (120, 900):
        folder = tmp_path / str(max_tokens)
        train(tmp_path, folder, f"max_tokens={max_tokens}", "save_prompts=true", "trainer.max_epochs=0")
        with (folder / "quiz" / "tiny" / "fold0" / "prompts.jsonl").open() as file:
            texts[max_tokens] = {line["id"]: line["text"] for line in map(json.loads, file)}
        kept = pd.read_csv(folder / "quiz" / "tiny" / "fold0" / "rows.csv", dtype={"id": str}).set_index("id")
        saved = json.loads((folder / "quiz" / "tiny" / "fold0" / "metrics.json").read_text())
        assert saved["share_truncated"] == kept["truncated"].mean()
        assert saved["num_truncated"] == kept["truncated"].sum()
        if max_tokens == 900:
            assert not kept["truncated"].any()
        else:
            cut = kept["truncated"].to_dict()
    assert cut == {one: texts[120][one] != texts[900][one] for one in texts[120]}
    assert set(cut.values()) == {True, False}


def test_asking_again_through_the_run_folder_gives_the_same(gated):
    run = load_run(gated / "quiz" / "tiny")
    fold = run.folds[0]
    again = run.inference(fold)(run.held_out(fold), run.answerer(fold))
    oof = pd.read_csv(fold.path / "oof.csv", dtype={"id": str})
    assert np.abs(again.probs - oof[list("01234")].to_numpy()).max() < 1e-6


def test_predicting_a_quiz_writes_results_and_a_submission(gated, capsys, caplog):
    caplog.set_level(logging.INFO)
    path = predict(gated)
    assert caplog.messages == [
        "1 questions have repeated options: test.jsonl:9: kept",
        "the model does not see: `plan` (1 row)",
    ], "once, however often the rows are read"
    assert "8 test questions of 9" in capsys.readouterr().out
    submission = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_json(path, lines=True, dtype=False)
    assert submission["id"].tolist() == [row["id"] for row in rows(8, first=100)] + ["200"]
    results = json.loads(path.with_name(f"{path.stem}.result.json").read_text())
    assert [len(row["probs"]) for row in results] == [len(row["options"]) for row in results]
    assert all(sum(row["probs"]) == pytest.approx(1) for row in results)
    assert all(row["prediction"] == int(np.argmax(row["probs"])) for row in results)
    assert results[0]["correct"] == (results[0]["prediction"] == results[0]["answer"])
    assert results[8].get("correct") is None


def test_thresholds_chosen_later_are_another_way_of_asking(gated, capsys):
    """The out-of-fold score was measured with the run's own thresholds."""
    own, folder = predict(gated), gated / "quiz" / "tiny"
    gate = {"min_top1": 0.1, "min_margin": 0.0, "temperature": 1.0, "keep_confident": True}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "gate.json").write_text(json.dumps(gate))
    try:
        other = predict(gated)
    finally:
        (folder / "gate.json").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert other.name.startswith("tiny_gate_")
    assert other.with_suffix("").with_name(f"{other.stem}.result.json").exists()
    assert "tiny_gate_" in capsys.readouterr().out
    lines = {line.file: line for line in read_ledger(own.with_name("ledger.csv"))}
    assert (lines[own.name].asked, lines[own.name].oof_log_loss is None) == ("", False)
    assert (lines[other.name].asked, lines[other.name].oof_log_loss) == ("gate", None)


def test_a_prediction_leaves_every_file_of_its_run_as_it_is(gated, capsys):
    files = [path for path in (gated / "quiz").rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    path = predict(gated)
    files = [path for path in (gated / "quiz").rglob("*") if path.is_file()]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
    assert json.loads(path.with_name(f"{path.stem}.environment.json").read_text())["device"]
    assert f"results: {path.with_name(f'{path.stem}.result.json')}" in capsys.readouterr().out


def test_the_report_by_genre_has_a_table_each(gated, capsys):
    report([str(gated / "quiz"), "by=genre", f"out={gated / 'report'}"])
    printed = capsys.readouterr().out
    assert "Table for genre: genre 0" in printed
    assert "| Model" in printed
    assert "Latency" in printed


@pytest.mark.parametrize(
    "overrides",
    [
        ["inference=rotated"],
        ["inference=few_shot", "inference.num_demonstrations=1", "max_tokens=400"],
        ["inference=retrieval", "retriever=bm25", "search.per_option=true"],
        ["prompt=quiz_letters", "train_transforms=demonstrations", "max_tokens=400"],
        ["prompt=quiz_from_1", "head=classification"],
        ["prompt=quiz", "head=vocabulary", "inference=gated_retrieval", "retriever=bm25",
         "inference.ask._target_=nexttoken.inference.RotationAveraged"],
    ],
    ids=lambda overrides: overrides[0],
)  # fmt: skip
def test_every_way_of_asking_trains_and_answers(quiz, tmp_path, overrides):
    log_loss = train(quiz, tmp_path, "limit_rows=12", *overrides)
    assert 0 < log_loss < 10
    results = predict(tmp_path)
    assert results.exists()


def test_the_gate_refuses_a_corpus_that_is_not_there_before_anything_is_read(quiz, tmp_path):
    with pytest.raises(UserError, match="no-such-folder"):
        train(quiz, tmp_path, "inference=gated_retrieval", "retriever=bm25", "retriever.corpus=no-such-folder")
    assert not (tmp_path / "quiz").exists()
