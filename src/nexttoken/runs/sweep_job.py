"""A training or a prediction as a job of a sweep: the run that it goes on with, and the process that it needs."""

from dataclasses import dataclass, replace
from typing import Any

from nexttoken.build import Parts
from nexttoken.models.processes import NeedsOwnProcess, has_gpu
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.same_settings import run_with_settings
from nexttoken.settings import Settings


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep, in the process of the sweep."""

    own_process: bool | None = None  # None: where it uses a GPU, whose memory is given back by a process that ends
    is_launched: bool = False  # by a launcher, which runs the jobs of the sweep elsewhere
    has_own_name: bool = False  # the sweep is over names: several runs of the same settings are wanted

    def in_known_run(self, parts: Parts, config: dict[str, Any]) -> Parts:
        """The parts with the name of a run that has their settings already, if there is one; `config` gets it, too."""
        settings = parts.settings
        if self.has_own_name or settings.overwrite:
            return parts
        config["name"] = run_with_settings(RunFolder.of(parts), settings.fold, config).path.name
        return replace(parts, settings=settings.model_copy(update={"name": config["name"]}))

    def refuse_unfit_process(self, settings: Settings) -> None:
        """Raise NeedsOwnProcess for a training that the sweep's process cannot do, or should not."""
        own, trainer = self.own_process, settings.trainer
        if own is None:
            own = not self.is_launched and trainer.accelerator != "cpu" and has_gpu()
        self.refuse_shared_process(trainer.devices, str(settings.name), own)

    def refuse_shared_process(self, num_devices: int, name: str | None = None, is_apart: bool = False) -> None:
        """Raise NeedsOwnProcess for several devices, for all that a launcher runs, and where `is_apart`.

        With several devices every process would do the whole sweep. `name` is that of the run.
        """
        if self.is_launched or num_devices > 1 or is_apart:
            raise NeedsOwnProcess(name, num_devices)
