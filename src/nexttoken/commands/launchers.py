"""Launchers: the jobs of a sweep at once on this machine, on SLURM or on Ray, each a command of its own."""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from shutil import which
from typing import Any, Protocol

from nexttoken.commands import sweep
from nexttoken.commands.own_process import Call, Ended, end_calls, passed_environment
from nexttoken.data.packages import require
from nexttoken.errors import UserError, one_line
from nexttoken.models.machine_shares import divide_machine

POLL_SECONDS = 1.0


class Launcher(Protocol):
    def run(self, calls: Sequence[Call]) -> Iterator[tuple[int, Ended]]:
        """Run the calls, and yield the place of each as it ends."""
        ...


def launcher_of(by: str, settings: Mapping[str, Any]) -> Launcher:
    """The launcher of that name. Raises UserError where its package, or what it talks to, is missing."""
    if by == "joblib":
        return Here(**settings)
    require(f"launcher={by}", by)
    return Slurm(settings) if by == "submitit" else Ray(**settings)


def run_waiting(launcher: Launcher, results: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Run the jobs that wait among the `results` of a sweep's jobs, and yield the place and result of each.

    Their lines are printed as they end; afterwards the sweep has them in their order.
    """
    waiting = {place: one for place, one in enumerate(results) if isinstance(one, sweep.Waiting)}
    places = list(waiting)
    try:
        for number, ended in launcher.run([one.call for one in waiting.values()]) if waiting else ():
            one = waiting[places[number]]
            yield places[number], sweep.finish(one.job, ended, one.total)
    except BaseException:
        end_calls()
        raise
    sweep.JOBS.sort(key=lambda job: job.began)


@dataclass(frozen=True)
class Here:
    """Several jobs at once on this machine, each with GPUs of its own, or without any with a share of the cores."""

    n_jobs: int

    def __post_init__(self) -> None:
        if self.n_jobs < 1:
            raise UserError(f"launcher.n_jobs={self.n_jobs}: expected at least 1")

    def run(self, calls: Sequence[Call]) -> Iterator[tuple[int, Ended]]:
        from joblib import Parallel, delayed

        free: SimpleQueue[dict[str, str]] = SimpleQueue()
        for share in self._shares(max(call.devices for call in calls)):
            free.put(share)

        def run(place: int, call: Call) -> tuple[int, Ended]:
            share = free.get()
            try:
                return place, call(share)
            finally:
                free.put(share)

        threads = Parallel(self.n_jobs, backend="threading", return_as="generator_unordered", pre_dispatch="all")
        yield from threads(delayed(run)(place, call) for place, call in enumerate(calls))

    def _shares(self, devices: int) -> list[dict[str, str]]:
        """The environment of each of the jobs at once. Raises UserError for fewer GPUs than they need."""
        try:
            parts = divide_machine(self.n_jobs * devices)
        except UserError:
            raise UserError(
                f"launcher.n_jobs={self.n_jobs} needs {self.n_jobs * devices} GPUs, and this machine has fewer;"
                " give a smaller n_jobs, or CUDA_VISIBLE_DEVICES= to use the CPU"
            ) from None
        groups = [parts[start : start + devices] for start in range(0, len(parts), devices)]
        key = "CUDA_VISIBLE_DEVICES"
        return [{key: ",".join(part[key] for part in group)} if key in group[0] else group[0] for group in groups]


class Slurm:
    """Each job a job of SLURM, by submitit: queued with the others, and submitted again when its time is up."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = {key: value for key, value in settings.items() if value is not None}
        self.cluster, self.folder = self.settings.pop("cluster"), Path(self.settings.pop("folder"))
        if self.cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster={self.cluster}: expected slurm or local")
        if self.cluster == "slurm" and not which("sbatch"):
            raise UserError(
                "launcher=submitit needs SLURM, and there is no sbatch on this machine; start it on one that submits"
                " jobs, or try it here with launcher.cluster=local"
            )

    def run(self, calls: Sequence[Call]) -> Iterator[tuple[int, Ended]]:
        from submitit import AutoExecutor

        settings = dict(self.settings)
        limit = {"slurm_max_num_timeout": settings.pop("slurm_max_num_timeout")}
        executor = AutoExecutor(self.folder, self.cluster, **limit)
        executor.update_parameters(name="nexttoken", **settings)
        with executor.batch():
            jobs = [executor.submit(call) for call in calls]
        running = dict(enumerate(jobs))
        while running:
            for place in [place for place, job in running.items() if job.done()]:
                yield place, _result_of(running.pop(place))
            time.sleep(POLL_SECONDS)


def _result_of(job: Any) -> Ended:
    """The result of a job of submitit, or the reason why it has none."""
    try:
        return job.result()
    except Exception as error:  # of its process, its machine or SLURM
        last = one_line(str(error).strip().splitlines()[-1])
        return Ended("", f"the job {job.job_id} has no result ({last}); its log is {job.paths.stderr}")


@dataclass(frozen=True)
class Ray:
    """Each job a task of a Ray cluster, which this command joins."""

    address: str
    num_cpus: int
    num_gpus: int | None
    max_retries: int

    def run(self, calls: Sequence[Call]) -> Iterator[tuple[int, Ended]]:
        import ray

        self._refuse_silent()
        try:
            environment = {"env_vars": passed_environment()}
            ray.init(self.address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except ConnectionError:
            raise UserError(self._no_cluster) from None
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        task = ray.remote(lambda call: call())
        running = {}
        for place, call in enumerate(calls):
            num_gpus = self.num_gpus if self.num_gpus is not None else call.devices * has_gpus
            options = {"num_cpus": self.num_cpus, "num_gpus": num_gpus, "max_retries": self.max_retries}
            running[task.options(**options).remote(call)] = place
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                ended = ray.get(done)
            except ray.exceptions.RayError as lost:
                ended = Ended("", f"Ray lost the job ({one_line(lost)})")
            yield running.pop(done), ended
        ray.shutdown()

    @property
    def _no_cluster(self) -> str:
        return (
            f"no cluster of Ray at {self.address}; start one with ray start --head, and on further machines with"
            " ray start --address=<the first machine>:6379"
        )

    def _refuse_silent(self) -> None:
        """Raise UserError where nobody answers at the address, for which Ray itself waits for minutes."""
        host, _, port = self.address.rpartition(":")
        if not port.isdigit():  # auto
            return
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError:
            raise UserError(self._no_cluster) from None
