"""A finished fold is what it was scored as: a file that is changed, removed or added since is named and refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.records import read_gate, save_gate
from nexttoken.runs.seals import RECORDS, WEIGHTS

FILES = (*RECORDS, "model/model.safetensors", "model/tokenizer.json", "adapter/base.json")
SCORES = {"log_loss": 1.25, "num_examples": 3, "fold": 0, "task": "l\ud800é", "seconds": 0.1, "baseline": None}
ANYTHING = st.none() | st.booleans() | st.text() | st.lists(st.integers(), max_size=2)


def finished(path: Path, **metrics: Any) -> FoldFolder:
    """A finished fold of all sealed files; each holds its name."""
    fold = FoldFolder(path / "fold0")
    for name in FILES:
        (fold.path / name).parent.mkdir(parents=True, exist_ok=True)
        (fold.path / name).write_text(name)
    fold.save_metrics(SCORES | metrics)
    return fold


def refusal(fold: FoldFolder) -> str:
    with pytest.raises(UserError) as error:
        fold.refuse_altered((*RECORDS, *WEIGHTS))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_untouched_fold_is_taken_wherever_it_is_moved(tmp_path: Path) -> None:
    fold = finished(tmp_path)
    assert fold.refuse_altered((*RECORDS, *WEIGHTS)) | {"sealed": {}} == {**SCORES, "sealed": {}}
    (fold.path / "curve.csv").write_text("not sealed")
    (fold.path / "model" / ".DS_Store").write_text("of a file manager")
    moved = Path(shutil.copytree(fold.path, tmp_path / "elsewhere" / "fold0"))
    FoldFolder(moved).refuse_altered((*RECORDS, *WEIGHTS))


@given(st.sampled_from(FILES), st.integers(0, 9), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_changed_byte_is_refused_with_the_file_s_name(tmp_path: Path, name: str, place: int, change: int) -> None:
    fold = finished(tmp_path)
    data = bytearray((fold.path / name).read_bytes())
    data[place % len(data)] ^= change
    (fold.path / name).write_bytes(data)
    assert refusal(fold).startswith(f"{fold.path / name} was changed after the fold was finished; restore the file")


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_refused(tmp_path: Path, name: str) -> None:
    fold = finished(tmp_path)
    (fold.path / name).unlink()
    assert refusal(fold).startswith(f"{fold.path / name} was removed after the fold was finished")


@pytest.mark.parametrize("name", ["model/chat_template.jinja", "model/model.safetensors.index.json", "adapter/x.py"])
def test_an_added_file_of_the_model_is_refused(tmp_path: Path, name: str) -> None:
    fold = finished(tmp_path)
    (fold.path / name).write_text("{}")
    assert refusal(fold).startswith(f"{fold.path / name} was added after the fold was finished")


@pytest.mark.parametrize("changed", [{"log_loss": 0.5}, {"num_examples": 4}, {"task": "x"}, {"new": 1}])
def test_changed_scores_are_refused(tmp_path: Path, changed: dict) -> None:
    fold = finished(tmp_path)
    path = fold.path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert refusal(fold).startswith(f"{path} was changed after the fold was finished")


def test_a_report_needs_no_weights_and_a_fold_without_a_seal_is_taken(tmp_path: Path) -> None:
    fold = finished(tmp_path)
    shutil.rmtree(fold.path / "model")
    fold.refuse_altered()
    assert "model/model.safetensors was removed" in refusal(fold)
    (fold.path / "metrics.json").write_text(json.dumps(SCORES))
    fold.refuse_altered((*RECORDS, *WEIGHTS))


@pytest.mark.parametrize("name", ["fold1", "fold10", "fold00"])
def test_a_copied_fold_is_refused(tmp_path: Path, name: str) -> None:
    fold = finished(tmp_path)
    copy = FoldFolder(Path(shutil.copytree(fold.path, tmp_path / name)))
    assert refusal(copy).startswith(f"{copy.path / 'metrics.json'} is of fold 0: {copy.path} is a copy; remove it")


@pytest.mark.parametrize("key", ["log_loss", "num_examples"])
@given(value=ANYTHING | st.floats(max_value=-1e-9) | st.sampled_from([float("nan"), float("inf"), -(10**400), "1.05"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_scores_that_are_no_numbers_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    fold = finished(tmp_path)
    for metrics in (SCORES | {key: value}, {name: one for name, one in SCORES.items() if name != key}):
        (fold.path / "metrics.json").write_text(json.dumps(metrics))
        assert re.search(f"metrics.json has {key}=.*, expected a (whole )?number", refusal(fold))


def test_a_changed_gate_is_refused_and_an_old_one_taken(tmp_path: Path) -> None:
    path, gate = tmp_path / "gate.json", Gate(0.5, 0.25)
    save_gate(gate, {"share": 0.1, "chosen": "é"}, path)
    assert read_gate(path) == gate
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"min_top1": 0.75}))
    with pytest.raises(UserError, match=r"gate\.json was changed after the gate was chosen; write it again: python -m"):
        read_gate(path)
    del saved["sealed"]
    path.write_text(json.dumps(saved))
    assert read_gate(path) == gate
