"""Sweeps: a line for each job, the others after one that failed, the best at the end, and a status that is not 0."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hydra.types import RunMode
from scipy.stats import ttest_1samp

from nexttoken.commands import sweep, sweep_end
from nexttoken.commands.entry import compose_entry
from nexttoken.commands.own_process import Ended
from nexttoken.data.files import write_json
from nexttoken.errors import UserError
from nexttoken.progress import UNANSWERED
from support.composed import CONF
from support.finished_runs import write_finished_fold
from support.training import TINY

CHOICES = [f"{group}={path.stem}" for group in ("sweep", "launcher") for path in CONF.glob(f"{group}/*.yaml")]


@pytest.fixture
def jobs(monkeypatch) -> list[sweep.Job]:
    monkeypatch.setattr(sweep, "JOBS", [])
    return sweep.JOBS


@pytest.mark.parametrize("choice", CHOICES)
def test_a_file_of_a_sweep_or_launcher_makes_a_sweep_without_the_option(repository, choice):
    config = compose_entry(repository / "train.py", [choice], return_hydra_config=True)
    assert config.hydra.mode == RunMode.MULTIRUN


def job(work, *overrides: str):
    return sweep.run_job(overrides, work)


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
        "job 1: fold=0: log loss 1.0000, 0 s, run: a/x/fold0",
        "job 2: fold=1: log loss 2.0000, 0 s, run: a/x/fold1",
        "job 3: fold=1: log loss 0.5000, 0 s, run: a/y/fold1",
    ]
    assert [row.split() for row in sweep_end.page(jobs).replace("|", "").splitlines()[2:4]] == [
        ["a/x", "1.0000", "2.0000", "1.5000", "±", "0.7071"],
        ["a/y", "–", "0.5000", "0.5000", "±", "–"],
    ]
    assert sweep.failures(jobs) == ""


def test_a_run_of_the_same_settings_under_another_name_is_said(jobs, monkeypatch, capsys):
    typed = ["name='x y'", "fold=0,1", "seed=0,1"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *typed])
    for run, fold, seed in (("a/x-y_seed-0", 0, 0), ("a/other", 1, 1)):
        named = [f"fold={fold}", f"seed={seed}"]
        sweep.run_job(named, trained(run, fold, 1.0), ["name='x y'", *named])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("run: a/x-y_seed-0/fold0")
    assert second.endswith("run: a/other/fold1 (it has the same settings, so name=x-y_seed-1 is not used)")


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
    shown = [line.partition(", finished before")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["job 1: fold=0: AUC 0.7500", "job 2: fold=1: AUC 0.8000", "job 3: fold=2: log loss 0.5000"]
    page = sweep_end.page(jobs)
    assert page.index("AUC of") < page.index("0.7750 ±") < page.index("log loss of"), "two tables, of one metric each"


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
    assert capsys.readouterr().out.startswith(f"job 1: fold=0: {shown}, finished before")
    assert f"{shown.rsplit(' ', 1)[0]} of" in sweep_end.page(jobs)


def test_every_kind_of_failure_is_a_line_and_the_next_job_runs(jobs, capsys):
    job(failing(UserError("fold=7 does not exist")), "fold=7")
    job(failing(FileNotFoundError(2, "No such file", "x.csv")), "fold=8")
    job(failing(ZeroDivisionError("by\nzero")), "fold=9")
    job(trained("a/x", 1, 0.5), "fold=1")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    failed = [line for line in err.splitlines() if line.startswith("job ")]
    assert failed[0] == "job 1: fold=7: failed: fold=7 does not exist"
    assert failed[1].startswith("job 2: fold=8: failed: x.csv: No such file; give another path")
    assert failed[2] == "job 3: fold=9: failed: ZeroDivisionError: by zero"
    assert "Traceback" in err, "a crash shows where it was"
    line = sweep.failures(jobs)
    assert line.startswith("3 of 4 jobs failed: fold=7 (fold=7 does not exist), fold=8 (x.csv")
    assert "\n" not in line
    with pytest.raises(KeyboardInterrupt):
        job(failing(KeyboardInterrupt()), "fold=2")


def test_jobs_without_a_score_have_no_table(jobs, capsys):
    job(lambda: print("submission: s/x.csv, 2 rows, validated"), "run=a")
    assert capsys.readouterr().out == "job 1: run=a: 0 s, submission: s/x.csv, 2 rows, validated\n"
    sweep_end.print_end(jobs)
    assert capsys.readouterr().out == ""


def finished(run, fold: int, log_loss: float):
    """A job whose fold has files: of five folds, as folds.csv says."""
    folder = write_finished_fold(run, fold)
    saved = json.loads((folder / "metrics.json").read_text()) | {"log_loss": log_loss}
    write_json(saved, folder / "metrics.json")
    (run / "folds.csv").write_text("id,group,fold\n" + "".join(f"{n},{n},{n}\n" for n in range(5)))
    return trained(str(run), fold, log_loss)


def sweep_of_rates(task_dir, by_rate: dict[str, list[float]], seeds: int = 1) -> None:
    for rate, losses in by_rate.items():
        for number, loss in enumerate(losses):
            fold, seed = divmod(number, seeds)
            settings = [f"fit.learning_rate={rate}", f"seed={seed}"]
            named = [f"fold={fold}", *settings] if seeds > 1 else [f"fold={fold}", settings[0]]
            everything = ["name=mine", *named, "limit_rows=60"]
            run = finished(task_dir / f"mine_{rate}_{seed}", fold, loss)
            sweep.run_job(named, run, everything)


@pytest.mark.parametrize(
    ("second", "digits", "verdict"),
    [([0.91, 0.92, 0.89], 3, "beyond noise"), ([0.95, 0.80, 0.77], 2, "within noise")],
)
def test_the_best_is_a_sentence_with_its_distance_over_the_same_folds(jobs, tmp_path, second, digits, verdict):
    sweep_of_rates(tmp_path / "lmsys", {"0.001": second, "0.002": [0.80, 0.82, 0.80]})
    differences = np.array(second) - [0.80, 0.82, 0.80]
    interval = ttest_1samp(differences, 0).confidence_interval()
    ends = f"{interval.low:+.{digits}f} to {interval.high:+.{digits}f}"
    last = sweep_end.page(jobs).split("\n\n")[1]
    where = tmp_path / "lmsys" / "mine_0.002_0"
    assert last.startswith(
        f"Best: fit.learning_rate=0.002, log loss 0.8067 (95 % interval 0.778 to 0.835), the mean of 3 folds ({where})."
    )
    apart = f"{differences.mean():.{digits}f} worse on the 3 folds of both (95 % interval {ends}): {verdict}."
    assert last.endswith(f"Second: fit.learning_rate=0.001, {apart}")


def test_one_fold_says_nothing_of_noise_and_seeds_are_paired(jobs, tmp_path, capsys):
    sweep_of_rates(tmp_path / "lmsys", {"0.001": [0.9], "0.002": [0.8]})
    assert "0.1000 worse; one fold cannot say whether that is noise" in sweep_end.page(jobs)
    jobs.clear()
    sweep_of_rates(tmp_path / "seeds", {"0.001": [0.9, 0.91], "0.002": [0.8, 0.82]}, seeds=2)
    assert "the mean of 2 folds of 2 seeds" in sweep_end.page(jobs)
    sweep_end.print_end(jobs)
    own = "best: python train.py -m fold=0 seed=0,1 name=mine fit.learning_rate=0.002 limit_rows=60"
    assert own in capsys.readouterr().out
    assert "worse on the 2 folds of both" in sweep_end.page(jobs)


def test_the_next_commands_compare_train_the_other_folds_predict_and_show(jobs, tmp_path, capsys):
    task_dir = tmp_path / "lmsys"
    sweep_of_rates(task_dir, {"0.001": [0.9, 0.91], "0.002": [0.8, 0.82]})
    capsys.readouterr()
    sweep_end.print_end(jobs)
    best = task_dir / "mine_0.002_0"
    lines = capsys.readouterr().out.splitlines()
    (command,) = [line for line in lines if line.startswith("best: ")]
    assert command == "best: python train.py -m fold=0,1 name=mine fit.learning_rate=0.002 limit_rows=60"
    commands = [line for line in lines if line.startswith("next: ")]
    compared = f"python -m nexttoken compare {task_dir} by=fit.learning_rate"
    assert commands == [
        f"next: {compared}",
        "next: python train.py -m fold=2,3,4 fit.learning_rate=0.002 limit_rows=60 name=mine_0.002_0",
        f"next: python predict.py run={best}",
        f"next: python -m nexttoken page {task_dir}",
    ]
    write_finished_fold(task_dir / "other")
    assert sweep_end.next_commands(jobs)[0].split()[4:6] == [str(task_dir / f"mine_{r}_0") for r in ("0.001", "0.002")]


def test_a_job_that_failed_leaves_the_best_of_the_folds_that_both_have(jobs, tmp_path):
    sweep_of_rates(tmp_path / "lmsys", {"0.001": [0.9, 0.91], "0.002": [0.8]})
    job(failing(UserError("no memory")), "fold=1", "fit.learning_rate=0.002")
    page = sweep_end.page(jobs)
    assert "Best: fit.learning_rate=0.002, log loss 0.8000" in page
    assert sweep_end.AGAIN in page
    assert not any("compare" in command for command in sweep_end.next_commands(jobs)), "it wants the same folds"


def test_a_sweep_over_tasks_has_a_part_for_each_and_one_page(jobs, tmp_path):
    for task in ("lmsys", "quiz"):
        job(finished(tmp_path / task / "x", 0, 0.5), f"task={task}")
    page = sweep_end.page(jobs)
    assert [page.count(f"sample ({task})") for task in ("lmsys", "quiz")] == [1, 1]
    assert "Second" not in page, "scores of two tasks do not compare"
    commands = sweep_end.next_commands(jobs)
    assert [one.split()[:2] for one in commands] == [
        ["python", "train.py"], ["python", "predict.py"], ["python", "train.py"], ["python", "predict.py"],
        ["python", "-m"],
    ]  # fmt: skip
    assert commands[-1] == f"python -m nexttoken page {tmp_path}"


def test_the_time_left_is_that_of_the_jobs_that_trained(jobs, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sweep.time, "time", lambda: clock)
    clock = 10_000.0
    write_finished_fold(tmp_path / "x")
    os.utime(tmp_path / "x" / "fold0" / "metrics.json", (9_000, 9_000))
    sweep.run_job(["fold=0"], trained(str(tmp_path / "x"), 0, 0.5), total=4)
    begun = sweep.Job("fold=1", began=clock)
    clock += 300
    sweep.finish(begun, Ended("run: a/x/fold1"), 4, 0.5)
    sweep.finish(sweep.Job("fold=2", began=clock), Ended("", "no memory"), 4)
    sweep.finish(sweep.Job("fold=3", began=clock), Ended("run: a/x/fold3"), 4, 0.5)
    out, err = capsys.readouterr()
    ends = [line.rpartition(", ")[2] for line in out.splitlines()]
    assert ends == [f"run: {tmp_path}/x/fold0", "about 10 min left", "run: a/x/fold3"]
    assert "job 1 of 4: fold=0: log loss 1.0986, finished before" in out
    assert err == "job 3 of 4: fold=2: failed: no memory\n"


@pytest.mark.slow
def test_a_sweep_trains_what_it_can(repository, tmp_path):
    same = [one for one in TINY if not one.startswith("max_tokens=")]
    overrides = [*same, "limit_rows=8", "trainer.max_epochs=0", "logger=none", f"output_dir={tmp_path}"]
    swept = ["max_tokens=256,20", "seed=0,1"]  # that 20 tokens do not suffice is known once the rows are read
    call = [sys.executable, "train.py", "-m", *swept, "fit.learning_rate=2e-3", *overrides]
    done = subprocess.run(call, capture_output=True, text=True, cwd=repository, timeout=240)
    assert done.returncode == 1
    names = [path.parent.parent.name for path in sorted(tmp_path.glob("lmsys/*/fold0/metrics.json"))]
    assert names == ["tiny_max_tokens-256_seed-0", "tiny_max_tokens-256_seed-1"], "the given name tells the runs apart"
    assert done.stderr.splitlines()[-1].startswith("2 of 4 jobs failed: max_tokens=20 seed=0 (max_tokens=20 does not")
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": l")[0] for line in lines[:2]] == [
        "job 1 of 4: max_tokens=256 seed=0",
        "job 2 of 4: max_tokens=256 seed=1",
    ]
    assert "mean ± spread" in lines[3]
    assert lines[8].startswith("One variant, log loss ")
    assert "differ in the seed alone" in lines[8]
    folds = [line for line in lines if line.startswith("next: python train.py -m fold=1,2,3,4 ")]
    assert [line.rpartition(" ")[2] for line in folds] == [f"name={name}" for name in names]
    assert f"next: python predict.py run={tmp_path / 'lmsys' / names[0]}" in lines
    again = subprocess.run(
        [sys.executable, *shlex.split(folds[0].removeprefix("next: python "))[:1], "-m", "fold=0",
         *shlex.split(folds[0])[5:]],
        capture_output=True, text=True, cwd=repository, timeout=240,
    )  # fmt: skip
    assert again.returncode == 0, "the settings and the name of the command are those of the run"
