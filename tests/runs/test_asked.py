"""A finished run asked in another way: the answers of a run trained with it, saved beside the run's own."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from nexttoken.commands.ask import ask
from nexttoken.commands.gate import main as gate
from nexttoken.errors import UserError
from nexttoken.report.compare import read_cells
from nexttoken.runs.asked import asked_runs
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import read_runs
from support.training import composed, predict, train

WAYS = {"once": [], "swap": ["inference=swap_averaged"], "shots": ["inference=few_shot"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The same training with three ways of inference."""
    folder = tmp_path_factory.mktemp("trained")
    for name, overrides in WAYS.items():
        train(folder, f"name={name}", *overrides)
    return folder


@pytest.fixture
def output(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "output")


def run_of(output: Path, name: str) -> Path:
    return output / "lmsys" / name


def ask_run(output: Path, name: str, *overrides: str, again: bool = False) -> str:
    return ask(composed("predict", f"run={run_of(output, name)}", *overrides), again)


@pytest.mark.parametrize(("run", "way"), [("once", "swap"), ("swap", "once"), ("once", "shots")])
def test_asking_gives_the_very_answers_and_scores_of_a_run_trained_with_that_way(output, run, way):
    table = ask_run(output, run, *(WAYS[way] or ["inference=once"]))
    asked, own = RunFolder(run_of(output, run)).ways[0].fold(0), RunFolder(run_of(output, way)).fold(0)
    assert (asked.path / "oof.csv").read_bytes() == (own.path / "oof.csv").read_bytes()
    assert (asked.path / "oof.csv").read_bytes() != (run_of(output, run) / "fold0" / "oof.csv").read_bytes()
    assert asked.state() == own.state()
    shared = {"log_loss", "accuracy", "num_examples", "prior_log_loss", "baseline_log_loss", "num_prompt_tokens"}
    one, other = asked.metrics(), own.metrics()
    assert {key: one[key] for key in shared} == {key: other[key] for key in shared}
    assert one["answered_by"] == RunFolder(run_of(output, run)).fold(0).training_id
    assert f"{one['log_loss']:.4f}" in table
    assert not list(asked.path.glob("answered*"))


def test_asking_stops_when_its_time_is_up_and_goes_on(output, capsys):
    with pytest.raises(SystemExit) as ended:
        ask_run(output, "once", *WAYS["swap"], "within=1s")
    assert ended.value.code == 3
    assert "the same command goes on" in capsys.readouterr().err
    assert "SwapAveraged" in ask_run(output, "once", *WAYS["swap"], "within=10m")


def test_the_runs_own_way_has_its_own_numbers_and_asks_nothing(output):
    folder = run_of(output, "once")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    table = ask_run(output, "once", "inference=once", again=True)
    assert f"{RunFolder(folder).fold(0).metrics()['log_loss']:.4f}" in table
    assert "This is the run's own way" in table
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_asking_again_says_so_at_once_and_a_killed_one_goes_on(output, monkeypatch, capsys):
    folder = run_of(output, "once")
    with monkeypatch.context() as patch:
        patch.setattr(FoldFolder, "save_oof", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask_run(output, "once", *WAYS["swap"])
    assert RunFolder(folder).ways == []
    ask_run(output, "once", *WAYS["swap"])
    assert "fold 0: 48 rows were answered before" in capsys.readouterr().out
    path = RunFolder(folder).ways[0].fold(0).path / "metrics.json"
    first = path.read_bytes()
    table = ask_run(output, "once", *WAYS["swap"])
    assert "asked before; again=true asks anew" in capsys.readouterr().out
    assert path.read_bytes() == first
    assert ask_run(output, "once", *WAYS["swap"], again=True).splitlines()[:4] == table.splitlines()[:4]
    assert path.read_bytes() != first, "its seconds"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_predictions_in_another_way_are_those_of_a_run_trained_with_it_and_bear_its_score(output):
    runs = [f"run={run_of(output, name)}" for name in ("once", "swap")]
    other = predict(output, runs[1])
    pd.testing.assert_frame_equal(predict(output, runs[0], *WAYS["swap"]), other)
    table = ask_run(output, "once", *WAYS["swap"])
    way = RunFolder(run_of(output, "once")).ways[0]
    pd.testing.assert_frame_equal(predict(output, runs[0], *WAYS["swap"], "name=scored"), other)
    pd.testing.assert_frame_equal(predict(output, f"run={way.path}", "name=folder"), other)
    ledger = read_ledger(output / "submissions" / "ledger.csv")
    score = RunFolder(run_of(output, "swap")).fold(0).metrics()["log_loss"]
    assert [line.oof_log_loss for line in ledger] == [
        pytest.approx(one) if one else None for one in (score, None, score, score)
    ]
    assert [line.asked for line in ledger] == ["", *["SwapAveraged"] * 3]
    assert ledger[1].file == f"once_{way.path.name}.csv"
    assert {line.run for line in ledger[1:]} == {str(run_of(output, "once"))}
    assert way.path.name in table
    with pytest.raises(UserError, match=f"{way.path} is .*once asked in a way of its own; leave .* or give run="):
        predict(output, f"run={way.path}", "max_tokens=99")


def test_an_asked_way_is_read_as_a_run_and_goes_when_the_fold_is_trained_again(output, tmp_path):
    folder = run_of(output, "once")
    ask_run(output, "once", *WAYS["swap"])
    own, asked = asked_runs(folder)
    assert (own.folder, asked.folder) == (folder, RunFolder(folder).ways[0].path)
    assert own.oof["id"].tolist() == asked.oof["id"].tolist()
    assert own.data == asked.data
    assert [run.folder for run in read_runs(folder)] == [folder, asked.folder]
    compared = [{cell.variant for cell in read_cells([folder], by)} for by in ("inference", "adapter")]
    assert compared == [{"Once", "SwapAveraged"}, {""}]
    assert len(read_cells([folder], "adapter")) == 1
    copy = shutil.copytree(asked.folder, tmp_path / "copy")
    train(output, "name=once", "overwrite=true")
    assert RunFolder(folder).ways == []
    shutil.copytree(copy, asked.folder, dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"was answered by another training of .*once; remove it, and ask again"):
        read_runs(folder)
    ask_run(output, "once", *WAYS["swap"])
    assert len(asked_runs(folder)) == 2


def test_a_gate_of_swapped_pairs_is_chosen_out_of_fold_and_scored_by_its_own_answers(output, capsys):
    """Fixed thresholds at their ends give the numbers of one order and of both; gate.json those of its own rows."""
    folder = run_of(output, "once")
    for threshold, other in ((0.0, "once"), (1.01, "swap")):
        ask_run(output, "once", "inference=adaptive_swap", f"inference.min_top1={threshold}", "inference.min_margin=0")
        (way,) = (way for way in RunFolder(folder).ways if way.fold(0).config()["inference"]["min_top1"] == threshold)
        own = RunFolder(run_of(output, other)).fold(0).metrics()
        assert way.fold(0).metrics()["log_loss"] == pytest.approx(own["log_loss"], abs=1e-6)
        assert way.fold(0).metrics()["share_swapped"] == (threshold > 0)
        shutil.rmtree(way.path)
    gate([f"run={folder}", "max_share=0.6", "tolerance=0"])
    printed = capsys.readouterr().out
    assert "predict.py uses these thresholds with inference=adaptive_swap" in printed
    assert (folder / "gate.png").stat().st_size > 10_000
    (way,) = RunFolder(folder).ways
    saved = way.fold(0).metrics()
    assert f"{saved['log_loss']:.4f}" in printed
    assert saved["num_prompt_tokens"] >= RunFolder(folder).fold(0).metrics()["num_prompt_tokens"]
    assert "this way was asked before" in print_ask(output, capsys, "inference=adaptive_swap")
    predict(output, f"run={folder}", "inference=adaptive_swap", "inference.min_top1=0.3")
    (line,) = read_ledger(output / "submissions" / "ledger.csv")
    assert (line.asked, line.oof_log_loss) == ("gate AdaptiveSwap", pytest.approx(saved["log_loss"]))
    with pytest.raises(UserError, match=r"gate\.json were chosen on these rows"):
        ask_run(output, "once", "inference=adaptive_swap", again=True)


def print_ask(output: Path, capsys, *overrides: str) -> str:
    ask_run(output, "once", *overrides)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["inference=rotated"], "inference=RotationAveraged needs options"),
        (["inference=retrieval"], "inference=WithPassages needs options"),
        (["inference=few_shot", "inference.num_demonstrations=0"], "num_demonstrations"),
    ],
)
def test_a_way_that_does_not_fit_leaves_nothing(output, overrides, line):
    with pytest.raises(UserError, match=line) as error:
        ask_run(output, "once", *overrides)
    assert "\n" not in str(error.value)
    assert not (run_of(output, "once") / "asked").exists()


def test_a_final_model_and_open_answers_are_refused(output):
    run = run_of(output, "once")
    (run / "fold0").rename(run / "all")
    metrics = run / "all" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"fold": "all", "sealed": None}))
    with pytest.raises(UserError, match="was trained on all rows, none is held out"):
        ask_run(output, "once", *WAYS["swap"])
