"""Pages of folders with missing, earlier, edited and damaged files: a page is made, and says what is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.page_runs import write_sample_run
from nexttoken.commands.page import main
from nexttoken.errors import UserError
from nexttoken.report.page.page_file import Written, write_page
from support.finished_runs import damage, unseal

FILES = ("metrics.json", "config.yaml", "data.sha256", "oof.csv", "rows.csv", "curve.csv")
CONTENTS = {"empty": "", "other": "a,b\n1,2\n", "bytes": b"\xff\xfe\x00\x80", "folder": None}
EARLIER = {  # keys of metrics.json that versions before this one did not write
    "kind": ("metric", "is_quiz", "has_published_scores", "baselines"),
    "scores": ("accuracy", "expected_calibration_error", "best_possible_log_loss", "chance_accuracy", "prior_accuracy"),
    "costs": ("num_prompt_tokens", "train_seconds", "seconds", "rows_per_second", "peak_memory_mb", "num_truncated"),
    "sizes": ("num_parameters", "num_prompt_tokens", "device", "precision", "batch_tokens", "num_train_rows"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Two runs of three folds of 30 judgements."""
    folder = tmp_path_factory.mktemp("sound")
    data = folder / "data"
    data.mkdir()
    rows = pd.read_csv("input/sample-preferences/train.csv", dtype=str)[:90]
    rows.to_csv(data / "train.csv", index=False)
    shutil.copy("input/sample-preferences/test.csv", data)
    for name, skill in (("good", 1.6), ("poor", 0.8)):
        task = ("task=lmsys", f"input_dir={data}", "split.num_folds=3")
        write_sample_run(folder / "lmsys" / name, *task, skill=skill, num_folds=3)
    return folder / "lmsys"


@pytest.fixture
def runs(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "lmsys"))


def page_of(runs: Path, every_row: bool = False) -> tuple[str, Written]:
    written = write_page(runs, runs / "page.html", runs / "ledger.csv", every_row)
    return written.path.read_text(encoding="utf-8"), written


def test_sound_runs_leave_nothing_out(runs):
    page, written = page_of(runs)
    assert not written.unread
    assert "Not shown" not in page


@pytest.mark.parametrize("content", ["other", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_sealed_fold_is_named_and_the_rest_is_shown(runs, name, content):
    damage(runs / "poor" / "fold1" / name, CONTENTS[content])
    page, written = page_of(runs)
    if name != "curve.csv" or written.unread:  # curves are not sealed; an empty one counts as none
        assert [one.folder.name for one in written.unread] == ["fold1"]
        assert name in written.unread[0].reason
    assert "good" in page


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", [*FILES, "../folds.csv"])
def test_a_damaged_file_of_a_fold_without_a_seal_ends_no_page(runs, name, content):
    unseal(runs / "poor" / "fold1")
    damage(runs / "poor" / "fold1" / name, CONTENTS[content])
    page, _ = page_of(runs)
    assert "good" in page


@pytest.mark.parametrize("name", [*FILES, "../folds.csv"])
def test_a_file_that_an_earlier_version_did_not_write_ends_no_page(runs, name):
    for fold in sorted((runs / "poor").glob("fold?")):
        unseal(fold)
        (fold / name).unlink(missing_ok=True)
    page, written = page_of(runs)
    assert "good" in page
    assert "poor" in page
    if name in ("metrics.json", "config.yaml", "oof.csv"):
        assert len(written.unread) == 3


@pytest.mark.parametrize("kind", EARLIER)
def test_metrics_of_an_earlier_version_are_shown(runs, kind):
    for path in runs.glob("*/fold?/metrics.json"):
        unseal(path.parent)
        metrics = json.loads(path.read_text(encoding="utf-8"))
        left = {key: value for key, value in metrics.items() if key not in EARLIER[kind]}
        path.write_text(json.dumps(left), encoding="utf-8")
    page, written = page_of(runs)
    assert not written.unread
    assert "poor" in page


def test_a_fold_that_is_missing_leaves_the_others(runs):
    shutil.rmtree(runs / "poor" / "fold1")
    page, written = page_of(runs)
    assert not written.unread
    assert "poor" in page


def test_rows_there_twice_are_named(runs):
    path = runs / "poor" / "fold1" / "oof.csv"
    unseal(path.parent)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    _, written = page_of(runs)
    assert [one.folder.name for one in written.unread] == ["fold1"]
    assert "twice" in written.unread[0].reason or "more than once" in written.unread[0].reason


def test_rows_of_two_folds_are_named(runs):
    shutil.rmtree(runs / "poor" / "fold1")
    shutil.copytree(runs / "poor" / "fold0", runs / "poor" / "fold1")
    path = runs / "poor" / "fold1" / "metrics.json"
    unseal(path.parent)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"fold": 1}), encoding="utf-8")
    _, written = page_of(runs)
    assert "more than one fold" in " ".join(one.reason for one in written.unread)


def test_data_that_is_gone_or_changed_is_named(runs, sound):
    for run in runs.iterdir():
        for path in run.glob("fold?/config.yaml"):
            unseal(path.parent)
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(str(sound.parent / "data"), "/nowhere"), encoding="utf-8")
    page, written = page_of(runs)
    assert not written.unread
    assert "poor" in page


@pytest.mark.parametrize("content", ["a,b\n1,2\n", b"\xff\xfe\x00\x80", None])
def test_a_ledger_that_cannot_be_read_ends_no_page(runs, content):
    damage(runs / "ledger.csv", content)
    page, _ = page_of(runs)
    assert "ledger.csv" in page


ODD_NAMES = (
    "a b'c",
    'quo"te',
    "<script>alert(1)<",
    "日本語",
    "a&amp;b",
    "#x?y=1%20",
    "{{ 1 }}",
    "\u202egnol",
    "x" * 200,
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_runs_are_only_text(runs, name):
    (runs / "poor").rename(runs / name)
    page, written = page_of(runs)
    assert not written.unread
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_a_folder_without_runs_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(UserError):
            main([str(path)])


def test_a_page_that_cannot_be_written_is_refused_and_a_missing_folder_is_made(runs):
    (runs / "file").write_text("x")
    with pytest.raises(OSError, match="file"):  # commands print it in one line
        main([str(runs), f"out={runs / 'file' / 'page.html'}"])
    main([str(runs), f"out={runs / 'new' / 'page.html'}"])
    assert (runs / "new" / "page.html").stat().st_size > 1000


NASTY = (
    "<script>alert(1)</script>",
    "</script><!--",
    "javascript:alert(1)",
    "a\u202eb",
    "x" * 200_000,
    "{{ 7*7 }}",
    "\0",
)


def test_nasty_texts_are_harmless_and_cut(tmp_path):
    rows = pd.read_csv("input/sample-preferences/train.csv", dtype=str)[:90]
    for place, text in enumerate(NASTY):
        for column in ("prompt", "response_a", "response_b"):
            rows.loc[place, column] = json.dumps([text])
    rows.to_csv(tmp_path / "train.csv", index=False)
    shutil.copy("input/sample-preferences/test.csv", tmp_path)
    task = ("task=lmsys", f"input_dir={tmp_path}")
    write_sample_run(tmp_path / "runs" / "a", *task, num_folds=5)
    for every_row in (False, True):
        page, written = page_of(tmp_path / "runs", every_row)
        assert "<script>alert" not in page
        assert page.count("</script") == page.count("<script")
        assert "\u202e" not in page
        assert every_row or written.size < 1e6


def test_probabilities_of_nothing_but_one_class_end_no_page(runs):
    """A constant answer: no spread of confidence, ties everywhere."""
    for fold in sorted((runs / "poor").glob("fold?")):
        unseal(fold)
        table = pd.read_csv(fold / "oof.csv", dtype={"id": str})
        table.iloc[:, 3:] = [1.0, 0.0, 0.0]
        table["label"] = 0
        table.to_csv(fold / "oof.csv", index=False)
        metrics = json.loads((fold / "metrics.json").read_text(encoding="utf-8"))
        loss = -float(np.log(1.0 - 1e-15))
        (fold / "metrics.json").write_text(json.dumps(metrics | {"log_loss": loss}), encoding="utf-8")
    page, written = page_of(runs)
    assert not written.unread
    assert "poor" in page
