"""The steps of a ladder: finished runs, their replicas over seeds together, each with the step that it builds on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.metrics.intervals import Interval
from nexttoken.report.ranking import Ranking, Scored
from nexttoken.report.whole_scores import columns_for, ranking_by
from nexttoken.runs.calibration import read_calibration
from nexttoken.runs.calibration_fit import calibrated, groups_of
from nexttoken.runs.folder import ASKED, FoldFolder, RunFolder, differences
from nexttoken.runs.scored_runs import Run, classes_of

STEP, BASE = "step", "base"  # the two sides of a gain


@dataclass(frozen=True)
class Step:
    """Runs that differ by their seed alone; `base` is the place of the step that it is compared with, if any."""

    runs: tuple[Run, ...]
    config: Mapping[str, Any] = field(repr=False)
    time: float  # when the first fold was finished
    is_calibrated: bool = False
    base: int | None = None

    @property
    def folder(self) -> Path:
        return self.runs[0].folder

    @property
    def of(self) -> Path | None:
        """The run that the step hangs on: it was asked in another way, or calibrated."""
        return self.folder if self.is_calibrated else self.folder.parent.parent if self.is_asked else None

    @property
    def is_asked(self) -> bool:
        return self.folder.absolute().parent.name == ASKED

    @property
    def name(self) -> str:
        """Of replicas the first run's name; an asked way after its run: `a asked swap_averaged`."""
        return self.runs[0].title + (", calibrated" if self.is_calibrated else "")

    @property
    def score(self) -> float:
        """The task's metric over all rows, the mean over seeds."""
        return sum(run.score(run.metric) for run in self.runs) / len(self.runs)

    def per_run(self, key: str) -> float | None:
        """A number in metrics.json summed over the folds, the mean over seeds; None where a fold lacks it."""
        values = [fold.metrics.get(key) for run in self.runs for fold in run.folds]
        return None if None in values or self.is_calibrated else sum(values) / len(self.runs)  # type: ignore[arg-type]

    @cached_property
    def folders(self) -> frozenset[Path]:
        return frozenset(run.folder.resolve() for run in self.runs)

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(self.runs[0].oof["id"])


@dataclass(frozen=True)
class Gain:
    """The lead of a step over its base on the rows that both scored; the interval is over groups and seeds."""

    value: float
    interval: Interval
    is_noise: bool

    @property
    def verdict(self) -> str:
        return "noise" if self.is_noise else "gain" if self.value > 0 else "worse"

    @classmethod
    def of(cls, step: Step, base: Step) -> "Gain":
        """With the seeds that both have, or without any each side's mean over its own."""
        ranking, sign = _ranking({STEP: step, BASE: base}), 1 if step.runs[0].metric.higher_is_better else -1
        interval = ranking.difference(0, 1)
        value = sign * float(ranking.values[0] - ranking.values[1])
        return cls(value, interval if sign > 0 else -interval, ranking.is_noise(0, 1))

    @classmethod
    def over(cls, level: float, step: Step) -> "Gain":
        """The lead over a score that is taken as known; the interval is that of the step's own score."""
        ranking, sign = _ranking({STEP: step}), 1 if step.runs[0].metric.higher_is_better else -1
        scored, leads = ranking.interval(0), sign * (ranking.by_seed[0] - level)
        interval = Interval(*sorted(sign * (end - level) for end in (scored.low, scored.high)))
        is_noise = 0 in interval or len({*np.sign(leads).tolist()}) > 1
        return cls(sign * (float(ranking.values[0]) - level), interval, is_noise)


def _ranking(steps: Mapping[str, Step]) -> Ranking:
    """The steps by the metric of the first one, on the rows that all have."""
    run = next(iter(steps.values())).runs[0]
    tables = {(name, seed_of(one)): _table(one) for name, step in steps.items() for one in step.runs}
    scored = Scored.of(tables, list(columns_for(run.metric, run.scored(run.metric))), same="label")
    return ranking_by(run.metric, scored)


def steps_of(runs: Sequence[Run]) -> list[Step]:
    """The steps of runs on one data set: by time, what hangs on a run behind it; each after what it builds on."""
    plain = sorted(_replicas([_step(run) for run in runs]), key=lambda step: (step.is_asked, step.time))
    calibrations = [replace(step, runs=after, is_calibrated=True) for step in plain if (after := _calibrated(step))]
    every = [*plain, *calibrations]
    ordered: list[Step] = []
    for step in every:
        if not _hangs_on(step, every):
            ordered += [step, *_hanging(step, every)]
    return [replace(step, base=_base(step, ordered[:place])) for place, step in enumerate(ordered)]


def seed_of(run: Run) -> int:
    return int(_config(run).get("seed") or 0)


def _config(run: Run) -> dict[str, Any]:
    """The configuration of its first fold; empty where an earlier version left none."""
    fold = FoldFolder(run.folds[0].folder)
    return fold.config() if fold.config_path.exists() else {}


def _step(run: Run) -> Step:
    times = [(fold.folder / "metrics.json").stat().st_mtime for fold in run.folds]
    return Step((run,), _config(run), min(times))


def _replicas(steps: Sequence[Step]) -> list[Step]:
    """Steps whose settings and rows differ by the seed alone, taken together; the first seed first."""
    grouped: list[list[Step]] = []
    for step in sorted(steps, key=lambda one: (one.time, seed_of(one.runs[0]))):
        seeds = {seed_of(step.runs[0])}
        for group in grouped:
            others = {seed_of(one.runs[0]) for one in group}
            if not seeds & others and _is_replica(step, group[0]):
                group.append(step)
                break
        else:
            grouped.append([step])
    return [replace(group[0], runs=tuple(one.runs[0] for one in group)) for group in grouped]


def _is_replica(step: Step, other: Step) -> bool:
    if step.is_asked != other.is_asked or step.ids != other.ids or "blend" in step.config:
        return False
    return not differences({**step.config, "seed": 0}, {**other.config, "seed": 0})


def _calibrated(step: Step) -> tuple[Run, ...]:
    """The runs with cross-fitted probabilities, where all of them were calibrated; else none."""
    found = [read_calibration(RunFolder(run.folder), len(classes_of(run.folds[0].oof))) for run in step.runs]
    pairs = zip(step.runs, found, strict=True)
    return tuple(calibrated(run, one) for run, one in pairs if one) if all(found) else ()


def _hanging(step: Step, every: Sequence[Step]) -> list[Step]:
    """The steps that hang on this one, with those that hang on them."""
    direct = [one for one in every if one is not step and _hangs_on(one, [step])]
    return [found for one in direct for found in (one, *_hanging(one, every))]


def _hangs_on(step: Step, others: Sequence[Step]) -> bool:
    bases = (one for one in others if one is not step and not one.is_calibrated)
    return step.of is not None and any(step.of.resolve() in one.folders for one in bases)


def _base(step: Step, earlier: Sequence[Step]) -> int | None:
    """The place of the run that was asked or calibrated, of a blend's best member, or of the run to begin from.

    A blend takes its members with their calibrations.
    For any other training it is the earlier one with the fewest other settings; of equals the last. None where no
    earlier step has any of the rows.
    """
    known = [place for place, one in enumerate(earlier) if one.ids & step.ids]
    named, is_blend = {path.resolve() for path in _named(step)}, "blend" in step.config
    fits = [place for place in known if is_blend or not earlier[place].is_calibrated]
    given = [place for place in fits if named & earlier[place].folders]
    if given:
        sign = -1 if step.runs[0].metric.higher_is_better else 1
        return min(given, key=lambda place: sign * earlier[place].score)
    trained = [place for place in known if earlier[place].of is None and "blend" not in earlier[place].config]
    return min(trained, key=lambda place: (_distance(earlier[place], step), -place), default=None)


def _distance(one: Step, other: Step) -> int:
    """The number of settings that differ, in the parts that both have: an earlier version had fewer."""
    shared = (one.config.keys() & other.config.keys()) - {"seed"}
    return len(differences(*({key: step.config[key] for key in shared} for step in (one, other))))


def _named(step: Step) -> list[Path]:
    """The run folders that the step is compared with, as its configuration names them."""
    if step.of:
        return [step.of]
    if blend := step.config.get("blend"):
        return [step.folder / name for name in blend["members"]]
    start = (step.config.get("model") or {}).get("from_run")
    return [Path(start), Path(start).parent.parent] if start else []


def _table(run: Run) -> pd.DataFrame:
    own = {"id": run.oof["id"].to_numpy(), "label": run.oof["label"].to_numpy(), "group": groups_of(run)}
    return pd.DataFrame(own | dict(columns_for(run.metric, run.scored(run.metric))))
