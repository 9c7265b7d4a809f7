"""The command that blends runs: honest scores, a run folder like any other, and one line for runs that do not fit."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.commands.blend import main
from nexttoken.commands.calibrate import main as calibrate
from nexttoken.errors import UserError
from nexttoken.metrics.pooling import fit_weights, pool
from nexttoken.metrics.scaling import soften
from nexttoken.report.tables import runs_table
from nexttoken.runs.blend import member_folder, read_blend
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read import read_run, read_runs
from support.finished_runs import damage, write_run

NUM_ROWS = 400


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), NUM_ROWS)
    return probs, (rng.random(NUM_ROWS)[:, None] > probs.cumsum(axis=1)).sum(axis=1)


def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two predictors that know different halves of the truth, and the labels."""
    true, labels = drawn()
    one, other = (true + 0.5 * np.eye(3)[k] for k in (0, 1))
    return one / one.sum(axis=1, keepdims=True), other / other.sum(axis=1, keepdims=True), labels


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    one, other, labels = tables()
    return [write_run(tmp_path / name, probs, labels) for name, probs in (("a", one), ("b", other))]


def test_each_fold_has_the_weights_of_the_others(runs, capsys):
    main([f"runs={runs[0]},{runs[1]}", "of=probabilities"])
    one, other, labels = tables()
    folds, whole = np.arange(NUM_ROWS) % 4, np.array([one, other])
    blended = read_run(runs[0].parent / "blend")
    for fold in range(4):
        rest = folds != fold
        weights = fit_weights(whole[:, rest], labels[rest], "probabilities")
        expected = pool(whole[:, ~rest], weights, "probabilities")
        np.testing.assert_allclose(blended.folds[fold].oof.iloc[:, 3:].to_numpy(), expected, atol=1e-12)
    blend = read_blend(runs[0].parent / "blend")
    np.testing.assert_allclose([member.weight for member in blend.members], fit_weights(whole, labels, "probabilities"))
    assert [member.name for member in blend.members] == ["../a", "../b"]
    shown = capsys.readouterr().out
    gain = float(re.search(r"gain in log loss over .*: ([+-][\d.]+) \(95 %", shown)[1])
    losses = [read_run(run).score(blended.metric) for run in runs]
    assert gain == pytest.approx(min(losses) - blended.score(blended.metric), abs=1e-4)
    assert gain > 0
    assert all(f"{way}, {of}" in shown for way in ("equal weights", "fitted weights") for of in ("logits", "prob"))


def test_a_random_member_gets_no_weight_and_is_not_asked(tmp_path, runs, capsys):
    random = write_run(tmp_path / "c", drawn(9)[0], tables()[2])
    main([f"runs={runs[0]},{random},{runs[1]}"])
    weights = {member.name: member.weight for member in read_blend(tmp_path / "blend").members}
    assert weights.keys() == {"../a", "../b"}
    assert sum(weights.values()) == pytest.approx(1)


def test_a_blend_is_a_run_for_report_calibrate_and_another_blend(tmp_path, runs, capsys):
    main([f"runs={runs[0]},{runs[1]}", "name=both", "weights=equal"])
    folder = tmp_path / "both"
    saved = json.loads((folder / "fold2" / "metrics.json").read_text())
    assert (saved["fold"], saved["num_examples"], saved["trained"]) == (2, NUM_ROWS // 4, True)
    assert pd.read_csv(folder / "fold0" / "rows.csv")["seconds"].eq(1.0).all()
    assert "both" in runs_table(read_runs(tmp_path))
    calibrate([f"run={folder}"])
    main([f"runs={folder},{runs[0]}", "name=again"])
    assert read_blend(tmp_path / "again").members[0].name == "../both"


def asked_way(run: Path, name: str, probs: np.ndarray) -> Path:
    """The folder of the run's rows as they were answered in another way."""
    way = write_run(run / "asked" / name, probs, tables()[2])
    for fold in RunFolder(run).finished_folds():
        path = way / fold.path.name / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"answered_by": fold.training_id}))
    return way


def test_a_blend_of_asked_ways_lies_beside_the_run_and_needs_no_other_way(tmp_path, runs, capsys):
    way, broken = (asked_way(runs[0], name, tables()[1]) for name in ("swapped", "broken"))
    (broken / "fold1" / "metrics.json").write_text("{}")
    main([f"runs={way},{runs[0]}", "name=both"])
    assert [one.path.name for one in RunFolder(runs[0]).ways] == ["broken", "swapped"]
    assert [member.name for member in read_blend(tmp_path / "both").members] == ["../a/asked/swapped", "../a"]


def test_a_folder_with_a_comma_in_its_name_can_be_a_member(tmp_path, runs):
    folder = runs[0].rename(tmp_path / "a,b")
    main([f"runs= {runs[1]}/ ,{folder}", "weights=equal"])
    assert [member.name for member in read_blend(tmp_path / "blend").members] == ["../b", "../a,b"]


def test_a_calibrated_member_takes_part_with_its_calibrated_rows(tmp_path, capsys):
    true, labels = drawn()
    sharp = write_run(tmp_path / "sharp", soften(true, 0.3), labels)
    calibrate([f"run={sharp}"])
    assert (sharp / "calibration.json").exists()
    other = write_run(tmp_path / "other", tables()[0], labels)
    main([f"runs={sharp},{other}"])
    assert read_run(tmp_path / "blend").score(read_run(sharp).metric) < read_run(sharp).score(read_run(sharp).metric)
    (sharp / "calibration.json").unlink()
    blend = read_blend(tmp_path / "blend")
    assert blend.members[0].identity != ""
    with pytest.raises(UserError, match=r"sharp was trained or calibrated after .*blend was blended"):
        member_folder(blend.members[0], tmp_path / "blend")


def other_label(run: Path) -> None:
    path = run / "fold1" / "oof.csv"
    table = pd.read_csv(path)
    table.loc[0, "label"] = (table.loc[0, "label"] + 1) % 3
    table.to_csv(path, index=False)
    metrics = json.loads((run / "fold1" / "metrics.json").read_text())
    probs, labels = table.iloc[:, 3:].to_numpy(), table["label"].to_numpy()
    metrics["log_loss"] = float(-np.log(probs[np.arange(len(labels)), labels]).mean())
    (run / "fold1" / "metrics.json").write_text(json.dumps(metrics))


def test_a_row_of_another_label_is_named(runs):
    other_label(runs[1])
    with pytest.raises(UserError, match=r"differ in 1 rows in one of them, or with another label.*: row 1; name runs"):
        main([f"runs={runs[0]},{runs[1]}"])
    assert not (runs[0].parent / "blend").exists()


def test_other_folds_and_other_data_are_named(tmp_path, runs):
    one, _, labels = tables()
    fewer = write_run(tmp_path / "c", one, labels, num_folds=3)
    with pytest.raises(UserError, match="they differ in finished folds 0, 1, 2 and 0, 1, 2, 3"):
        main([f"runs={runs[0]},{fewer}"])
    for fold in range(4):
        metrics = json.loads((runs[1] / f"fold{fold}" / "metrics.json").read_text())
        (runs[1] / f"fold{fold}" / "metrics.json").write_text(json.dumps(metrics | {"dataset": "arena"}))
    with pytest.raises(UserError, match=r"differ in rows of arena \(lmsys\) and of sample \(lmsys\)"):
        main([f"runs={runs[0]},{runs[1]}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs={a}"], "expected two members or more"),
        (["runs=baseline,baseline_2"], "expected two members or more, and one run folder"),
        (["runs={a},{b}", "of=ranks"], "of=ranks orders the rows of two classes, and there are 3"),
        (["runs={a},{b}", "name=a"], "a exists already, it is no blend"),
        (["runs={a},{a}/gone"], "gone has no finished fold"),
        (["runs={a},{b}", "of=odds"], "of='odds' is not accepted"),
        (["runs={a},{b}", "name=a/b"], "expected a file name"),
    ],
)  # fmt: skip
def test_what_cannot_be_blended_is_one_line(runs, arguments, message):
    with pytest.raises(UserError, match=message):
        main([one.format(a=runs[0], b=runs[1]) for one in arguments])


def test_one_fold_is_blended_with_equal_weights_alone(tmp_path, capsys):
    one, other, labels = tables()
    folders = [write_run(tmp_path / name, probs, labels, 1) for name, probs in (("a", one), ("b", other))]
    with pytest.raises(UserError, match=r"has one finished fold.*\(weights=equal needs none\)"):
        main([f"runs={folders[0]},{folders[1]}"])
    main([f"runs={folders[0]},{folders[1]}", "weights=equal"])
    assert "fitted" not in capsys.readouterr().out


def test_an_earlier_blend_is_replaced_only_when_told_to(runs, capsys):
    arguments = [f"runs={runs[0]},{runs[1]}"]
    main(arguments)
    with pytest.raises(UserError, match="blend exists already, add overwrite=true"):
        main(arguments)
    main([*arguments, "overwrite=true", "weights=equal"])
    folder = runs[0].parent / "blend"
    assert {member.weight for member in read_blend(folder).members} == {0.5}
    damage(folder / "blend.json", (folder / "blend.json").read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match="was changed after the weights were chosen"):
        read_blend(folder)


def test_commands_that_need_a_model_name_the_members(runs, capsys):
    main([f"runs={runs[0]},{runs[1]}"])
    with pytest.raises(UserError, match=r"is a blend and has no model of its own; name one of its members: \.\./a"):
        LoadedRun.load(RunFolder(runs[0].parent / "blend"))


def test_a_copy_gains_nothing(tmp_path, capsys):
    one, _, labels = tables()
    folders = [write_run(tmp_path / name, one, labels) for name in ("a", "b")]
    main([f"runs={folders[0]},{folders[1]}"])
    shown = capsys.readouterr().out
    assert f"gain in log loss over {folders[0]}: +0.0000 (95 % interval +0.0000 to +0.0000)" in shown
