"""Run folders and the files of a fold: claimed, compared, read back, and refused where they are damaged."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.data.folds import Folds
from nexttoken.data.whole_files import remove
from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
from nexttoken.runs import folder as folders
from nexttoken.runs.config import Changes, changed_config, moved
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences, flatten, hash_examples, latest_run
from nexttoken.runs.records import read_gate, save_gate
from nexttoken.settings import Settings
from nexttoken.types import AnswerLosses, Example, LabelPredictions, TextPredictions

CONFIG = {"input_dir": "in", "fit": {"learning_rate": 0.1, "epochs": 2}, "prompt": {"template": "a\x85\n b\n"}}
FOLDS = Folds(("a", "b"), np.array([0, 1]), np.array([0, 1]))
OTHER_FOLDS = Folds(("a", "b"), np.array([0, 1]), np.array([1, 0]))
LINE = '{"id": "a", "output": "x", "num_tokens": 1, "finished": true}\n'
TAG = st.text(st.characters(codec="utf-8"), max_size=8)


def claim(
    run: RunFolder, number: int = 0, config: dict = CONFIG, data: str = "h", folds: Folds = FOLDS, **more
) -> FoldFolder:
    return run.claim(number, config, data, folds, **{"overwrite": False, **more})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "task" / "run")
    claim(run).save_metrics({"log_loss": 1.0, "num_examples": 2})
    (run.path / "gate.json").write_text("{}")
    return run


def test_the_same_run_goes_on_and_files_of_all_folds_are_out_of_date(run: RunFolder) -> None:
    (run.fold(0).path / "checkpoint").write_text("half")
    fold = claim(run)
    assert (fold.path / "checkpoint").read_text() == "half"
    assert fold.config() == CONFIG
    assert fold.has_data("h")
    assert not fold.has_data("other")
    assert not (run.path / "gate.json").exists()
    assert os.listdir(run.path / "fold0").count("config.yaml") == 1


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"config": CONFIG | {"fit": {"learning_rate": 0.2, "epochs": 2}}}, "fit.learning_rate: 0.1 -> 0.2"),
        ({"config": CONFIG | {"new": 1}}, "new: None -> 1"),
        ({"data": "other"}, "was started on other rows than in holds now; choose another name"),
        ({"folds": OTHER_FOLDS}, "fold"),
        ({"folds": OTHER_FOLDS, "number": 1}, "fold"),
        ({"folds": OTHER_FOLDS, "number": 1, "overwrite": True}, "fold"),
    ],
)
def test_another_run_is_refused_before_anything_changes(run: RunFolder, given_: dict, reason: str) -> None:
    before = contents(run.path)
    with pytest.raises(UserError, match=reason):
        claim(run, **given_)
    assert contents(run.path) == before


def test_overwriting_the_only_fold_takes_other_settings_and_folds(run: RunFolder) -> None:
    fold = claim(run, config=CONFIG | {"new": 1}, data="other", folds=OTHER_FOLDS, overwrite=True)
    assert not fold.is_finished
    assert fold.config()["new"] == 1
    claim(run, 1, folds=OTHER_FOLDS)


def test_finished_folds_come_in_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("fold10", "fold2", "fold0", "fold01", "fold", "folds", "fold-1", "fold1.old", "fold１"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
    (tmp_path / "fold3").mkdir()
    run = RunFolder(tmp_path)
    assert [fold.number for fold in run.finished_folds()] == [0, 2, 10]
    for fold in run.finished_folds():
        fold.remove()
        fold.remove()
        assert not fold.path.exists()
    with pytest.raises(UserError, match=r"has no finished fold; train one first: python train\.py fold=0"):
        run.finished_folds()


def test_the_latest_run_is_of_the_fold_that_finished_last(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no finished run; train one first"):
        latest_run(tmp_path / "none")
    for seconds, name in enumerate(("new/fold0", "old/fold1", "old/backup_fold0", "notes/fold0.old")):
        path = tmp_path / "task" / name / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (seconds, seconds))
    assert latest_run(tmp_path).path.name == "old"


SETTING = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
CONFIGS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2), SETTING | st.dictionaries(st.text("abc", min_size=1), SETTING), max_size=4
)


@given(CONFIGS, CONFIGS)
def test_differences_are_none_between_equals_and_turn_round(one: dict, other: dict) -> None:
    assert describe_differences(one, one) == ""
    there, back = describe_differences(one, other, 99), describe_differences(other, one, 99)
    assert there.count(" -> ") == back.count(" -> ")
    assert all(isinstance(value, dict) is (value == {}) for value in flatten(one).values())


def test_many_and_long_differences_are_cut() -> None:
    old, new = {str(n): n for n in range(9)}, {"0": "x" * 10_000}
    text = describe_differences(old, new)
    assert text.startswith("0: 0 -> 'xxx")
    assert text.endswith("4: 4 -> None and 4 more")
    assert len(text) < 200
    kept = {"inference": {"ask": {"index_dir": "a"}}, "trainer": {"devices": 1}, "name": "x"}
    moved = {"inference": {"ask": {"index_dir": "b"}}, "trainer": {"devices": 2}, "name": "y"}
    assert describe_differences(kept, moved) == ""
    assert describe_differences({"task": {"index_dir": "a"}}, {"task": {"index_dir": "b"}})


def test_a_hash_of_examples_depends_on_ids_fields_answers_and_order() -> None:
    one, two = Example("1", {"a": ("x", "y")}, 0), Example("2", {"a": ("\ud800",)}, answer="0")
    different = [
        [one, two],
        [two, one],
        [one],
        [],
        [Example("1", {"a": ("xy",)}, 0), two],
        [Example("1", {"a": ("x", "y")}, 1), two],
        [Example("1", {"b": ("x", "y")}, 0), two],
        [one, Example("2", {"a": ("\ud800",)}, answer="1")],
        [one, Example("2", {"a": ("\ud800",)}, 0)],
    ]
    assert len({hash_examples(examples) for examples in different}) == len(different)
    assert hash_examples([one]) == hash_examples([Example("1", {"a": ("x", "y")}, 0, tags={"file": "moved"})])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "cannot be read .No such file or directory.; expected the folder of a run"),
        (b"\xff\xfe", "is not YAML in UTF-8; train this fold again"),
        (b"a: [1", "is not YAML in UTF-8; train this fold again"),
        (b"a: 2020-13-45", "is not YAML in UTF-8; train this fold again"),
        (b"[" * 1200, "is not YAML in UTF-8; train this fold again"),
        (b"a: !!python/object/apply:os.system [true]", "is not YAML in UTF-8; train this fold again"),
        (b"a: \x07", "is not YAML in UTF-8; train this fold again"),
        (b"", "does not hold a configuration; train this fold again with overwrite=true"),
        (b"- a", "does not hold a configuration"),
    ],
    ids=range(9),
)
def test_a_damaged_configuration_is_one_line(tmp_path: Path, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(UserError, match=reason) as error:
        FoldFolder(tmp_path).config()
    assert "\n" not in str(error.value)
    (tmp_path / "data.sha256").write_bytes(b"\xff")
    assert not FoldFolder(tmp_path).has_data("h")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", "output": "x", "num_tokens": 1}', "lacks finished"),
        ('{"id": 7, "output": "x", "num_tokens": 1, "finished": true}', "its id or output is no text"),
        ('{"id": "a", "output": null, "num_tokens": 1, "finished": true}', "its id or output is no text"),
        ('{"id": "a", "output": "x", "num_tokens": "1", "finished": true}', "num_tokens is no number"),
        ('{"id": "a", "output": "x", "num_tokens": [1], "finished": true}', "num_tokens is no number"),
        ('{"id": "a", "output": "x", "num_tokens": 1.5, "finished": true}', "num_tokens is no number"),
        ('{"id": "a", "output": "x", "num_tokens": -1, "finished": true}', "num_tokens is no number"),
        ('{"id": "a", "output": "x", "num_tokens": 9223372036854775808, "finished": true}', "num_tokens is no number"),
        ('{"id": "a", "output": "x", "num_tokens": 1, "finished": "no"}', ".*finished not true or false"),
        ('{"id": "a", "outp', "not JSON: Unterminated string"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_line_that_is_no_output_is_named(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "generated.jsonl").write_text(LINE + line + "\n" + LINE)
    with pytest.raises(UserError, match=rf"generated\.jsonl:2 \({reason}.*; delete the file and generate again"):
        FoldFolder(tmp_path).texts()


def test_generated_texts_and_prompts_of_any_characters_are_saved(tmp_path: Path) -> None:
    fold, texts = FoldFolder(tmp_path), ("\ud800", "a\r\n\u2028\x85\0", "", "é")
    columns = {"num_tokens": np.array([0, 1, 2**40, 3]), "finished": np.array([True, False, True, True])}
    fold.save_texts(TextPredictions(("1", "2", "3", "4"), texts, columns))
    read = fold.texts()
    assert read.texts == texts
    assert read.ids == ("1", "2", "3", "4")
    assert read.columns["num_tokens"].tolist() == [0, 1, 2**40, 3]
    fold.save_texts(TextPredictions((), (), {name: values[:0] for name, values in columns.items()}))
    assert (fold.texts().ids, fold.texts().columns["finished"].dtype) == ((), bool)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tags=st.lists(TAG, min_size=1, max_size=4))
def test_tags_come_back_from_rows_csv(tmp_path: Path, tags: list[str]) -> None:
    tags = ["a\rb", 'say "x",\n', *tags]
    rows = [Example(str(n), {}, tags={"genre": tag} if n else {}) for n, tag in enumerate(tags)]
    predictions = LabelPredictions(tuple(row.id for row in rows), np.full((len(rows), 2), 0.5))
    FoldFolder(tmp_path).save_rows(rows, predictions)
    table = pd.read_csv(tmp_path / "rows.csv", dtype=str, na_filter=False, lineterminator=None)
    assert table["id"].tolist() == [row.id for row in rows]
    assert set(table["num_options"]) == {"2"}
    if not any("\0" in tag for tag in tags):  # pandas ends a cell there
        assert table["genre"].tolist() == ["", *tags[1:]]


def test_held_out_ids_are_those_of_the_folds_in_full_precision(tmp_path: Path) -> None:
    fold, ids = FoldFolder(tmp_path), ("007", "NA", 'a"b,c', "=1", "9007199254740993")
    probs = np.random.default_rng(0).dirichlet(np.ones(2), len(ids))
    fold.save_oof(LabelPredictions(ids, probs), np.zeros(len(ids), dtype=int), 0, ["x", "y"])
    assert fold.held_out_ids() == list(ids)
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "oof.csv", float_precision="round_trip")[["x", "y"]], probs)
    losses = AnswerLosses(("7#1", "7#2", "a#b", "8"), np.ones(4), np.ones(4, dtype=int), np.ones(4, dtype=int))
    fold.save_losses(losses, [Example(one, {}) for one in ("7", "a#b", "8")], 0)
    assert fold.held_out_ids() == ["7", "a#b", "8"]


def test_journals_stay_until_the_fold_is_finished(tmp_path: Path) -> None:
    fold = FoldFolder(tmp_path)
    fold.journals.mkdir()
    (fold.journals / "1.jsonl").touch()
    with pytest.raises(ValueError, match="not JSON compliant"):
        fold.finish({"log_loss": float("nan")})
    assert fold.journals.exists()
    fold.finish({"log_loss": 1.0})
    assert fold.is_finished
    assert not fold.journals.exists()


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    fold = FoldFolder(tmp_path)
    fold.save_oof(LabelPredictions(("a",), np.ones((1, 1))), np.zeros(1), 0, ["x"])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="same length"):
        fold.save_oof(LabelPredictions(("a", "b"), np.ones((1, 1))), np.zeros(1), 0, ["x"])
    with pytest.raises(ValueError, match="not JSON compliant"):
        fold.save_metrics({"log_loss": float("nan")})
    assert contents(tmp_path) == before
    (tmp_path / "metrics.json").write_text('{"loss": 1}')
    with pytest.raises(
        UserError, match=r"metrics\.json has log_loss=None, expected a number of at least 0; train this fold again"
    ):
        fold.metrics()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"min_top1": None}, "has no number min_top1; write it again: python -m nexttoken gate run="),
        ({"min_margin": "0.5"}, "has no number min_margin"),
        ({"min_margin": float("nan")}, "inference.min_margin=nan is not accepted"),
        ({"temperature": float("inf")}, "inference.temperature=inf is not accepted"),
        ({"min_top1": -1}, "inference.min_top1=-1 is not accepted"),
    ],
)
def test_a_gate_is_read_back_or_refused(tmp_path: Path, change: dict, reason: str) -> None:
    path, gate = tmp_path / "gate.json", Gate(0.3, 1.01, 2.0, keep_confident=False)
    save_gate(gate, {"chosen": ["a"]}, path)
    assert read_gate(path) == gate
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=reason) as error:
        read_gate(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("in/a", "new/a"),
        ("in", "new"),
        ("in/", "new"),
        ("inside", "inside"),
        ("a/in", "a/in"),
        ({"a": ["in/b", 3, None]}, {"a": ["new/b", 3, None]}),
    ],
)
@pytest.mark.parametrize("old", ["in", "in/"])
def test_only_paths_under_the_old_folder_move(node: object, expected: object, old: str) -> None:
    assert moved(node, old, "new") == expected


def saved_fold(folder: Path, number: int, config: dict) -> FoldFolder:
    fold = RunFolder(folder).fold(number)
    fold.claim(config, "h")
    return fold


def test_a_changed_configuration_leaves_the_saved_one_and_names_what_is_gone(tmp_path: Path) -> None:
    inference = {"_target_": "nexttoken.inference.Once", "corpus": "in/c.csv"}
    changes = {
        "input_dir": "in",
        "task": {"input_dir": "in"},
        "inference": inference,
        "model": {"name_or_path": "a", "revision": "x"},
    }
    required = {key: info.annotation for key, info in Settings.model_fields.items() if info.is_required()}
    config = {key: {} if kind == dict[str, Any] else "x" for key, kind in required.items()} | changes
    folds = [saved_fold(tmp_path, number, config) for number in (0, 1)]
    changed = changed_config(folds, "new", "base", Changes(generation={"beams": 2}))
    assert changed["inference"]["corpus"] == "new/c.csv"
    assert changed["task"] == {"input_dir": "new"}
    assert changed["model"] == {"revision": None, "name_or_path": "base", "trust_remote_code": False}
    assert (changed["generation"], changed["train_transforms"]) == ({"beams": 2}, {})
    assert folds[0].config() == config
    with pytest.raises(UserError, match=r"inference is Once, which does not search.*inference=gated_retrieval"):
        changed_config(folds, None, None, Changes(retriever={"_target_": "nexttoken.x.Y"}))
    folds[1] = saved_fold(tmp_path, 1, config | {"model": {"name_or_path": "a", "revision": "y"}})
    with pytest.raises(
        UserError, match=r"fold1 differs from .*fold0 .model.revision: 'x' -> 'y'.; train it with the same"
    ):
        changed_config(folds, None, None, Changes())
    for target in ("nexttoken.gone.deep.Once", "nexttoken.inference.Gone", "nexttoken.errors.UserError.Once"):
        old = saved_fold(tmp_path / "old", 0, config | {"inference": {"_target_": target}})
        with pytest.raises(UserError, match=f"classes moved .{target} is gone.; train it again with overwrite=true"):
            changed_config([old], None, None, Changes())


@pytest.mark.parametrize("linked", ["fold0", "checkpoints", "run", "nothing"])
def test_overwriting_leaves_nothing_of_a_fold_wherever_its_folders_are(tmp_path: Path, linked: str) -> None:
    run = RunFolder(tmp_path / "task" / "run")
    fold = claim(run)
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "model/model.safetensors", "metrics.json"):
        (fold.path / name).parent.mkdir(exist_ok=True)
        (fold.path / name).write_text("old")
    (fold.path / "model" / "model.safetensors").chmod(0o400)
    (fold.path / "model").chmod(0o500)
    moved = {"fold0": fold.path, "checkpoints": fold.path / "checkpoints", "run": run.path}.get(linked)
    if moved:
        (tmp_path / "disk").mkdir()
        os.rename(moved, tmp_path / "disk" / moved.name)
        moved.symlink_to(tmp_path / "disk" / moved.name)
    claim(run, config=CONFIG | {"seed": 5}, overwrite=True)
    assert set(contents(fold.path)) == {"config.yaml", "data.sha256"}
    assert fold.path.is_symlink() == (linked == "fold0")


def test_a_removal_that_ends_in_the_middle_is_neither_finished_nor_continued(run: RunFolder, monkeypatch) -> None:
    fold = claim(run)
    for name in ("metrics.json", "curve.csv", "a", "z"):
        (fold.path / name).write_text("old")
    for number in (2, 3, 4):
        calls = iter(range(number))
        monkeypatch.setattr(folders, "remove", lambda path, calls=calls: next(calls) + 1 and remove(path))
        with suppress(StopIteration):
            fold.remove()
        assert not fold.is_finished
        with pytest.raises(UserError, match=r"overwrite=true"):
            claim(run)
    monkeypatch.undo()
    fold.remove()
    assert not fold.path.exists()
    monkeypatch.setattr(folders, "remove", lambda path: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    claim(run, number=1)
    with pytest.raises(OSError, match="Read-only"):
        claim(run, number=1, overwrite=True)


def test_the_owner_of_a_fold_clears_what_a_kill_left_half_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    fold = claim(run)
    (fold.path / "checkpoints").mkdir()
    for name in ("checkpoints/.last.ckpt.99999999.part", ".oof.csv.1@elsewhere.part"):
        (fold.path / name).write_text("half")
    (fold.path / ".model.2@elsewhere.part" / "inner").mkdir(parents=True)
    claim(run)
    assert set(contents(fold.path)) == {"config.yaml", "data.sha256"}
