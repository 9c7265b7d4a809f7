"""Launchers run commands at once elsewhere, and each comes back with its output or its error."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nexttoken.commands.launchers import Here, Ray, launcher_of
from nexttoken.commands.own_process import Call
from nexttoken.errors import UserError
from support.training import TINY

SUBMITIT = {"cluster": "local", "timeout_min": 5, "slurm_max_num_timeout": 3, "mem_gb": None}
RAY = {"num_cpus": 1, "num_gpus": None, "max_retries": 3}
MEETING = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
while not other.exists():
    time.sleep(0.05)
print("met", own.name)
"""


def meeting(folder: Path) -> list[Call]:
    """Two commands that end only where both run at once, and one that fails."""
    a, b = (str(folder / name) for name in "ab")
    codes = {"a": (MEETING, a, b), "b": (MEETING, b, a), "c": ("import sys; sys.exit('no such fold')",)}
    where = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return [Call(name, (sys.executable, "-c", *code), str(folder), 1, where) for name, code in codes.items()]


def results(launcher, folder: Path) -> list[tuple[str, str]]:
    ended = dict(launcher.run(meeting(folder)))
    return [(ended[place].output, ended[place].error) for place in range(3)]


EXPECTED = [("met a\n", ""), ("met b\n", ""), ("", "no such fold")]


def test_jobs_run_at_once_on_this_machine(tmp_path):
    assert results(launcher_of("joblib", {"n_jobs": 2}), tmp_path) == EXPECTED


def test_each_job_gets_its_share_of_the_cores(tmp_path, monkeypatch):
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    try:
        torch.set_num_threads(4)
        code = "import os; print(os.environ['OMP_NUM_THREADS'])"
        ended = dict(Here(2).run([Call("a", (sys.executable, "-c", code), str(tmp_path), devices=2)] * 2))
        assert [ended[place].output for place in (0, 1)] == ["1\n", "1\n"], "four threads, two jobs of two processes"
    finally:
        torch.set_num_threads(threads)


def test_submitit_runs_jobs_by_its_local_executor(tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    launcher = launcher_of("submitit", SUBMITIT | {"folder": str(tmp_path / "jobs")})
    assert results(launcher, tmp_path) == EXPECTED


@pytest.mark.slow
def test_a_job_whose_process_is_killed_by_the_machine_is_an_error_with_its_log(tmp_path, monkeypatch):
    core = pytest.importorskip("submitit.core.core", reason="the extra slurm is not installed")
    monkeypatch.setattr(core.Job, "_results_timeout_s", 1)  # for which it waits for a slow file system
    launcher = launcher_of("submitit", SUBMITIT | {"folder": str(tmp_path / "jobs")})
    code = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    ((_, ended),) = launcher.run([Call("a", (sys.executable, "-c", code), str(tmp_path))])
    assert "has no result" in ended.error
    assert f"its log is {tmp_path / 'jobs'}" in ended.error
    assert len(ended.error.splitlines()) == 1


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_submitted_again(tmp_path):
    """SLURM's signal before the end, sent here by hand; the command's second start ends at once."""
    submitit = pytest.importorskip("submitit", reason="the extra slurm is not installed")
    import psutil

    begun = tmp_path / "begun"
    code = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.exists() and sys.exit('again'); p.touch(); "
    call = Call("a", (sys.executable, "-c", code + "time.sleep(60)", str(begun)), str(tmp_path))
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    job = executor.submit(call)
    while not begun.exists():
        time.sleep(0.05)
    (worker,) = psutil.Process(int(job.job_id)).children()
    worker.send_signal(signal.SIGUSR2)
    ended = job.result()
    assert (ended.error, ended.output) == ("again", "")


@pytest.mark.slow
def test_ray_runs_jobs_on_two_nodes(tmp_path):
    """Two nodes of one core each, so that the two jobs that wait for each other are on different ones."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        assert results(Ray(cluster.address, **RAY), tmp_path) == EXPECTED
    finally:
        cluster.shutdown()


@pytest.mark.parametrize(
    ("by", "settings", "line"),
    [
        ("joblib", {"n_jobs": 0}, "launcher.n_jobs=0: expected at least 1"),
        ("submitit", SUBMITIT | {"cluster": "pbs", "folder": "x"}, "launcher.cluster=pbs: expected slurm or"),
        ("submitit", SUBMITIT | {"cluster": "slurm", "folder": "x"}, "there is no sbatch on this machine"),
        ("submitit", None, "launcher=submitit needs the package submitit, which is not installed: pip install -e"),
        ("ray", None, "launcher=ray needs the package ray, which is not installed: pip install -e '.[ray]'"),
    ],
)
def test_what_a_launcher_lacks_is_one_line(monkeypatch, by, settings, line):
    if settings is None:
        monkeypatch.setitem(sys.modules, by, None)
        monkeypatch.setattr("nexttoken.data.packages.find_spec", lambda _: None)
    elif by == "submitit":
        pytest.importorskip("submitit", reason="the extra slurm is not installed")
        if shutil.which("sbatch"):
            pytest.skip("this machine has SLURM")
    with pytest.raises(UserError) as caught:
        launcher_of(by, settings or {})
    assert line in str(caught.value)


def test_a_cluster_of_ray_that_is_not_there_is_one_line_at_once():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(UserError, match=r"no cluster of Ray at 127.0.0.1:1; start one with ray start --head"):
        list(Ray("127.0.0.1:1", **RAY).run([Call("a", ("true",), "/")]))


@pytest.mark.slow
def test_two_trainings_at_once_and_an_interruption_of_both(repository, tmp_path):
    """Ctrl-C ends both jobs; the same command goes on with both, and names the job that fails beside them."""
    overrides = [*TINY, "logger=none", "trainer.accelerator=cpu", f"output_dir={tmp_path}", "fit.checkpoint_steps=1"]
    swept = ["seed=0,1", "model.name_or_path=null,/nowhere"]  # a model is looked for when its job begins
    call = [sys.executable, "train.py", "-m", "launcher=joblib", *swept, "trainer.max_epochs=12"]
    names = [f"tiny_seed-{seed}_name_or_path-null" for seed in (0, 1)]
    begun = [tmp_path / "lmsys" / name / "fold0" / "checkpoints" / "last.ckpt" for name in names]
    first = subprocess.Popen(
        [*call, *overrides], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not all(path.exists() for path in begun):
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted; the same command continues from the last checkpoint"
    done = subprocess.run([*call, *overrides], cwd=repository, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("job ")]
    assert len(lines) == 2
    assert all("log loss" in line for line in lines)
    assert done.stderr.splitlines()[-1].startswith("2 of 4 jobs failed: seed=0 model.name_or_path=/nowhere (")
    assert len(list(tmp_path.glob("lmsys/*/fold0/metrics.json"))) == 2
