"""The passes over the test rows that a run could make, in the order of what each gains for what it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nexttoken.metrics.probabilities import log_loss, prior_probs
from nexttoken.runs.fold_baseline import FoldBaseline
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.load import LoadedBlend
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.loaded_cascade import LoadedCascade
from nexttoken.runs.out_of_fold import answers_out_of_fold
from nexttoken.runs.timed.row_answers import RowAnswers, Source, among, source_of

# In log loss: three models averaged gained 0.010 to 0.014 (first place of MAP 2025), so that one more beside k gains
# about this / (k (k + 1)). It cannot be measured out of fold, where each row was held out by one fold alone.
GAIN_OF_FOLDS = 0.018

LoadWay = Callable[[RunFolder], LoadedRun]  # loads a scored way of a run, as `RunFolder.ways` has them


@dataclass(frozen=True)
class Step:
    """One pass: rows are asked by folds of a run, or by a baseline of the task; `sources` have their answers.

    `gain` is that in log loss where all rows are asked, `cost` the model's parameters times the tokens of a row.
    """

    title: str
    run: LoadedRun | FoldBaseline
    folds: tuple[FoldFolder, ...]
    sources: tuple[Source, ...]
    gain: float
    cost: float = 1.0
    is_extra: bool = False  # asked in another way than the run itself would be
    rows: Callable[[RowAnswers], np.ndarray] | None = None  # those to ask, in their order; None: all

    @property
    def worth(self) -> float:
        """The gain for the cost."""
        return self.gain / max(self.cost, 1.0)


def steps_of(run: LoadedRun, load_way: LoadWay | None = None) -> list[Step]:
    """All passes; the first is the one that gains most for its cost, each other adds to those before.

    `load_way` loads a run's scored ways, such as both orders of a pair: those with a lower log loss are passes, too.
    Raises UserError where out-of-fold answers cannot be read.
    """
    if isinstance(run, LoadedBlend):
        return _steps_of_blend(run)
    if isinstance(run, LoadedCascade):
        return _steps_of_cascade(run)
    first, *rest = _steps_of_folds(run, _gain_of(run))
    rest += [step for way in run.folder.ways for step in _steps_of_way(run, way, load_way)] if load_way else []
    return [first, *_by_worth(rest)]


def _by_worth(steps: Sequence[Step]) -> list[Step]:
    """Steps by their worth, but none in another way before the run's own of the same folds, which it would undo."""
    own = {step.sources: step.worth for step in steps if not step.is_extra}
    order = sorted(steps, key=lambda step: step.is_extra)
    return sorted(order, key=lambda step: -min(step.worth, own.get(step.sources, step.worth)))


def _gain_of(run: LoadedRun) -> float:
    """The log loss of the prior less that of the run, out of fold; 1 where that is not known."""
    found = [fold.metrics() for fold in run.folds]
    known = [one["prior_log_loss"] - one["log_loss"] for one in found if one.get("prior_log_loss") is not None]
    return float(np.mean(known)) if known else 1.0


def cost_of(folds: Sequence[FoldFolder]) -> float:
    """Parameters times tokens of a row, as the held-out rows had them; 1 where that is not known."""
    keys = ("num_parameters", "num_prompt_tokens", "num_examples")
    found = [[fold.metrics().get(key) for key in keys] for fold in folds]
    known = [parameters * tokens / rows for parameters, tokens, rows in found if parameters and tokens and rows]
    return float(np.mean(known)) if known else 1.0


def _steps_of_folds(run: LoadedRun, gain: float, weight: float = 1.0, name: str = "") -> list[Step]:
    """A step for each fold; one for all folds where these read the same frozen model."""
    cost, sources = cost_of(run.folds), tuple(source_of(run, fold.number) for fold in run.folds)
    titles = [f"{name} fold {fold.number}".strip() for fold in run.folds]
    if len(titles) > 1 and (run.parts.reads_states or not run.parts.settings.trainer.max_epochs):
        title = f"{name} {len(titles)} folds of one frozen model".strip()
        return [Step(title, run, tuple(run.folds), sources, gain, cost)]
    gains = [gain, *(weight * GAIN_OF_FOLDS / (number * (number + 1)) for number in range(1, len(run.folds)))]
    parts = zip(titles, run.folds, sources, gains, strict=True)
    return [Step(title, run, (fold,), (source,), own, cost) for title, fold, source, own in parts]


def _steps_of_way(run: LoadedRun, way: RunFolder, load_way: LoadWay) -> list[Step]:
    """A step for each fold of a way in which the run was scored better than in its own; none in another case."""
    scored = [way.fold(fold.number) for fold in run.folds]
    if not all(fold.is_finished and not fold.is_outdated for fold in scored):
        return []
    pairs = zip(run.folds, scored, strict=True)
    gain = float(np.mean([own.metrics()["log_loss"] - other.metrics()["log_loss"] for own, other in pairs]))
    if gain <= 0:
        return []
    loaded, name = load_way(way), way.path.name.rpartition("_")[0]
    share, cost = gain / len(scored), cost_of(scored) - cost_of(run.folds)  # what was asked before is not asked again
    return [
        Step(f"fold {fold.number} {name}", loaded, (fold,), (source_of(run, fold.number),), share, cost, is_extra=True)
        for fold in loaded.folds
    ]


def _steps_of_cascade(run: LoadedCascade) -> list[Step]:
    """The small run's folds, then those of the larger run for the rows that are unsure, the least certain first."""

    def unsure(answers: RowAnswers) -> np.ndarray:
        small = answers.of_run(run.small)
        order = run.cascade.order(small)
        return order[run.cascade.unsure(small)[order]]

    small = _steps_of_folds(run.small, _gain_of(run.small), name=run.small.path.name)
    larger = _steps_of_folds(run.larger, _gain_of(run.larger), name=run.larger.path.name)
    return [*small, *(replace(step, rows=unsure) for step in larger)]


def _steps_of_blend(blend: LoadedBlend) -> list[Step]:
    """Baselines, then each member's first pass by what it adds to those before it, then the members' other folds.

    What a member adds is measured on the out-of-fold rows.
    """
    steps: dict[int, list[Step]] = {}
    for place, (member, known) in enumerate(zip(blend.members, blend.blend.members, strict=True)):
        if isinstance(member, LoadedBlend):
            steps[place] = _steps_of_blend(member)
        elif isinstance(member, LoadedRun):
            steps[place] = _steps_of_folds(member, _gain_of(member), known.weight, member.path.name)
    free = [place for place in range(len(blend.members)) if place not in steps]
    order = [
        Step(blend.blend.members[place].name, blend.members[place], (), (source_of(blend, place),), 1.0)
        for place in free
    ]
    if not steps:
        return order
    chosen: list[int] = []
    tables, labels = _out_of_fold(blend, list(steps))
    loss = log_loss(prior_probs(labels, tables.shape[2], [tables.shape[2]] * len(labels)), labels)
    while left := [place for place in steps if place not in chosen]:
        losses = {place: log_loss(_pooled(blend, tables, [*chosen, place]), labels) for place in left}
        first = {place: replace(steps[place][0], gain=loss - losses[place]) for place in left}
        best = max(left, key=lambda place: first[place].worth)
        order.append(first[best])
        chosen.append(best)
        loss = losses[best]
    return order + _by_worth([step for some in steps.values() for step in some[1:]])


def _out_of_fold(blend: LoadedBlend, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The members' out-of-fold probabilities (M, N, K), NaN of those not among `places`, and the labels (N,)."""
    classes = blend.parts.task.classes
    found = {place: answers_out_of_fold(blend.members[place].folder, classes, "run") for place in places}  # type: ignore[union-attr]
    rows = sorted(set.intersection(*map(set, found.values())))
    tables = np.full((len(blend.members), len(rows), len(classes)), np.nan)
    for place, answers in found.items():
        tables[place] = [answers[row].probs for row in rows]
    return tables, np.array([found[places[0]][row].label for row in rows])


def _pooled(blend: LoadedBlend, tables: np.ndarray, places: Sequence[int]) -> np.ndarray:
    mask = np.isin(np.arange(len(tables)), places)
    return among(blend.blend, mask)(list(tables[mask]))
