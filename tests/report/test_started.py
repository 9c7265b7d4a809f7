"""The lines at the start of a training."""

import pytest

from nexttoken.build import build
from nexttoken.report.training import show_run
from nexttoken.runs.folder import RunFolder
from support.composed import composed

SIZES = {"train": 1600, "dev": 200, "held out": 200}


def shown(tmp_path, capsys, *overrides: str) -> dict[str, str]:
    config = composed(*overrides) | {"name": "x"}
    show_run(build(config), config, SIZES, 5, RunFolder(tmp_path).fold(0), overrides)
    return {line[:9].strip(): line[10:] for line in capsys.readouterr().out.splitlines()}


def test_the_limit_names_the_parts_that_it_limits(tmp_path, capsys):
    assert shown(tmp_path, capsys)["examples"] == "1,600 train, 200 dev, 200 held out"
    limited = shown(tmp_path, capsys, "limit_rows=1600")["examples"]
    assert limited == "1,600 train, 200 dev, 200 held out; limit_rows keeps the first 1,600 of each part"


@pytest.mark.parametrize(
    ("overrides", "is_rehearsal"),
    [
        ([], True),
        (["model.scratch.num_layers=1"], True),
        (["task=quiz", "input_dir=input/sample-quiz"], True),
        (["model=qwen2_5_0_5b"], False),
        (["model.name_or_path=some/folder"], False),
    ],
)
def test_a_small_model_from_scratch_is_called_a_rehearsal(tmp_path, capsys, overrides, is_rehearsal):
    note = shown(tmp_path, capsys, *overrides).get("note", "")
    assert note.startswith("a rehearsal: a small new model") == is_rehearsal
