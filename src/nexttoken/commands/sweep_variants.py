"""The variants of a sweep: jobs with the same settings but for the seed and the fold, ranked by their scores."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from nexttoken.commands.sweep import Job


@dataclass(frozen=True)
class Variant:
    """The jobs of a sweep with the same settings but for the seed and the fold."""

    settings: tuple[str, ...]
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        return shlex.join(self.settings) or self.jobs[0].run

    @property
    def scores(self) -> dict[tuple[str, int], float]:
        """By seed and fold."""
        return {(job.seed, job.fold): job.score for job in self.jobs if job.score is not None}

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(job.run for job in self.jobs))


def comparable(jobs: Sequence[Job]) -> list[list[Job]]:
    """The trained jobs whose scores compare: of one data set and one metric."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.score is not None and not isnan(job.score):
            groups.setdefault((job.data, job.metric), []).append(job)
    return list(groups.values())


def ranked(jobs: Sequence[Job]) -> list[Variant]:
    """The variants, the best first, by the mean over the seeds and folds that all have, or over their own."""
    by_settings: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        by_settings.setdefault(job.settings, []).append(job)
    variants = [Variant(settings, tuple(own)) for settings, own in by_settings.items()]
    shared = set.intersection(*(set(one.scores) for one in variants))

    def mean(variant: Variant) -> float:
        values = [score for place, score in variant.scores.items() if place in shared or not shared]
        return sum(values) / len(values)

    return sorted(variants, key=mean, reverse=jobs[0].higher_is_better)


def keys_that_differ(variants: Sequence[Variant]) -> list[str]:
    settings = [dict(one.lstrip("+~").partition("=")[::2] for one in variant.settings) for variant in variants]
    keys = dict.fromkeys(key for of_one in settings for key in of_one)
    return [key for key in keys if len({of_one.get(key) for of_one in settings}) > 1]
