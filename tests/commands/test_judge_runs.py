"""The judge on real runs: outputs are generated in their folds and marked by a trained judge, which marks data, too."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import pipeline
from nexttoken.commands.judge import main
from nexttoken.commands.judge_outputs import Judge
from nexttoken.errors import UserError
from nexttoken.transforms.curation.marks import read_marks
from support.finished_runs import unseal
from support.training import composed

TINY = [
    "trainer.max_epochs=1",
    "model.scratch.hidden_size=32",
    "model.scratch.num_layers=1",
    "model.scratch.vocab_size=400",
    "logger=none",
    "split.num_folds=3",
    "generation.max_new_tokens=8",
]


def train(folder: Path, task: str, *overrides: str) -> None:
    """On the first rows of the embedded sample."""
    sample, data = Path(__file__).parents[2] / "input" / f"sample-{task}", folder / "input" / task
    data.mkdir(parents=True, exist_ok=True)
    lines = (sample / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:100]
    (data / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    places = (f"input_dir={data}", f"output_dir={folder}")
    pipeline.train(composed("train", f"task={task}", *overrides, *TINY, *places))


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory) -> Path:
    """A judge, and two variants of a run that writes."""
    folder = tmp_path_factory.mktemp("output")
    train(folder, "marks", "name=judge")
    train(folder, "instruct", "name=one")
    shutil.copytree(folder / "instruct" / "one", folder / "instruct" / "two")  # the same weights under another setting
    config = folder / "instruct" / "two" / "fold0" / "config.yaml"
    config.write_text(config.read_text().replace("warmup_fraction: 0.1", "warmup_fraction: 0.2"))
    unseal(config.parent)
    return folder


def judged(output_dir: Path, *arguments: str) -> pd.DataFrame:
    main([str(output_dir / "instruct"), f"judge={output_dir / 'marks' / 'judge'}", *arguments])
    return pd.read_csv(output_dir / "judge" / "instruct" / "judged.csv", dtype={"id": str}, na_filter=True)


def test_outputs_are_generated_marked_and_kept(output_dir):
    rows = judged(output_dir, "rows=3")
    written = rows[rows["mark"].notna()]
    assert written.groupby("variant")["id"].count().tolist() == [3, 3]
    assert set(written.loc[written["variant"] == "one", "id"]) == set(written.loc[written["variant"] == "two", "id"])
    marks = written[[f"p{mark}" for mark in range(5)]].to_numpy()
    assert np.abs(marks.sum(axis=1) - 1).max() < 1e-6
    assert np.allclose(marks @ np.arange(5), written["mark"])
    assert written[["chrf", "rouge_l"]].notna().all(axis=None)
    said_so = json.loads((output_dir / "judge" / "instruct" / "judge.json").read_text())
    assert (said_so["measure"], said_so["num_rows"]) == ("mark", 3)
    assert [entry["verdict"] for entry in said_so["variants"]] == ["chosen", "noise"]  # they wrote the same

    again = judged(output_dir, "rows=4")  # three are there
    assert again["mark"].notna().sum() == 8
    pd.testing.assert_frame_equal(again.loc[written.index, ["id", "chrf"]], written[["id", "chrf"]])
    lines = (output_dir / "instruct" / "one" / "fold0" / "generated.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == again.loc[again["variant"] == "one", "id"].tolist()[:4]


def test_every_answer_of_a_dialogue_is_written_and_compared(output_dir):
    train(output_dir, "dialogue", "name=talk")
    main([str(output_dir / "dialogue"), f"judge={output_dir / 'marks' / 'judge'}", "rows=2"])
    rows = pd.read_csv(output_dir / "judge" / "dialogue" / "judged.csv", dtype={"id": str, "row": str})
    written = rows[rows["chrf"].notna()]
    assert set(written["row"]) == set(rows["row"].unique()[:2])
    assert len(written) == rows["row"].isin(written["row"]).sum() > 2
    assert written["nll"].notna().all()
    assert written["mark"].notna().all()


def test_a_run_that_gives_no_marks_is_no_judge(output_dir):
    with pytest.raises(UserError, match="with texts, not with marks; train one: python"):
        Judge.load(output_dir / "instruct" / "one")


def test_training_rows_are_marked_for_the_transform_that_keeps_good_ones(output_dir, tmp_path, monkeypatch, repository):
    rows = [{"id": f"r{n}", "instruction": "Name a fruit.", "output": word} for n, word in enumerate(("pear", "saw"))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(repository)
    out = tmp_path / "marks.csv"
    judge = f"judge={output_dir / 'marks' / 'judge'}"
    main([f"data={tmp_path / 'rows.jsonl'}", "task=instruct", judge, f"out={out}", "rubric=No tools."])
    marks = read_marks(out)
    assert set(marks) == {"r0", "r1"}
    assert all(0 <= mark <= 4 for mark in marks.values())
    with pytest.raises(UserError, match="task=quiz has no written answers"):
        main(["data=input/sample-quiz", "task=quiz", judge, f"out={out}"])
    assert list(pd.read_csv(out)) == ["id", "mark", *(f"p{mark}" for mark in range(5))]
