"""A stranger's runs, blends, cascades and checkpoints are read as values; nothing in them is imported or executed."""

import ast
import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nexttoken
from nexttoken.data.targets import PLACES
from nexttoken.errors import UserError
from nexttoken.pipeline import load_asked
from nexttoken.runs.blend import Blend, Member, identity_of, save_blend
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.load import load
from nexttoken.training.callbacks import read_checkpoint
from support.composed import composed, config_of
from support.finished_runs import write_run
from support.training import SAMPLE

PROBS, LABELS = np.full((120, 3), 1 / 3), np.arange(120) % 3
SOURCE = Path(nexttoken.__file__).parent


class Touch:
    """A pickle that creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def trace(tmp_path, monkeypatch) -> Path:
    """A file that the module `stranger`, which Python finds, would leave behind."""
    path = tmp_path / "executed"
    (tmp_path / "stranger.py").write_text(f"open({str(path)!r}, 'w')\nclass X: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return path


def foreign(run: Path, place: str) -> Path:
    """A run without a seal, as of an earlier version, with a stranger's class in a place of its configuration."""
    node = {"_target_": "stranger.X"}
    nodes = {"inference": {"ask": node}, "candidates": {"retriever": node}}
    own = {"_target_": composed()[place].get("_target_")} if place in nodes else {}
    changed = {"x": node} if place.endswith("transforms") else own | nodes.get(place, node)
    return write_run(run, PROBS, LABELS, **{"input_dir": str(SAMPLE), place: changed})


@pytest.mark.parametrize("place", sorted(PLACES.keys() - {"ask", "train_transforms"}))
def test_a_class_of_a_stranger_s_run_is_refused_and_not_imported(tmp_path, trace, place):
    with pytest.raises(UserError, match=r"_target_='stranger\.X' is refused"):
        load(RunFolder(foreign(tmp_path / "run", place)))
    assert "stranger" not in sys.modules
    assert not trace.exists()


def test_a_stranger_s_blend_and_cascade_are_refused_as_their_members_are(tmp_path, trace):
    member = foreign(tmp_path / "member", "prompt")
    sound, blend = (write_run(tmp_path / name, PROBS, LABELS, input_dir=str(SAMPLE)) for name in ("sound", "blend"))
    save_blend(Blend("probabilities", (Member("../member", 1.0, identity_of(RunFolder(member))),)), blend)
    for overrides in ([f"run={blend}"], [f"run={sound}", f"cascade={member}"]):
        with pytest.raises(UserError, match=r"prompt\._target_='stranger\.X' is refused"):
            load_asked(config_of("predict", *overrides))
    assert not trace.exists()
    importlib.import_module("stranger")
    assert trace.exists(), "the module is a dangerous one"


@pytest.mark.parametrize("is_zipped", [True, False])
def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tmp_path, is_zipped):
    path, trace = tmp_path / "last.ckpt", tmp_path / "executed"
    if is_zipped:
        torch.save({"state_dict": Touch(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Touch(trace)}, protocol=2))
    with pytest.raises(UserError, match=r"last\.ckpt cannot be loaded \(it holds code, which is refused\)"):
        read_checkpoint(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists(), "the pickle is a dangerous one"


def test_every_reader_of_pickles_and_archives_in_the_source_is_a_guarded_one():
    calls: dict[str, list] = {"torch.load": [], "extractall": [], "pickle.loads": [], "unpack_archive": []}
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if any(name in text for name in calls) else ():
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            for kind in (kind for kind in calls if name.endswith(kind)):
                calls[kind].append((path.name, {one.arg: ast.unparse(one.value) for one in node.keywords}))
    assert calls["torch.load"]
    assert all(given["weights_only"] == "True" for _, given in calls["torch.load"])
    assert [name for name, _ in calls["extractall"]] == ["archive.py"]
    assert [name for name, _ in calls["pickle.loads"]] == ["stream.py"]  # of its own rows
    assert not calls["unpack_archive"]
