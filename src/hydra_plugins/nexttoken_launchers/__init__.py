"""The launchers of conf/launcher/; Hydra accepts them below `hydra_plugins` only, and imports this at each start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


class SweepLauncher(BasicLauncher):
    """Goes through the jobs here, which tells the finished and the wrong ones, and runs the others elsewhere."""

    def __init__(self, by: str, **settings: Any) -> None:
        super().__init__()
        self.by, self.settings = by, settings

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. Raises UserError, before the first one, for a launcher that cannot work on this machine."""
        from nexttoken.commands.launchers import launcher_of, run_waiting

        launcher = launcher_of(self.by, self.settings)
        returns = super().launch(job_overrides, initial_job_idx)
        for place, result in run_waiting(launcher, [one.return_value for one in returns]):
            returns[place].return_value = result
        return returns


@dataclass
class JoblibSettings:
    """Several jobs at once on this machine."""

    _target_: str = "hydra_plugins.nexttoken_launchers.SweepLauncher"
    by: str = "joblib"
    n_jobs: int = 2


@dataclass
class SubmititSettings:
    """A job of SLURM for each job, as `submitit.AutoExecutor` takes its settings."""

    _target_: str = "hydra_plugins.nexttoken_launchers.SweepLauncher"
    by: str = "submitit"
    cluster: str = "slurm"
    folder: str = "${hydra.sweep.dir}/.submitit"
    timeout_min: int = 1440
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: int | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_constraint: str | None = None
    slurm_array_parallelism: int = 256
    slurm_max_num_timeout: int = 3


@dataclass
class RaySettings:
    """A task of Ray for each job."""

    _target_: str = "hydra_plugins.nexttoken_launchers.SweepLauncher"
    by: str = "ray"
    address: str = "auto"
    num_cpus: int = 1
    num_gpus: int | None = None
    max_retries: int = 3


for settings in (JoblibSettings, SubmititSettings, RaySettings):
    ConfigStore.instance().store(f"nexttoken_{settings.by}", settings, group="hydra/launcher", provider="nexttoken")
