"""A training or a prediction as a job of a sweep: the run that it goes on with, and the process that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from nexttoken.build import Parts
from nexttoken.errors import UserError
from nexttoken.models.processes import NeedsOwnProcess, has_gpu
from nexttoken.runs.folder import FOLD_NAME, FoldFolder, RunFolder, differences
from nexttoken.settings import Settings


def run_with_settings(own: RunFolder, number: int | str, config: Mapping[str, Any]) -> RunFolder:
    """The run `own`, or where it has none of these settings yet, the run beside it that has them under another name.

    Of several runs the first is taken that has finished the fold `number`, has begun it, or has other folds. A run that
    began before the data last changed is not among them: it may have learnt other rows.
    """
    if _matches(own, number, config):
        return own
    changed = max((path.stat().st_mtime for path in Path(config["input_dir"]).glob("*")), default=0.0)
    others = (RunFolder(path.parent) for path in sorted(own.path.parent.glob("*/folds.csv")) if path.parent != own.path)
    same = [run for run in others if _matches(run, number, config, changed)]
    return max(same, key=lambda run: _progress(run.fold(number)), default=own)


def _matches(run: RunFolder, number: int | str, config: Mapping[str, Any], since: float = 0.0) -> bool:
    """True where the run's fold of that number has these settings, or another of its folds where it has not begun."""
    own = run.fold(number).config_path
    paths = [own] if own.exists() else sorted(run.path.glob("*/config.yaml"))
    known = [path for path in paths if path == own or FOLD_NAME.fullmatch(path.parent.name)]
    if not known or known[0].stat().st_mtime < since:
        return False
    try:
        saved = _config(known[0], known[0].stat().st_mtime_ns)
    except UserError:  # a damaged folder is no run to go on with
        return False
    return not differences(saved, config)


def _progress(fold: FoldFolder) -> int:
    return 2 * fold.is_finished + fold.config_path.exists()


@cache
def _config(path: Path, _: int) -> dict[str, Any]:
    """The configuration at `path`, read once as long as the file stays the same."""
    return FoldFolder(path.parent).config()


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
