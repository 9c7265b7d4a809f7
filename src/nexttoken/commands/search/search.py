"""The course of a search: the default first, then trials by what the finished ones say, fold after fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from nexttoken.build import build, plain
from nexttoken.commands import sweep
from nexttoken.commands.forecast import duration
from nexttoken.commands.search.journal import Journal, open_journal
from nexttoken.commands.search.space import Space, space_of
from nexttoken.commands.search.trial_tables import print_end
from nexttoken.commands.sweep import Job
from nexttoken.commands.terminal import stop
from nexttoken.data.checked_settings import check_settings, validated
from nexttoken.data.packages import require
from nexttoken.data.run_names import default_name
from nexttoken.errors import UserError
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.settings import INCIDENTAL, Checked, Settings
from nexttoken.types import Metric

Launch = Callable[[Sequence[Sequence[str]]], None]


class SearchSettings(Checked):
    """The keys of `sweep` in conf/sweep/search.yaml."""

    trials: PositiveInt
    folds: list[NonNegativeInt] = Field(min_length=1)
    seeds: PositiveInt
    startup: PositiveInt
    prune: bool


class SearchConfig(Checked):
    """The node with its key, by which errors name the settings."""

    sweep: SearchSettings


@dataclass(frozen=True)
class Search:
    """A search with its journal, and `launch`, which runs jobs given by their overrides."""

    journal: Journal
    space: Space
    settings: SearchSettings
    metric: Metric
    launch: Launch

    def run(self) -> None:
        """Run trials until there are `settings.trials`. Raises UserError where the default cannot be trained."""
        while True:
            with self.journal.claimed(self.settings.trials) as trial:
                if trial is None:
                    return
                self._run(trial)

    def run_jobs(self, overrides: Sequence[Sequence[str]]) -> list[Job]:
        """Run jobs; return them as finished or failed, in order."""
        before = len(sweep.JOBS)
        self.launch(overrides)
        return [self._checked(job) for job in sweep.JOBS[before:]]

    def _run(self, trial: Any) -> None:
        jobs: list[Job] = []
        for step, fold in enumerate(self.space.folds):
            jobs += self.run_jobs([[*self.space.overrides(trial.params), f"fold={fold}"]])
            if jobs[-1].error and trial.number == 0:
                raise UserError(f"the default configuration fails ({jobs[-1].error}); mend it, then search around it")
            if jobs[-1].error:
                self.journal.finish(trial, "fail", jobs)
                return
            is_worse = self.journal.report(trial, step, mean_score(jobs))
            if is_worse and self.settings.prune and trial.number and step < len(self.space.folds) - 1:
                self.journal.finish(trial, "pruned", jobs)
                self._show(trial, f"pruned after {step + 1} of {len(self.space.folds)} folds")
                return
        self.journal.finish(trial, "complete", jobs, mean_score(jobs))
        self._show(trial, f"{jobs[0].metric} {mean_score(jobs):.4f} over {len(jobs)} folds")

    def _checked(self, job: Job) -> Job:
        """The job, as failed where it has no score by the metric of the search."""
        if job.error or (job.score is not None and job.score == job.score and self._is_ours(job)):
            return job
        return Job(job.title, job.run, job.fold, error=f"it has no score by {self.metric.title}")

    def _is_ours(self, job: Job) -> bool:
        return job.metric.removeprefix("dev ") == self.metric.title

    def _show(self, trial: Any, result: str) -> None:
        best = self.journal.study.best_trial
        known = f"best {best.value:.4f} of trial {best.number}"
        left = self.settings.trials - trial.number - 1
        time_left = f", {left} to go: about {duration(self.journal.trial_seconds() * left)}" if left else ""
        print(f"trial {trial.number}: {result}; {known}{time_left}", flush=True)


def run_search(overrides: Sequence[Any], settings: Any, compose: Callable[..., Any], launch: Launch) -> None:
    """Search the space of parsed `overrides` (Hydra's) and print what was found.

    `compose` gives a job's configuration and some of its values, `launch` runs jobs. Ends with status 1 where trainings
    failed. Raises UserError before any training where optuna is missing, or the space or a setting does not fit.
    """
    require("sweep=search", "optuna")
    names = [*SearchSettings.model_fields]
    checked = validated(SearchConfig, {"sweep": {name: settings[name] for name in names}}).sweep
    space = space_of(overrides, checked.folds, own=["sweep", *(f"sweep.{name}" for name in names)])
    for fold in space.folds:
        config, values = compose([*space.fixed, f"fold={fold}"], [*space.dimensions])
        check_settings(Settings, plain(config))
    for params in space.examples:
        check_settings(Settings, plain(compose([*space.overrides(params), f"fold={space.folds[0]}"])[0]))
    plain_config = plain(config)
    parts = build(plain_config)
    metric = next(iter(getattr(parts.task, "metrics", ())), LOG_LOSS)
    default = {key: found for key, one in space.dimensions.items() if (found := one.of(values[key])) is not None}
    default = default if len(default) == len(space.dimensions) else {}
    described = description(plain_config, space, checked)
    folder = Path(plain_config["output_dir"]) / parts.task.name / "searches" / search_name(plain_config, space)
    journal = open_journal(folder, space, default, metric.higher_is_better, described, checked.startup)
    search = Search(journal, space, checked, metric, launch)
    search.run()
    failed = print_end(search)
    sweep.JOBS.clear()  # they are no grid, whose end would follow
    if failed:
        stop(failed, 1)


def mean_score(jobs: Sequence[Job]) -> float:
    return fmean(job.score for job in jobs if job.score is not None)


def description(config: Mapping[str, Any], space: Space, settings: SearchSettings) -> dict[str, Any]:
    """The settings on which the trials of a search depend."""
    fixed = {key: value for key, value in config.items() if key not in INCIDENTAL}
    return {
        **fixed,
        "space": {key: repr(one.distribution) for key, one in space.dimensions.items()},
        "folds": list(space.folds),
        "sweep": {"startup": settings.startup, "prune": settings.prune},
    }


def search_name(config: Mapping[str, Any], space: Space) -> str:
    """The given name, else one after the data, the fixed settings and the searched keys."""
    if config["name"]:
        return str(config["name"])
    keys = [f"{key.lstrip('+').rpartition('.')[2]}" for key in space.dimensions]
    return "-".join([default_name(config["input_dir"], space.fixed), *keys])
