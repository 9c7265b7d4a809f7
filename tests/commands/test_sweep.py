"""Sweeps: a line for each job, the others after one that failed, a table at the end, and a status that is not 0."""

import subprocess
import sys

import pytest

from nexttoken.commands import sweep
from nexttoken.commands.entry import describe_os_error
from nexttoken.data.files import write_json
from nexttoken.errors import UserError
from nexttoken.progress import UNANSWERED
from support.training import TINY


@pytest.fixture
def jobs(monkeypatch) -> list[sweep.Job]:
    monkeypatch.setattr(sweep, "JOBS", [])
    return sweep.JOBS


def job(work, *overrides: str):
    return sweep.run_job(overrides, work, describe_os_error)


def trained(run: str, fold: int, log_loss: float):
    def work() -> float:
        print(f"many lines\nrun: {run}/fold{fold}\nnext: python predict.py")
        return log_loss

    return work


def failing(error: BaseException):
    def work() -> float:
        raise error

    return work


def test_runs_and_folds_make_a_table_with_mean_and_spread(jobs, capsys):
    for run, fold, loss in (("a/x", 0, 1.0), ("a/x", 1, 2.0), ("a/y", 1, 0.5)):
        assert job(trained(run, fold, loss), f"fold={fold}") == loss
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "fold=0: log loss 1.0000, 0 s, run: a/x/fold0",
        "fold=1: log loss 2.0000, 0 s, run: a/x/fold1",
        "fold=1: log loss 0.5000, 0 s, run: a/y/fold1",
    ]
    assert [row.split() for row in sweep.table(jobs).replace("|", "").splitlines()[2:]] == [
        ["a/x", "1.0000", "2.0000", "1.5000", "±", "0.7071"],
        ["a/y", "–", "0.5000", "0.5000", "±", "–"],
    ]
    assert sweep.failures(jobs) == ""


def test_a_job_whose_time_was_up_does_not_end_the_others(jobs, capsys):
    job(failing(SystemExit(UNANSWERED)), "name=a")
    job(lambda: None, "name=b")
    assert sweep.failures(jobs) == "1 of 2 jobs failed: name=a (the time was up before a model had answered every row)"
    with pytest.raises(SystemExit):
        job(failing(SystemExit(143)), "name=c")


def test_a_task_with_a_metric_of_its_own_is_shown_by_it(jobs, capsys, tmp_path):
    scores = {"metric": "auc", "auc": 0.8, "log_loss": 0.6, "num_examples": 3}
    for fold, saved in enumerate((scores | {"auc": 0.75}, scores, scores | {"auc": None})):
        (tmp_path / "x" / f"fold{fold}").mkdir(parents=True)
        write_json(saved | {"fold": fold}, tmp_path / "x" / f"fold{fold}" / "metrics.json")
        job(trained(str(tmp_path / "x"), fold, 0.5), f"fold={fold}")
    shown = [line.partition(", 0 s")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["fold=0: AUC 0.7500", "fold=1: AUC 0.8000", "fold=2: log loss 0.5000"]
    of_auc, of_loss = sweep.table(jobs).split("\n\n")
    assert "AUC of" in of_auc
    assert "0.7750 ±" in of_auc
    assert "log loss of" in of_loss


@pytest.mark.parametrize(
    ("saved", "shown"),
    [
        ({"log_loss": 0.8, "dev_log_loss": 0.5}, "dev log loss 0.5000"),
        ({"log_loss": 0.5}, "log loss 0.5000"),
        ({"log_loss": 0.8, "dev_log_loss": 0.5, "metric": "auc", "auc": 0.7, "dev_auc": 0.9}, "dev AUC 0.9000"),
        ({"log_loss": 0.8, "dev_log_loss": 0.5, "metric": "auc", "auc": 0.7}, "AUC 0.7000"),
        ({"log_loss": 0.8, "dev_log_loss": 0.5, "metric": "auc", "auc": None}, "dev log loss 0.5000"),
    ],
)
def test_a_score_on_the_dev_rows_is_called_so(jobs, capsys, tmp_path, saved, shown):
    """A sweep returns the loss on the dev rows, and the held-out rows' is another number."""
    (tmp_path / "fold0").mkdir()
    write_json(saved | {"fold": 0, "num_examples": 3}, tmp_path / "fold0" / "metrics.json")
    job(trained(str(tmp_path), 0, 0.5), "fold=0")
    assert capsys.readouterr().out.startswith(f"fold=0: {shown}, 0 s")
    assert f"{shown.rsplit(' ', 1)[0]} of" in sweep.table(jobs)


def test_every_kind_of_failure_is_a_line_and_the_next_job_runs(jobs, capsys):
    job(failing(UserError("fold=7 does not exist")), "fold=7")
    job(failing(FileNotFoundError(2, "No such file", "x.csv")), "fold=8")
    job(failing(ZeroDivisionError("by\nzero")), "fold=9")
    job(trained("a/x", 1, 0.5), "fold=1")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    failed = [line for line in err.splitlines() if line.startswith("fold=")]
    assert failed[0] == "fold=7: failed: fold=7 does not exist"
    assert failed[1].startswith("fold=8: failed: x.csv: No such file; give another path")
    assert failed[2] == "fold=9: failed: ZeroDivisionError: by zero"
    assert "Traceback" in err, "a crash shows where it was"
    line = sweep.failures(jobs)
    assert line.startswith("3 of 4 jobs failed: fold=7 (fold=7 does not exist), fold=8 (x.csv")
    assert "\n" not in line
    with pytest.raises(KeyboardInterrupt):
        job(failing(KeyboardInterrupt()), "fold=2")


def test_jobs_without_a_score_have_no_table(jobs, capsys):
    job(lambda: print("submission: s/x.csv, 2 rows, validated"), "run=a")
    assert capsys.readouterr().out == "run=a: 0 s, submission: s/x.csv, 2 rows, validated\n"
    assert sweep.table(jobs) == ""


@pytest.mark.slow
def test_a_sweep_trains_what_it_can(repository, tmp_path):
    overrides = [*TINY, "limit_rows=8", "trainer.max_epochs=0", "logger=none", f"output_dir={tmp_path}"]
    call = [sys.executable, "train.py", "-m", "fold=0,7", "seed=0,1", "fit.learning_rate=2e-3", *overrides]
    done = subprocess.run(call, capture_output=True, text=True, cwd=repository, timeout=240)
    assert done.returncode == 2
    names = [path.parent.parent.name for path in sorted(tmp_path.glob("lmsys/*/fold0/metrics.json"))]
    assert names == ["tiny_seed-0", "tiny_seed-1"], "the given name tells the runs apart"
    assert done.stderr.splitlines()[-1].startswith("2 of 4 jobs failed: fold=7 seed=0 (fold=7 does not exist")
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["fold=0 seed=0", "fold=0 seed=1"]
    assert "mean ± spread" in lines[3]
    assert len(lines) == 7
