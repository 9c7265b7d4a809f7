"""The weights of a blend from out-of-fold rows; each fold is scored with weights from the other folds."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.metrics.intervals import Rows
from nexttoken.metrics.pooling import as_ranks, equal_weights, fit_weights, pool, rank_reference, select_weights
from nexttoken.runs.blend import BASELINES, Blend, Member, identity_of
from nexttoken.runs.calibration import read_calibration
from nexttoken.runs.calibration_fit import calibrated, groups_of, refuse_few_rows, refuse_gate
from nexttoken.runs.fold_baseline import baseline_of
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences
from nexttoken.runs.read import read_run
from nexttoken.runs.scored_runs import Run, classes_of, probabilities


@dataclass(frozen=True)
class Members:
    """Runs and baselines of the same rows: `tables` has of each its out-of-fold probabilities, (N, K) of each fold."""

    names: tuple[str, ...]
    runs: tuple[Run, ...]  # the first has the rows of all; the baselines come last
    tables: tuple[list[np.ndarray], ...]

    @classmethod
    def read(cls, names: Sequence[str]) -> "Members":
        """Each run's probabilities as predict.py would have them, after its calibration.

        Raises UserError for runs of other rows, classes or folds, and where a baseline is not there.
        """
        known = list(dict.fromkeys(names))
        paths = [Path(name) for name in known if name not in BASELINES]
        if not paths or len(known) < 2:
            raise UserError(f"runs={','.join(names)}: expected two members or more, and one run folder among them")
        runs = tuple(map(_answers_of, paths))
        for run in runs[1:]:
            _require_same(run, runs[0])
        tables = [_in_order(run, runs[0]) for run in runs]
        baselines = [name for name in known if name in BASELINES]
        ids = {fold.number: fold.oof["id"].tolist() for fold in runs[0].folds}
        tables += [baseline_of(name, RunFolder(paths[0])).out_of_fold(ids) for name in baselines]
        return cls((*map(str, paths), *baselines), runs, tuple(tables))

    def refuse_unfit(self, of: str, is_fitted: bool) -> None:
        """Raise UserError for ranks of other than two classes, and where there is too little to fit weights on."""
        if of == "ranks" and (number := self.tables[0][0].shape[1]) != 2:
            raise UserError(f"of=ranks orders the rows of two classes, and there are {number}; use of=logits")
        if is_fitted:
            refuse_few_rows(self.runs[0], "weights=equal needs none")

    def run(self, tables: Sequence[np.ndarray]) -> Run:
        """The first run's rows with these probabilities, (N, K) of each fold."""
        return self.runs[0].with_probs(tables)

    def blended(self, of: str, is_fitted: bool) -> Run:
        """The members' average, by equal weights or, for each fold, by weights fitted on the other folds."""
        tables = enumerate(self._in_space(of))
        return self.run([pool(own, self.weights(of, is_fitted, place), of) for place, own in tables])

    def blend(self, of: str, is_fitted: bool, folder: Path) -> Blend:
        """The blend for new rows, with weights from all folds; member folders are told relative to `folder`."""
        weights = self.weights(of, is_fitted).tolist()
        members = []
        for place, (name, tables) in enumerate(zip(self.names, self.tables, strict=True)):
            if weights[place] > 0 or not place:  # others are not asked; the first has the task's settings
                reference = tuple(rank_reference(np.concatenate(tables)).tolist()) if of == "ranks" else ()
                is_run = name not in BASELINES
                identity = identity_of(RunFolder(Path(name))) if is_run else ""
                path = os.path.relpath(name, folder) if is_run else name
                members.append(Member(path, weights[place], identity, reference))
        return Blend(of, tuple(members))

    def _in_space(self, of: str) -> list[np.ndarray]:
        """(M, N, K) of each fold."""
        tables = list(self.tables)
        if of == "ranks":
            references = [rank_reference(np.concatenate(one)) for one in tables]
            tables = [[as_ranks(fold, ref) for fold in one] for one, ref in zip(tables, references, strict=True)]
        return [np.array(of_fold) for of_fold in zip(*tables, strict=True)]

    def weights(self, of: str, is_fitted: bool, but: int | None = None) -> np.ndarray:
        """Each member's weight (M,), fitted on all folds, or on all but the one in the place `but`."""
        if not is_fitted:
            return equal_weights(len(self.tables))
        run, tables = self.runs[0], self._in_space(of)
        places = [place for place in range(len(tables)) if place != but]
        whole = np.concatenate([tables[place] for place in places], axis=1)
        labels = np.concatenate([run.folds[place].oof["label"].to_numpy() for place in places])
        if of != "ranks":
            return fit_weights(whole, labels, of)
        of_folds = [run.folds[place].tags.get(run.metric.by) for place in places]
        tags = None if None in of_folds else [tag for some in of_folds for tag in some or ()]
        return select_weights(whole, Rows(whole[0], labels, tags), run.metric)


def _answers_of(path: Path) -> Run:
    run = read_run(path)
    refuse_gate(path)
    found = read_calibration(RunFolder(path), len(classes_of(run.folds[0].oof)))
    return calibrated(run, found) if found else run


def _in_order(run: Run, first: Run) -> list[np.ndarray]:
    """The probabilities of each fold in the order of the first run's rows."""
    pairs = zip(run.folds, first.folds, strict=True)
    return [probabilities(own.oof.set_index("id").loc[other.oof["id"]].reset_index()) for own, other in pairs]


def _require_same(run: Run, first: Run) -> None:
    """Raise UserError naming what differs between two runs of a blend."""
    own, other = ({fold.number: fold for fold in one.folds} for one in (run, first))
    rows = [one.oof.assign(group=groups_of(one)).set_index("id")[["fold", "label", "group"]] for one in (run, first)]
    tasks = [FoldFolder(one.folds[0].folder).config().get("task") or {} for one in (run, first)]
    tasks = [{key: value for key, value in task.items() if key != "input_dir"} for task in tasks]
    if (run.data.task, run.data.dataset) != (first.data.task, first.data.dataset):
        reason = f"rows of {run.data.dataset} ({run.data.task}) and of {first.data.dataset} ({first.data.task})"
    elif (classes := classes_of(run.folds[0].oof)) != (others := classes_of(first.folds[0].oof)):
        reason = f"classes {first_five(classes)} and {first_five(others)}"
    elif differences := describe_differences({"task": tasks[0]}, {"task": tasks[1]}):
        reason = f"settings of the task, {differences}"
    elif own.keys() != other.keys():
        reason = f"finished folds {', '.join(map(str, own))} and {', '.join(map(str, other))}"
    elif not rows[0].sort_index().equals(rows[1].sort_index()):
        both = rows[0].reset_index().merge(rows[1].reset_index(), how="outer", indicator=True)
        differ = both.loc[both["_merge"] != "both", "id"].unique()
        reason = f"{len(differ)} rows in one of them, or with another label, fold or group: {first_five(differ)}"
    else:
        return
    raise UserError(
        f"{run.folder} and {first.folder} cannot be combined, they differ in {reason}; name runs of the same split"
    )
