"""The sweeper of a grid; Hydra accepts one below `hydra_plugins` only, and imports this at each start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser


class GridSweeper(BasicSweeper):
    """Runs all combinations of the given values, once the settings of every job have been checked."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs. Raises UserError before the first one for too many, and where all have wrong settings."""
        from nexttoken.commands import sweep
        from nexttoken.commands.grid import check_jobs, num_jobs

        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        typed = [f"{key}={value}" for key, value in (self.params or {}).items()] + arguments
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(typed)
        sweep.TOTAL = num_jobs(overrides)
        (jobs,) = self.split_arguments(overrides, None)
        check_jobs(jobs, loader, self.config)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: Hydra would compose every job, which takes it a tenth of a second, and all were checked."""


@dataclass
class GridSettings(BasicSweeperConf):
    """A grid, as Hydra's own sweeper takes its settings."""

    _target_: str = "hydra_plugins.nexttoken_grid.GridSweeper"


ConfigStore.instance().store("nexttoken_grid", GridSettings, group="hydra/sweeper", provider="nexttoken")
