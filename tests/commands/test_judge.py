"""The judge's command on run folders: which runs are a variant, what is chosen, and what is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from nexttoken.commands.judge import JudgeArguments, main
from nexttoken.commands.judge_outputs import answer_to_mark, output_to_mark, transcript
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.read_open import read_open_runs
from nexttoken.types import Example, TextPredictions

NUM_ROWS = 40
CONFIG = {
    "input_dir": "input/x", "output_dir": "output", "name": "n", "fold": 0, "seed": 0, "split": {"seed": 3},
    "task": {"_target_": "nexttoken.tasks.dialogue.Dialogue"}, "generation": {"seed": 0}, "fit": {"learning_rate": 0.1},
}  # fmt: skip


def write_run(path: Path, shift: float = 0.0, seed: int = 0, folds=(0, 1), prefix: str = "d", **config) -> Path:
    """A finished open run with a loss of 2 + shift nats a token and the seed's own noise."""
    table = ["id,group,fold"]
    for fold in folds:
        folder = path / f"fold{fold}"
        folder.mkdir(parents=True)
        lengths = np.random.default_rng(fold).integers(5, 30, NUM_ROWS)
        noise = np.random.default_rng([fold, seed, int(abs(shift) * 1000)]).normal(size=NUM_ROWS)
        ids = [f"{prefix}{fold}{row:03}" for row in range(NUM_ROWS)]
        nll = lengths * (2 + shift + 0.02 * noise)
        columns = {"id": ids, "row": ids, "fold": fold, "nll": nll, "num_tokens": lengths}
        pd.DataFrame(columns | {"num_characters": 3 * lengths}).to_csv(folder / "oof.csv", index=False)
        metrics = {"fold": fold, "task": "dialogue", "answers": "texts", "num_examples": NUM_ROWS}
        (folder / "metrics.json").write_text(json.dumps(metrics | {"log_loss": float(nll.sum() / lengths.sum())}))
        saved = CONFIG | {"seed": seed, "fold": fold, "name": path.name, "generation": {"seed": seed}} | config
        (folder / "config.yaml").write_text(yaml.safe_dump(saved))
        table += [f"{row_id},{place // 2},{fold}" for place, row_id in enumerate(ids)]
    (path / "folds.csv").write_text("\n".join(table) + "\n")
    return path


@pytest.fixture
def task_dir(tmp_path) -> Path:
    """Two variants with two seeds each, one of them clearly worse."""
    folder = tmp_path / "output" / "dialogue"
    for seed in (0, 1):
        write_run(folder / f"short_seed-{seed}", seed=seed)
        write_run(folder / f"long_seed-{seed}", 0.3, seed, fit={"learning_rate": 0.2})
    return folder


def test_runs_that_differ_by_seed_alone_are_one_variant(task_dir):
    runs = read_open_runs([task_dir])
    assert {(run.variant, run.seed) for run in runs} == {(name, seed) for name in ("short", "long") for seed in (0, 1)}
    assert [fold.number for fold in runs[0].folds] == [0, 1]
    assert len(runs[0].rows) == 2 * NUM_ROWS
    assert runs[0].rows["group"].nunique() == NUM_ROWS // 2


def test_another_split_seed_is_another_variant_and_equal_names_get_their_folder(tmp_path, caplog):
    write_run(tmp_path / "a" / "x")
    write_run(tmp_path / "b" / "x", split={"seed": 4})
    assert [run.variant for run in read_open_runs([tmp_path])] == ["a/x", "b/x"]
    assert "are two variants: split.seed: 3 -> 4" in caplog.text


def test_the_best_is_chosen_and_everything_is_written(task_dir, capsys):
    paths = [str(path) for path in sorted(task_dir.iterdir())]
    main(paths)
    printed = capsys.readouterr().out
    assert printed.strip().splitlines()[-2:] == [
        f"chosen: {task_dir / 'short_seed-0'}",
        f"next: python predict.py run={task_dir / 'short_seed-0'}",
    ]
    assert "worse than short beyond noise: long." in printed
    assert "The ranking is the same with each of the seeds 0, 1: short > long." in printed
    out = task_dir.parent / "judge" / "dialogue"
    said_so = json.loads((out / "judge.json").read_text())
    assert said_so["chosen"] == str(task_dir / "short_seed-0")
    assert said_so["same_ranking_with_every_seed"] is True
    assert [entry["verdict"] for entry in said_so["variants"]] == ["chosen", "worse"]
    rows = pd.read_csv(out / "judged.csv")
    mine = rows[rows["variant"] == "long"]
    assert len(rows) == 8 * NUM_ROWS
    assert said_so["variants"][1]["value"] == pytest.approx(mine["nll"].sum() / mine["num_tokens"].sum())
    assert "judge.png" in (out / "judge.md").read_text()
    assert imread(out / "judge.png").size


def test_results_in_the_way_do_not_become_runs(task_dir, capsys):
    main([str(task_dir), f"out={task_dir}"])
    capsys.readouterr()
    main([*map(str, sorted(task_dir.iterdir())), f"out={task_dir}"])  # as the shell expands output/dialogue/*
    assert "2 variants in 4 runs" in capsys.readouterr().out


def test_equal_variants_are_noise(tmp_path, capsys):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", 0.001, seed=0, fit={"learning_rate": 0.2})
    main([str(tmp_path), f"out={tmp_path / 'out'}"])
    assert "cannot be told apart by these 80 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "expected either run folders"),
        (["output/nowhere"], "output/nowhere is not there"),
        (["data=input/x"], "needs task=, judge= and out="),
        ([".", "by=marks"], "by=marks is no measure; "),
        ([".", "rows=many"], "rows='many' is not accepted"),
        ([".", "jury=x"], "unknown argument"),
        ([".", "data=input/x"], "expected either run folders"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, reason):
    with pytest.raises(UserError, match=reason) as error:
        JudgeArguments.parse(arguments)
    assert "\n" not in str(error.value)


def test_a_rubric_may_be_a_file(tmp_path):
    (tmp_path / "rubric.txt").write_text("Be strict.\n")
    assert JudgeArguments.parse([".", f"rubric={tmp_path / 'rubric.txt'}"]).rubric == "Be strict."
    assert JudgeArguments.parse([".", "rubric=Be kind."]).rubric == "Be kind."


def test_folders_that_hold_no_open_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        read_open_runs([tmp_path])
    fold = write_run(tmp_path / "x", folds=(0,)) / "fold0"
    (fold / "metrics.json").write_text(json.dumps({"log_loss": 1.0, "num_examples": 3, "task": "quiz"}))
    with pytest.raises(UserError, match="answers with labels, not with texts"):
        read_open_runs([tmp_path])


def test_the_same_run_twice_is_refused_and_a_path_twice_is_not(task_dir, tmp_path):
    assert len(read_open_runs([task_dir, task_dir / "short_seed-0"])) == 4
    write_run(task_dir / "short_seed-0-again")
    with pytest.raises(UserError, match="are both short"):
        read_open_runs([task_dir])


@pytest.mark.parametrize(("cell", "reason"), [("nan", "lack a loss"), ("much", "could not convert"), ("inf", "lack")])
def test_a_broken_loss_is_named(tmp_path, cell, reason):
    path = write_run(tmp_path / "x", folds=(0,)) / "fold0" / "oof.csv"
    path.write_text(f"id,fold,nll,num_tokens,num_characters\na,0,{cell},1,3\n")
    with pytest.raises(UserError, match=reason):
        read_open_runs([tmp_path])


def test_outputs_are_read_back_as_they_were_saved(tmp_path):
    columns = {"num_tokens": np.array([1, 2]), "finished": np.array([True, False])}
    FoldFolder(tmp_path).save_texts(TextPredictions(("a", "b"), ("一\n二", ""), columns))
    read = FoldFolder(tmp_path).texts()
    assert (read.ids, read.texts) == (("a", "b"), ("一\n二", ""))
    assert read.columns["finished"].tolist() == [True, False]
    assert FoldFolder(tmp_path / "none").texts().ids == ()
    (tmp_path / "generated.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match="a line that is no output"):
        FoldFolder(tmp_path).texts()


def test_what_the_judge_is_shown_of_an_instruction_and_of_a_dialogue():
    row = Example("7", {"instruction": ("Add.",), "input": ("1 1",), "rubric": ("",)}, answer="2")
    shown = output_to_mark("0:7", row, "3", "Be strict.").fields
    assert {name: turns[0] for name, turns in shown.items()} == {
        "instruction": "Add.", "response": "3", "input": "1 1", "reference": "2", "rubric": "Be strict.",
    }  # fmt: skip
    own = Example("7", {**row.fields, "rubric": ("Its own.",)}, answer="2")
    assert output_to_mark("0:7", own, "3", "Be strict.").fields["rubric"] == ("Its own.",)
    talk = Example("d", {"dialogue": ("Hi", "Hello", "Why?")}, answer="Because.")
    assert output_to_mark("0:d", talk, "So.", "").fields["instruction"] == ("User: Hi\nAssistant: Hello\nUser: Why?",)
    whole = answer_to_mark(talk, "Be strict.").fields
    assert whole["response"] == (transcript(["Hi", "Hello", "Why?", "Because."]),)
    assert whole["response"][0].endswith("Assistant: Because.")
    assert answer_to_mark(row, "").fields["response"] == ("2",)
    assert answer_to_mark(row, "").fields["reference"] == ("",)


def test_the_command_starts_without_torch(task_dir):
    code = "import sys; from nexttoken.commands.judge import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(task_dir)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
