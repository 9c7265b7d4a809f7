"""Runs that differ in their seed alone: found together, averaged as one blend, and the noise of every comparison."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexttoken.errors import UserError
from nexttoken.runs.blend import is_blend, member_folder, read_blend
from nexttoken.runs.folder import RunFolder, differences


@dataclass(frozen=True)
class Replicas:
    """Finished runs of one configuration with different seeds, in their order, with the same finished folds."""

    runs: tuple[RunFolder, ...]
    seeds: tuple[int, ...]

    @property
    def folder(self) -> RunFolder:
        """The folder of their average, `<name>_seeds-0-1-2`."""
        first = self.runs[0].path
        name = re.sub(r"_seed-\d+", "", first.name)
        return RunFolder(first.with_name(f"{name}_seeds-{'-'.join(map(str, self.seeds))}"))

    @property
    def are_averaged(self) -> bool:
        """True where the folder of the average is there and none of the runs was trained or calibrated since."""
        if not is_blend(path := self.folder.path):
            return False
        try:
            return all(member_folder(member, path) for member in read_blend(path).members)
        except UserError:
            return False


def differ_in_seed(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True for two configurations that differ in their seed, and where else it stands, and in nothing more."""
    seeds = one.get("seed"), other.get("seed")
    changed = differences(one, other)
    return seeds[0] != seeds[1] and all(values == seeds for values in changed.values())


def replicas_of(run: RunFolder) -> Replicas | None:
    """The run with those beside it that differ in the seed alone and have the same finished folds; None for none."""
    if is_blend(run.path) or run.has_only_final:
        return None
    own = run.finished_folds()
    config, numbers = own[0].config(), [fold.number for fold in own]
    by_seed: dict[int, RunFolder] = {config.get("seed", 0): run}
    for path in sorted(run.path.resolve().parent.iterdir()):
        other = RunFolder(run.path.with_name(path.name))
        first = other.fold(numbers[0])
        if not first.is_finished or is_blend(path) or path.name == run.path.resolve().name:
            continue
        try:
            given = first.config()
        except UserError:  # a run that cannot be read is no replica
            continue
        if differ_in_seed(config, given) and numbers == [one.number for one in other.finished_folds()]:
            by_seed.setdefault(given["seed"], other)
    if len(by_seed) < 2:
        return None
    seeds = sorted(by_seed)
    return Replicas(tuple(by_seed[seed] for seed in seeds), tuple(seeds))


def average_replicas(run: RunFolder) -> RunFolder:
    """The blend of a run's replicas with equal weights, written if need be; the run itself where it has none.

    Raises UserError where the folder beside the runs cannot be written, and for replicas that cannot be averaged.
    """
    if (found := replicas_of(run)) is None:
        return run
    folder, seeds = found.folder, ", ".join(map(str, found.seeds))
    print(f"{len(found.runs)} runs differ in the seed alone ({seeds}): averaged in {folder.path}")
    if not found.are_averaged:
        otherwise = f"replicas=false asks {run.path} alone"
        if not os.access(run.path.resolve().parent, os.W_OK):
            raise UserError(f"{folder.path} cannot be written, its folder is read-only; {otherwise}")
        if folder.path.exists() and not is_blend(folder.path):
            raise UserError(f"{folder.path} is no average of runs; move it away, or {otherwise}")
        from nexttoken.runs.blend_fit import Members
        from nexttoken.runs.blend_folder import write_blend

        try:
            members = Members.read([str(one.path) for one in found.runs])
        except UserError as error:
            raise UserError(f"{error}; or {otherwise}") from None
        blend = members.blend("probabilities", False, folder.path)
        write_blend(blend, members.blended("probabilities", False), members.runs, folder.path)
    return folder
