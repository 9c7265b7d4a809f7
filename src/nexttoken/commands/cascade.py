"""Show what a larger run gains where it answers only the rows that a small run is least sure of, and choose the share.

python -m nexttoken cascade run=output/lmsys/<small> larger=output/lmsys/<large>

Arguments:
  run=...          the small run, which answers every row
  larger=...       a run of the same rows and folds, which also answers the least certain ones
  share=...        their share, 0 to 1 (default: the smallest one that is as good as all rows)
  budget=...       instead of a share: the cost of both runs together, as a part of asking the larger run for every row
  tolerance=0.5    "as good" means behind by at most this many standard errors, by the task's metric
  out=...          folder for cascade.json and cascade.png (default: the small run's folder)

Nothing is asked: both runs' out-of-fold rows say what any cascade scores. Each fold is scored with the threshold and
the weight that the other folds chose. "over random" is the gain over as many rows drawn at random, which is what a
model of a cost in between would give. python predict.py run=... cascade=... predicts.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeFloat

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.errors import UserError
from nexttoken.report.terminal import show

if TYPE_CHECKING:
    from nexttoken.report.cascade import Point
    from nexttoken.runs.cascade import Pair


class CascadeArguments(Arguments):
    run: RunPath
    larger: RunPath
    share: Annotated[float | None, Field(ge=0, le=1)] = None
    budget: Annotated[float | None, Field(gt=0)] = None
    tolerance: NonNegativeFloat = 0.5
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = CascadeArguments.parse(arguments)
    if given.share is not None and given.budget is not None:
        raise UserError("share=... and budget=... both choose how many rows go on; give one of them")
    from nexttoken.data.typed_texts import typed_override
    from nexttoken.data.whole_files import make_folder
    from nexttoken.report.cascade import cascade_plot, cascade_table, curve_of
    from nexttoken.runs.cascade import Pair

    pair = Pair.read(given.run, given.larger)
    share = pair.share_within(given.budget) if given.budget is not None else given.share
    make_folder(folder := (given.out or given.run).expanduser())
    scored = pair.cross_chosen(given.tolerance) if share is None else pair.cascaded(share)
    share = pair.choose_share(given.tolerance) if share is None else share
    points = curve_of(pair, scored)
    title = f"{given.run.resolve().name}, then {given.larger.resolve().name}"
    save(pair, share, points, given, folder)
    cascade_plot(pair, points, folder / "cascade.png", title)
    command = ["python", "predict.py", typed_override("run", str(given.run))]
    command += [typed_override("cascade", str(given.larger)), f"cascade_share={share:g}"]
    show(f"{cascade_table(pair, points)}\n\n{describe(pair, share)}")
    print(f"wrote cascade.json and cascade.png to {folder}")
    print(f"next: {shlex.join(command)}")


def describe(pair: "Pair", share: float) -> str:
    """The lines below the table: rows, cost, and the cascade for new rows."""
    cascade, folds = pair.fit(share), ", ".join(str(fold.number) for fold in pair.runs[0].folds)
    tokens = " and ".join("unknown" if run.tokens_a_row is None else f"{run.tokens_a_row:,.0f}" for run in pair.runs)
    below = f"rows whose best class has a probability below {cascade.threshold:.4f}"
    which = "every row" if share == 1 else below if share else "no row"
    return (
        f"{len(pair.folds):,} out-of-fold rows, folds {folds}. Tokens a row: {tokens}. Cost: prompt tokens times the"
        " model's weights, in passes of the larger run for every row.\n\n"
        f"chosen on all rows: share={share:g}, {which}; weight of the larger run {cascade.weights[1]:.3f}"
    )


def save(pair: "Pair", share: float, points: "Sequence[Point]", given: CascadeArguments, folder: Path) -> None:
    """Write cascade.json: the cascade for new rows, how it was chosen, and the curve."""
    from nexttoken.data.files import write_json

    values: dict[str, Any] = {
        **asdict(pair.fit(share)),
        "share": share,
        "runs": [str(given.run), str(given.larger)],
        "tolerance": given.tolerance if given.tolerance != float("inf") else "inf",
        "relative_cost": pair.relative_cost,
        "metric": pair.runs[0].metric.name,
        "weights_of_the_others": {str(fold): weights for fold, weights in pair.weights.items() if fold is not None},
        "points": [asdict(point) for point in points],
    }
    write_json(values, folder / "cascade.json")
