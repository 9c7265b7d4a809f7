"""Training on the solved examples that stand in the rows: inside a fold, listed, resumed, and refused without them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import open_dict

from nexttoken import pipeline
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun
from support.training import REPOSITORY, TINY, composed, predict

SAMPLE = REPOSITORY / "input" / "sample-jigsaw-rules"
EXAMPLES = [f"{kind}_example_{number}" for kind in ("positive", "negative") for number in (1, 2)]
RULES = {
    "_target_": "nexttoken.tasks.table.Table",
    "name": "rules",
    "id": "row_id",
    "fields": ["rule", *EXAMPLES, "body"],
    "label": "rule_violation",
    "classes": {"0": "No", "1": "Yes"},
    "group_by": ["body"],
    "metric": "auc_by(rule)",
}


BY_RULE = ("split=by_column", "split.column=rule", "fold=0")


def train(folder: Path, *overrides: str, **task) -> float:
    """Train on the sample's files in `folder`, which are copied there unless they are."""
    if not (rows := folder / "sample").exists():
        shutil.copytree(SAMPLE, rows)
    cfg = composed("train", *TINY, "prompt=fields", "train_transforms=none", "inference=once", *overrides)
    with open_dict(cfg):
        cfg.task = {**RULES, "input_dir": str(rows), **task}
        cfg.input_dir, cfg.output_dir = str(rows), str(folder / "output")
    return pipeline.train(cfg, overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    train(folder, *BY_RULE, "test_examples=true")
    return folder / "output" / "rules" / "tiny"


def test_the_rows_are_learnt_listed_and_not_scored(trained):
    fold = trained / "fold0"
    saved, listed = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "test_examples.csv", dtype=str)
    assert list(listed.columns) == ["id", "text", "label", "sources", "rule"]
    assert len(listed) == 24  # limit_rows
    assert saved["num_train_rows"] == 48
    train_rows = pd.read_csv(SAMPLE / "train.csv", dtype=str).set_index("row_id")
    oof = pd.read_csv(fold / "oof.csv", dtype=str)
    assert set(oof["id"]) <= set(train_rows.index)
    assert set(train_rows.loc[oof["id"], "rule"]) == {min(train_rows["rule"])}  # the first value
    sources = [source for cell in listed["sources"] for source in cell.split()]
    assert any(source.startswith("test.csv#") for source in sources)


def test_each_value_of_the_column_is_a_fold(trained, capsys):
    with pytest.raises(UserError, match="fold=2 does not exist: rule has 2 values, so folds are 0 to 1"):
        train(trained.parents[2], *BY_RULE[:2], "fold=2", "test_examples=true")
    capsys.readouterr()
    train(trained.parents[2], *BY_RULE, "test_examples=true")  # finished: its table again
    assert "train.py -m fold=1" in capsys.readouterr().out


def test_a_run_goes_on_only_with_the_examples_that_it_began_with(trained):
    with pytest.raises(UserError, match="test_examples: True -> False"):
        train(trained.parents[2], *BY_RULE)
    metrics, test = trained / "fold0" / "metrics.json", trained.parents[2] / "sample" / "test.csv"
    kept = {path: path.read_bytes() for path in (metrics, test)}
    metrics.unlink()
    test.write_bytes(kept[test].replace(b"lamps", b"other lamps"))
    try:
        with pytest.raises(UserError, match="was started on other rows than"):
            train(trained.parents[2], *BY_RULE, "test_examples=true")
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_run_with_examples_predicts(trained):
    submission = predict(trained.parents[1], f"run={trained}")
    assert len(submission) == len(pd.read_csv(SAMPLE / "test.csv"))


def test_rows_without_examples_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="test_examples=true needs solved examples, and the task's rows bring none"):
        train(tmp_path, "fold=0", "test_examples=true", fields=["rule", "body"])
    assert not (tmp_path / "output").exists()


def test_examples_that_say_nothing_are_refused(tmp_path):
    both = {"0": ["positive_example_1"], "1": ["positive_example_1"]}
    with pytest.raises(UserError, match=r"task\.examples names positive_example_1 for two classes"):
        train(tmp_path, "fold=0", "test_examples=true", examples=both)


def test_the_held_out_rows_of_such_a_run_are_known_whatever_the_test_file_is(trained):
    """Another test file has other examples; the rows that the fold was scored on are those of the training file."""
    test = trained.parents[2] / "sample" / "test.csv"
    content = test.read_bytes()
    test.write_bytes(content.replace(b"lamps", b"other lamps"))
    try:
        run = LoadedRun.load(RunFolder(trained))
        ids = [example.id for example in run.held_out(run.folds[0])]
    finally:
        test.write_bytes(content)
    assert ids == pd.read_csv(trained / "fold0" / "oof.csv", dtype=str)["id"].tolist()
