"""The sweeper of `sweep=search`; Hydra accepts one below `hydra_plugins` only, and imports this at each start."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SearchSweeper(Sweeper):
    """Runs a search instead of a grid: `params` and the command line say what is searched, `sweep.*` says how."""

    def __init__(self, max_batch_size: int | None = None, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Jobs are composed without sweep=..., and still are those of a sweep (-m) by this sweeper.
        ours = ("hydra.mode=MULTIRUN", f"hydra.sweeper._target_={type(self).__module__}.{type(self).__name__}")
        given = config.hydra.overrides.hydra
        config.hydra.overrides.hydra = [*given, *(one for one in ours if one not in given)]
        self._loader, self._config = hydra_context.config_loader, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Raises UserError where optuna is missing, or for a space or a setting that does not fit."""
        from nexttoken.commands.search.search import run_search

        parser = OverridesParser.create(config_loader=self._loader)
        typed = [f"{key}={value}" for key, value in self.params.items()] + arguments
        run_search(parser.parse_overrides(typed), self._config.sweep, self.compose, self.launch)

    def compose(self, overrides: Sequence[str], keys: Sequence[str] = ()) -> tuple[DictConfig, dict[str, Any]]:
        """The configuration of a job, without Hydra's own node, and its values of `keys`, None where it has none."""
        from nexttoken.commands.grid import without_hydra

        config = self._loader.load_sweep_config(self._config, [*overrides])
        choices = config.hydra.runtime.choices
        names = {key: key.lstrip("+") for key in keys}
        values = {key: choices.get(name, OmegaConf.select(config, name)) for key, name in names.items()}
        return without_hydra(config), values

    def launch(self, jobs: Sequence[Sequence[str]]) -> None:
        """Run jobs, each given by its overrides, with the launcher. Raises what a job raised."""
        for result in self._launcher.launch(jobs, initial_job_idx=0):
            _ = result.return_value
