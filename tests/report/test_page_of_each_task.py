"""Pages of runs of every kind of task: a comparison, a quiz by genre, a table of 77 labels, and open answers."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import CHRF
from sklearn.metrics import log_loss

from benchmarks.page_runs import write_bank_table, write_sample_run
from nexttoken.data.json_lines import json_rows
from nexttoken.report.page.page_file import write_page
from support.finished_runs import damage


def page_of(folder: Path) -> str:
    written = write_page(folder, folder / "page.html", folder / "ledger.csv")
    assert not written.unread
    assert written.size < 3e6
    return written.path.read_text(encoding="utf-8")


def values_of(page: str, run: str) -> list[float]:
    """The numbers of a run's row in the table of runs."""
    row = re.search(rf'<th scope="row">{run}\b.*?</tr>', page, re.S)
    assert row
    return [float(value) for value in re.findall(r'data-value="([^"]+)"', row[0])]


def oof_of(run: Path) -> pd.DataFrame:
    return pd.concat(pd.read_csv(path, dtype={"id": str}) for path in sorted(run.glob("fold*/oof.csv")))


def mean_average_precision(oof: pd.DataFrame) -> float:
    """MAP@3."""
    probs = oof.iloc[:, 3:].to_numpy()
    ranks = 1 + (probs > probs[np.arange(len(oof)), oof["label"]][:, None]).sum(axis=1)
    return float(np.mean(np.where(ranks <= 3, 1 / ranks, 0)))


def test_a_comparison_of_three_runs_in_five_folds(tmp_path):
    for seed, skill in enumerate((1.6, 1.2, 1.25)):
        write_sample_run(tmp_path / f"run{seed}", "task=lmsys", skill=skill, seed=seed)
    page = page_of(tmp_path)
    assert "sample-preferences" in page
    for seed in range(3):
        oof = oof_of(tmp_path / f"run{seed}")
        loss = log_loss(oof["label"], oof[["winner_model_a", "winner_model_b", "winner_tie"]])
        assert any(value == pytest.approx(loss, rel=1e-9) for value in values_of(page, f"run{seed}"))


def test_a_quiz_by_genre(tmp_path):
    for seed, skill in enumerate((1.6, 1.0)):
        write_sample_run(tmp_path / f"run{seed}", "task=quiz", skill=skill, seed=seed, num_folds=2)
    page = page_of(tmp_path)
    for seed in range(2):
        oof = oof_of(tmp_path / f"run{seed}")
        score = -np.mean(np.log(oof.iloc[:, 3:].to_numpy()[np.arange(len(oof)), oof["label"]]))
        assert any(value == pytest.approx(score, rel=1e-9) for value in values_of(page, f"run{seed}"))


def test_a_table_of_77_labels(tmp_path):
    task = write_bank_table(tmp_path / "data")
    for seed, skill in enumerate((3.0, 2.0)):
        write_sample_run(tmp_path / f"run{seed}", *task, skill=skill, seed=seed, num_folds=2)
    page = page_of(tmp_path)
    for seed in range(2):
        oof = oof_of(tmp_path / f"run{seed}")
        score = mean_average_precision(oof)
        assert any(value == pytest.approx(score, rel=1e-9) for value in values_of(page, f"run{seed}"))


def write_open_run(run: Path, skill: float, seed: int = 0) -> None:
    changes = (f"fit.learning_rate={skill / 1000}",)
    write_sample_run(run, "task=instruct", skill=skill, seed=seed, num_folds=2, changes=changes)


@pytest.fixture
def open_runs(tmp_path) -> Path:
    write_open_run(tmp_path / "instruct" / "better", skill=1.6)
    write_open_run(tmp_path / "instruct" / "poor", skill=0.8)
    return tmp_path / "instruct"


def outputs_of(run: Path) -> dict[str, str]:
    return {row["id"]: row["output"] for path in run.glob("fold*/generated.jsonl") for _, row in json_rows(path)}


def test_open_answers_with_their_losses_and_texts(open_runs):
    page = page_of(open_runs)
    answers = pd.read_json("input/sample-instruct/train.jsonl", lines=True, dtype={"id": str}).set_index("id")
    for name in ("better", "poor"):
        oof, outputs = oof_of(open_runs / name), outputs_of(open_runs / name)
        chrf = CHRF()
        scores = [chrf.sentence_score(text, [answers.loc[one, "output"]]).score for one, text in outputs.items()]
        shown = values_of(page, name)
        for expected in (oof["nll"].sum() / oof["num_tokens"].sum(), np.mean(scores)):
            assert any(value == pytest.approx(expected, rel=1e-9) for value in shown)
    assert page.index('<th scope="row">better') < page.index('<th scope="row">poor')
    assert "What better seed=0, the best run, was asked" in page
    wrong = next(one for one, text in outputs_of(open_runs / "better").items() if text != answers.loc[one, "output"])
    assert f'<th scope="row">{wrong}</th>' in page


def test_marks_of_a_judge_are_shown_for_the_texts_they_were_given_to(open_runs):
    outputs = outputs_of(open_runs / "better")
    row, other = list(outputs)[:2]
    judged = open_runs.parent / "judge" / open_runs.name
    judged.mkdir(parents=True)
    table = {"id": [row, other], "run": "x/better", "output": [outputs[row], "an earlier text"], "mark": [3.25, 1.75]}
    pd.DataFrame(table).to_csv(judged / "judged.csv", index=False)
    page = page_of(open_runs)
    assert 'data-value="3.25"' in page
    assert 'data-value="1.75"' not in page


def test_an_open_fold_that_is_broken_and_a_run_that_is_there_twice_are_listed(open_runs):
    write_open_run(open_runs / "broken", skill=1.2)
    write_open_run(open_runs / "copy", skill=1.6)
    (open_runs / "broken" / "fold1" / "oof.csv").write_text("id,fold\n", encoding="utf-8")
    written = write_page(open_runs, open_runs / "page.html", open_runs / "ledger.csv")
    listed = [one.folder.relative_to(open_runs).as_posix() for one in written.unread]
    assert listed == ["broken/fold1", "copy/fold0", "copy/fold1"]
    page = written.path.read_text(encoding="utf-8")
    assert all(values_of(page, name) for name in ("better", "broken", "poor"))


@pytest.mark.parametrize("name", ["better/fold0/generated.jsonl", "../judge/instruct/judged.csv"])
@pytest.mark.parametrize("content", ["{", b"\xff\xfe\x00\x80", None])
def test_texts_and_marks_that_cannot_be_read_are_named_and_losses_are_shown(open_runs, name, content):
    path = open_runs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    damage(path, content)
    page = page_of(open_runs)
    assert "Not shown: " in page
    assert path.name in page
    assert values_of(page, "better")
