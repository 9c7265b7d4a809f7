"""Candidates among many classes through the whole spine: train, predict, retrieve and rank, on a small table."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run, pipeline
from nexttoken.errors import UserError
from support.training import REPOSITORY, composed

TINY = [
    "name=tiny",
    "split.num_folds=2",
    "max_tokens=96",
    "trainer.max_epochs=1",
    "fit.refit=false",
    "model.scratch.hidden_size=16",
    "model.scratch.num_layers=1",
    "model.scratch.num_heads=2",
    "model.scratch.vocab_size=400",
    "logger=none",
]
TASK = [
    "task._target_=nexttoken.tasks.table.Table",
    "++task.name=garden",
    "++task.id=id",
    "++task.fields=[text]",
    "++task.label=flower",
    "++task.submission={flower: best}",
    "prompt=fields",
    "train_transforms=none",
]
COLOURS = ("red", "white", "blue", "pink", "dark", "tall")
FLOWERS = [f"{colour} {flower}" for flower in ("rose", "iris", "tulip") for colour in COLOURS]
BEDS = {"north": FLOWERS[:5], "south": FLOWERS[3:9], "east": FLOWERS[9:14]}


def write_table(path: Path, names: list[str], rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


@pytest.fixture(scope="module")
def garden(tmp_path_factory) -> Path:
    """72 rows of three beds; the last flower of the beds is in no training row of theirs, one bed in none at all."""
    folder, draw = tmp_path_factory.mktemp("garden"), random.Random(0)

    def row(number: int, bed: str) -> tuple:
        flower = draw.choice(BEDS.get(bed, FLOWERS))
        return number, f"plant {number * 7} smells of {flower}", bed, flower

    train = [row(number, ("north", "south", "east")[number % 3]) for number in range(72)]
    test = [row(number, ("north", "south", "west")[number % 3])[:3] for number in range(12)]  # ids of training rows
    write_table(folder / "train.csv", ["id", "text", "bed", "flower"], train)
    write_table(folder / "test.csv", ["id", "text", "bed"], test)
    return folder


def train(garden: Path, output_dir: Path, *overrides: str) -> Path:
    """Train a fold and return its folder."""
    own = [*TASK, *TINY, f"input_dir={garden}", f"output_dir={output_dir}", *overrides]
    pipeline.train(composed("train", *own))
    return max((output_dir / "garden").glob("*/fold*/metrics.json"), key=lambda path: path.stat().st_mtime_ns).parent


def probabilities(fold: Path) -> pd.DataFrame:
    """The out-of-fold probabilities by id, a column a class."""
    return pd.read_csv(fold / "oof.csv", dtype={"id": str}).set_index("id").drop(columns=["fold", "label"])


def test_labels_by_group_are_trained_saved_and_predicted(garden, tmp_path, capsys):
    fold = train(garden, tmp_path, "head=candidates", "++task.labels_by=bed", "save_prompts=true")
    rows = pd.read_csv(garden / "train.csv", dtype={"id": str}).set_index("id")
    probs = probabilities(fold)
    learnt = rows.drop(index=probs.index)
    for row_id, own in probs.iterrows():
        known = set(learnt["flower"][learnt["bed"] == rows["bed"][row_id]])
        assert {name for name, prob in own.items() if prob > 0} == known
        assert own.sum() == pytest.approx(1)
    saved = json.loads((fold / "metrics.json").read_text())
    of_bed = [rows["flower"][one] in set(learnt["flower"][learnt["bed"] == rows["bed"][one]]) for one in probs.index]
    assert saved["share_recalled"] == pytest.approx(np.mean(of_bed))
    assert "the right one is among them" in capsys.readouterr().out
    line = json.loads((fold / "prompts.jsonl").read_text().splitlines()[0])
    assert len(line["candidate_token_ids"]) == (probs.loc[line["id"]] > 0).sum()
    run = load_run(fold.parent)
    again = run.inference(run.folds[0])(run.held_out(run.folds[0]), run.answerer(run.folds[0]))
    assert np.abs(again.probs - probs.to_numpy()).max() < 1e-6
    places = (f"output_dir={tmp_path}", f"submissions_dir={tmp_path / 'submissions'}")
    submission = pd.read_csv(pipeline.predict(composed("predict", *places)), dtype=str)
    assert submission["id"].tolist() == [str(number) for number in range(12)]
    table = pd.DataFrame({"id": ["a", "b"], "text": ["a red rose", "an iris"], "bed": ["north", "west"]})
    predicted = load_run(fold.parent).predict(table)
    assert (predicted.loc[0, list(probs)] > 0).sum() < (predicted.loc[1, list(probs)] > 0).sum() == probs.shape[1]


@pytest.mark.slow
def test_a_search_of_the_names_chooses_and_another_run_ranks_again(garden, tmp_path, capsys):
    own = ["head=candidates", "head.score=text", "candidates.number=4", "candidates.sampled=2"]
    for number in (0, 1):
        fold = train(garden, tmp_path, *own, "retriever=bm25", f"fold={number}")
        assert ((probabilities(fold) > 0).sum(axis=1) == 4).all()
        assert json.loads((fold / "metrics.json").read_text())["share_recalled"] == 1.0, "each text names its flower"
    first = fold.parent
    again = [*own, f"candidates.from_run={first}", "candidates.number=2", "name=second"]
    second = train(garden, tmp_path, *again)
    before, after = probabilities(first / "fold0"), probabilities(second)
    for row_id, probs in after.iterrows():
        best = before.loc[row_id].to_numpy()
        assert {*np.flatnonzero(probs > 0)} == {*np.argsort(-best, kind="stable")[:2]}
    capsys.readouterr()
    places = (f"output_dir={tmp_path}", f"submissions_dir={tmp_path / 'submissions'}", f"run={second.parent}")
    path = pipeline.predict(composed("predict", *places))
    assert len(pd.read_csv(path)) == 12
    assert "candidates: 2.0 of" in capsys.readouterr().out
    command = [sys.executable, "predict.py", *places, "name=two", "devices=2"]
    here = {"cwd": REPOSITORY, "env": {**os.environ, "CUDA_VISIBLE_DEVICES": ""}}
    two = subprocess.run(command, capture_output=True, text=True, timeout=240, **here)
    assert two.returncode == 0, two.stderr
    assert (path.parent / "two.csv").read_bytes() == path.read_bytes(), "both processes ask the first run"
    with pytest.raises(UserError, match=r"from_run=.* has no out-of-fold answer for \d+ rows"):
        train(garden, tmp_path, *again[:-1], "name=third", f"candidates.from_run={second.parent}")


def test_candidates_are_listed_with_letters(garden, tmp_path):
    fold = train(garden, tmp_path, "++task.labels_by=bed", "prompt.labels=letters", "save_prompts=true", "fold=1")
    probs = probabilities(fold)
    line = json.loads((fold / "prompts.jsonl").read_text().splitlines()[0])
    own = probs.loc[line["id"]]
    listed = "".join(f"{letter}: {name}\n" for letter, name in zip("ABCDEFGH", own[own > 0].index, strict=False))
    assert f"### Answers\n{listed}### Answer\n" in line["text"]
    assert [*line["label_token_ids"]] == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: probs.shape[1]])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["++task.labels_by=bed"], "this prompt does not list them; use head=candidates, prompt.labels=letters"),
        (["head=candidates", "candidates.number=4"], "candidates.number=4 of .* add retriever=bm25"),
        (["head=candidates", "candidates.from_run=x"], "candidates.from_run orders the classes.*candidates.number=25"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(garden, tmp_path, overrides, line):
    with pytest.raises(UserError, match=line):
        train(garden, tmp_path, *overrides)
    assert not (tmp_path / "garden").exists()


def test_more_options_than_letters_are_asked_in_several_queries(tmp_path):
    """60 options of a quiz: 52 letters, so that each question takes two queries, and 0.02 is the least of a guess."""
    draw = random.Random(0)

    def lines(first: int, known: bool) -> str:
        made = []
        for number in range(first, first + 12):
            options = [f"house {place}" for place in draw.sample(range(500), 60)]
            made.append({"id": str(number), "question": f"Which is {number}?", "options": options})
            made[-1] |= {"answer": draw.randrange(60)} if known else {}
        return "".join(json.dumps(row) + "\n" for row in made)

    (tmp_path / "train.jsonl").write_text(lines(0, True))
    (tmp_path / "test.jsonl").write_text(lines(100, False))
    own = ["task=quiz", "task.num_options=60", "prompt.labels=letters", "max_tokens=600", "trainer.max_epochs=0"]
    own.append("split.dev_fraction=0")
    shared = [*TINY, f"input_dir={tmp_path}", f"output_dir={tmp_path / 'output'}"]
    pipeline.train(composed("train", *shared, *own))
    probs = pd.read_csv(tmp_path / "output" / "quiz" / "tiny" / "fold0" / "oof.csv").iloc[:, 3:].to_numpy()
    assert probs.shape[1] == 60
    assert (probs > 0.001).all()
    assert probs.sum(axis=1) == pytest.approx(np.ones(len(probs)))
