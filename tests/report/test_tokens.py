"""Tokens of variants: counts from tokens.csv, each training row once, in the published format."""

from functools import partial
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread

from nexttoken.report.published import read_published
from support.commands import status_of

main = partial(status_of, "tokens")

CONFIG = {"seed": 0, "fold": 0, "name": "n", "fit": {"learning_rate": 0.1}}


def write_fold(run: Path, fold: int, rows: list[tuple], **config) -> None:
    folder = run / f"fold{fold}"
    folder.mkdir(parents=True)
    lines = ["id,num_tokens,num_user_tokens,num_assistant_tokens", *(",".join(map(str, row)) for row in rows)]
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"fold": fold} | config))


@pytest.fixture
def task_dir(tmp_path) -> Path:
    folder = tmp_path / "output" / "dialogue"
    for seed in (0, 1):
        write_fold(folder / f"short_seed-{seed}", 0, [("a", 10, 4, 5), ("b", 30, 14, 15)], seed=seed)
        write_fold(folder / f"short_seed-{seed}", 1, [("b", 30, 14, 15), ("c", 20, 10, 9)], seed=seed)
    write_fold(folder / "long", 0, [("a", 1100, 500, 600)], fit={"learning_rate": 0.2})
    return folder


def test_every_training_row_counts_once_whatever_folds_and_seeds_there_are(task_dir, capsys):
    assert main([str(task_dir)]) == 0
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    }
    assert rows["short"] == ["3", "60", "20.00", "30", "10", "9.33", "9.67", "1.00"]
    assert rows["long"] == ["1", "1,100", "1100.00", "1,100", "1,100", "500.00", "600.00", "0.00"]
    out = task_dir.parent / "judge" / "dialogue"
    assert "tokens.png" in (out / "tokens.md").read_text()
    assert imread(out / "tokens.png").size


def test_the_published_counts_agree_with_themselves(task_dir, capsys):
    assert main([str(task_dir), "published=true", f"out={task_dir}"]) == 0
    assert "model9: 4 utterances, windows 1, persona long" in capsys.readouterr().out
    variants = read_published("variants")
    assert len(variants) == 9
    for variant in variants:
        assert variant["total"] / variant["rows"] == pytest.approx(variant["mean"], abs=0.02)
        assert variant["user"] + variant["assistant"] == pytest.approx(variant["mean"], abs=0.02)
        assert variant["least"] < variant["mean"] < variant["most"]


def test_what_cannot_be_read_is_one_line(task_dir, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no <name>/fold<k>/tokens.csv" in capsys.readouterr().err
    (task_dir / "long" / "fold0" / "tokens.csv").write_text(
        "id,num_tokens,num_user_tokens,num_assistant_tokens\na,x,1,1\n"
    )
    assert main([str(task_dir)]) == 2
    assert "run the fold again" in capsys.readouterr().err
