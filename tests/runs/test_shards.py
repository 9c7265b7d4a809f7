"""Prediction in shards: the plain command's answers, a kill at any moment, other rows noticed, faults before work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from nexttoken import pipeline
from nexttoken.commands.blend import main as blend
from nexttoken.errors import UserError
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.shards.plan import hash_ids
from support.composed import config_of
from support.training import SAMPLE, composed, train

SIZE = 7
WORDS = ["red", "green", "blue", "small", "large", "fast"]
KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/runs"]
from nexttoken.data import whole_files
from support.interrupted import killing
from test_shards import predict
whole_files.os.replace = killing(whole_files.os.replace, {number})
predict(Path({run!r}), Path({submissions!r}), "input_dir={table}")
"""


def rows(number: int, first: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(first).integers(0, len(WORDS), (number, 5))
    texts = [" ".join(WORDS[word] for word in row) for row in drawn]
    return pd.DataFrame({"key": [f"r{first + row}" for row in range(number)], "text": texts, "note": "x"})


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A table whose test is a Parquet file of 31 rows, with a sample submission."""
    folder = tmp_path_factory.mktemp("table")
    known = rows(260)
    known.assign(label=np.where(known["text"].str[0] < "h", "early", "late")).to_csv(folder / "train.csv", index=False)
    rows(31, 1000).to_parquet(folder / "test.parquet", row_group_size=4)
    rows(31, 1000)[["key"]].assign(early=0.5, late=0.5).to_csv(folder / "sample_submission.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(table, tmp_path_factory) -> Path:
    """Two folds on the table."""
    output = tmp_path_factory.mktemp("output")
    keys = ["task.id=key", "task.fields=[text]", "task.label=label", "task.metric=log_loss"]
    model = ["model.scratch.hidden_size=32", "model.scratch.num_layers=1", "trainer.max_epochs=1", "fit.batch_size=32"]
    places = [f"input_dir={table}", f"output_dir={output}", "name=tiny", "task=table", "logger=none"]
    for fold in (0, 1):
        pipeline.train(config_of("train", *places, *keys, *model, f"fold={fold}"))
    return output / "table" / "tiny"


def predict(run: Path, submissions: Path, *overrides: str, size: int | None = SIZE) -> Path:
    places = [f"run={run}", f"submissions_dir={submissions}", "name=x", f"shard_rows={size or 'null'}"]
    return pipeline.predict(composed("predict", *places, *overrides))


def refusal(run: Path, submissions: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        predict(run, submissions, *overrides)
    return str(refused.value)


def files(folder: Path) -> dict[str, bytes]:
    """The submission and its parts."""
    return {path.name: path.read_bytes() for path in [*folder.glob("x*/part-*"), *folder.glob("x.*")]}


def copied(table: Path, folder: Path, test: pd.DataFrame, sample: bool = True) -> Path:
    """The table with another test, as CSV."""
    folder.mkdir()
    for name in ["train.csv", *["sample_submission.csv"] * sample]:
        (folder / name).write_bytes((table / name).read_bytes())
    test.to_csv(folder / "test.csv", index=False)
    return folder


def test_shards_give_the_answers_of_the_plain_command(run, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    plain = pd.read_csv(predict(run, tmp_path / "plain", size=None))
    sharded = pd.read_csv(predict(run, tmp_path / "shards"))
    assert list(sharded) == list(plain) == ["key", "early", "late"]
    assert list(sharded["key"]) == list(plain["key"])
    np.testing.assert_allclose(sharded[["early", "late"]], plain[["early", "late"]], atol=1e-6)
    parts = sorted((tmp_path / "shards" / "x").iterdir())
    assert [path.name for path in parts] == [f"part-{number:05d}.parquet" for number in range(5)]
    assert [pq.read_metadata(path).num_rows for path in parts] == [7, 7, 7, 7, 3]
    assert pd.concat(map(pd.read_parquet, parts))["key"].tolist() == plain["key"].tolist()
    (line,) = read_ledger(tmp_path / "shards" / "ledger.csv")
    assert (line.file, line.folds) == ("x.csv", "0 1")
    assert "31 rows in" in (said := capsys.readouterr().out)
    assert "5 shards, ids unique" in said
    assert "the model does not see: `note`" in caplog.text


def test_a_finished_prediction_is_repeated_without_the_model(run, tmp_path, capsys):
    predict(run, tmp_path)
    before = files(tmp_path)
    capsys.readouterr()
    predict(run, tmp_path)
    assert files(tmp_path) == before
    said = capsys.readouterr().out
    assert f"5 shards were answered before ({tmp_path / 'x'})" in said
    assert "run the model" not in said


def test_a_submission_is_parquet_where_its_name_says_so(run, tmp_path):
    csv = pd.read_csv(predict(run, tmp_path / "csv"))
    path = predict(run, tmp_path / "parquet", "name=x.parquet")
    assert path == tmp_path / "parquet" / "x.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(path), csv)


def test_a_folder_of_parquet_files_is_one_table(run, table, tmp_path):
    other = copied(table, tmp_path / "table", rows(31, 1000))
    (other / "test.csv").unlink()
    (other / "test.parquet").mkdir()
    whole = rows(31, 1000)
    whole[:12].to_parquet(other / "test.parquet" / "part-0.parquet")
    whole[12:].to_parquet(other / "test.parquet" / "part-1.parquet")
    predict(run, tmp_path / "folder", f"input_dir={other}")
    predict(run, tmp_path / "file")
    assert (tmp_path / "folder" / "x.csv").read_bytes() == (tmp_path / "file" / "x.csv").read_bytes()
    whole.assign(key="r1").to_parquet(other / "test.parquet" / "part-1.parquet")
    assert "part-1.parquet, row 2 (id r1 again" in refusal(run, tmp_path, f"input_dir={other}", "shard_rows=100")


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 6])  # of the third part, of the submission
def test_a_killed_prediction_goes_on_and_ends_with_the_same_bytes(run, table, tmp_path, repository, number):
    predict(run, tmp_path / "whole")
    killed = tmp_path / "killed"
    names = {"tests": str(repository / "tests"), "run": str(run), "submissions": str(killed), "table": table}
    code = KILLED.format(**names, number=number)
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=repository)
    assert ended.returncode == -9
    left = {path.name: path.stat().st_mtime_ns for path in killed.glob("x/part-*")}
    assert len(left) == number - 1
    assert not (killed / "x.csv").exists()
    predict(run, killed)
    assert files(killed) == files(tmp_path / "whole")
    assert {name: (killed / "x" / name).stat().st_mtime_ns for name in left} == left, "no part was answered again"


def test_only_shards_of_changed_rows_are_answered_again(run, table, tmp_path):
    test = rows(31, 1000)
    first = copied(table, tmp_path / "first", test)
    predict(run, tmp_path, f"input_dir={first}")
    before = files(tmp_path)
    second = copied(table, tmp_path / "second", test.assign(text=test["text"].where(test.index != 9, "red")))
    predict(run, tmp_path, f"input_dir={second}")
    after = files(tmp_path)
    assert {name for name in before if after[name] != before[name]} == {"part-00001.parquet", "x.csv"}
    longer, shorter = after, copied(table, tmp_path / "third", test[:10], sample=False)
    predict(run, tmp_path, f"input_dir={shorter}")
    assert [name for name in sorted(files(tmp_path)) if name[0] == "p"] == ["part-00000.parquet", "part-00001.parquet"]
    assert files(tmp_path)["part-00000.parquet"] == longer["part-00000.parquet"]


def test_a_part_of_another_run_or_altered_is_answered_again(run, tmp_path):
    predict(run, tmp_path)
    before, part = files(tmp_path), tmp_path / "x" / "part-00002.parquet"
    found = pq.read_table(part)
    changed = found.set_column(1, "early", found["late"]).replace_schema_metadata(found.schema.metadata)
    pq.write_table(changed, part)
    predict(run, tmp_path)
    assert files(tmp_path) == before
    predict(run, tmp_path, "max_tokens=200")
    after = files(tmp_path)
    assert all(after[name] != before[name] for name in before if name.startswith("part"))


def test_a_file_of_somebody_else_is_refused_before_the_rows_are_read(run, tmp_path, capsys):
    (tmp_path / "x").touch()
    assert f"{tmp_path / 'x'} is no folder, and the parts go there; choose another name=..." in refusal(run, tmp_path)
    (tmp_path / "x").unlink()
    (tmp_path / "x").mkdir()
    own = tmp_path / "x" / "part-00001.parquet"
    rows(3).to_parquet(own)
    before = own.read_bytes()
    assert f"{own} is no part of a submission; choose another name=..." in refusal(run, tmp_path)
    own.write_bytes(b"PAR1 and no more")
    assert f"{own} cannot be read" in refusal(run, tmp_path)
    assert own.read_bytes() != before
    assert "rows in" not in capsys.readouterr().out


def test_a_single_row_is_called_so(run, table, tmp_path, capsys):
    other = copied(table, tmp_path / "table", rows(1, 1000), sample=False)
    predict(run, tmp_path, f"input_dir={other}")
    predict(run, tmp_path, f"input_dir={other}")
    said = capsys.readouterr().out
    assert "1 row in" in said
    assert "1 shard, ids unique" in said
    assert "1 shard was answered before" in said
    assert "x.csv, 1 row, validated" in said
    assert not re.search(r"\b1 (rows|shards)\b", said)


def test_a_size_beyond_every_number_of_rows_makes_one_shard(run, tmp_path):
    predict(run, tmp_path, f"shard_rows={10**30}")
    assert [path.name for path in tmp_path.glob("x/*")] == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda test: test.assign(key=test["key"].replace("r1020", "r1003")), "r1003 in rows 4, 21"),
        (lambda test: test.assign(key=test["key"].replace("r1002", "r1001")), "test.csv:4 (id r1001 again"),
        (lambda test: test.assign(key=test["key"].replace("r1030", " ")), "test.csv:32 (id ' '"),
        (lambda test: test.assign(key=test["key"].replace("r1030", "r7")), "lacks r1030 and adds r7"),
        (lambda test: test[:30], "lacks r1030"),
        (lambda test: test[:0], "has no rows below its header"),
        (lambda test: test.drop(columns="text"), "lacks the columns text"),
    ],
    ids=["id twice", "id twice in a shard", "no id", "other id", "row missing", "no rows", "no column"],
)
def test_faulty_rows_are_refused_before_the_first_answer(run, table, tmp_path, change, said):
    other = copied(table, tmp_path / "table", change(rows(31, 1000)))
    assert said in refusal(run, tmp_path, f"input_dir={other}")
    assert not list(tmp_path.glob("x*/*"))


def test_a_row_cut_in_the_middle_of_a_file_is_named(run, table, tmp_path):
    other = copied(table, tmp_path / "table", rows(31, 1000))
    lines = (other / "test.csv").read_text().splitlines()
    lines[25] = "r1024,red"
    (other / "test.csv").write_text("\n".join(lines) + "\n")
    assert "test.csv:26 (2 cells, the header has 3" in refusal(run, tmp_path, f"input_dir={other}")


@pytest.mark.slow
def test_blends_and_cascades_answer_in_shards_as_without(run, table, tmp_path):
    members = [f"runs={run},baseline", "weights=equal", "name=both"]
    blend(members)
    ways = {"blend": (run.with_name("both"), []), "cascade": (run, [f"cascade={run.with_name('other')}"])}
    shutil.copytree(run, run.with_name("other"))
    for name, (asked, more) in ways.items():
        plain, sharded = (pd.read_csv(predict(asked, tmp_path / f"{name}{n}", *more, size=n)) for n in (None, SIZE))
        assert list(plain["key"]) == list(sharded["key"])
        np.testing.assert_allclose(sharded[["early", "late"]], plain[["early", "late"]], atol=1e-6)


def test_what_does_not_go_together_is_refused(run, tmp_path):
    assert "leave one of them out" in refusal(run, tmp_path, "within=1h")


def test_ids_have_numbers_of_their_own():
    assert len(np.unique(hash_ids(f"row {number}" for number in range(20_000)))) == 20_000


@pytest.mark.slow
def test_the_sample_of_pairs_is_answered_in_shards_and_by_two_processes(tmp_path, repository):
    train(tmp_path, "fold=0", "inference=swap_averaged", "logger=none")
    run = tmp_path / "lmsys" / "tiny"
    plain, sharded = (pd.read_csv(predict(run, tmp_path / str(size), size=size)) for size in (None, 9))
    assert list(plain) == list(sharded)
    assert plain["id"].equals(sharded["id"])
    np.testing.assert_allclose(sharded.iloc[:, 1:], plain.iloc[:, 1:], atol=1e-6)
    command = [sys.executable, "predict.py", f"run={run}", f"submissions_dir={tmp_path / 'two'}", "name=x"]
    places = [f"input_dir={SAMPLE}", "shard_rows=9", "devices=2"]
    said = subprocess.run([*command, *places], cwd=repository, capture_output=True, text=True, env={**os.environ})
    assert said.returncode == 0, said.stderr
    assert re.findall(r"^shard (\d)", said.stdout, re.M) == ["1", "3", "5"], "the second process has the others"
    two = pd.read_csv(tmp_path / "two" / "x.csv")
    np.testing.assert_allclose(two.iloc[:, 1:], sharded.iloc[:, 1:], atol=1e-6)
