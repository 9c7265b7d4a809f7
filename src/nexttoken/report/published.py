"""Results that others published, read from the YAML files beside this module, so that a run can stand beside them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nexttoken.report.markdown import difference_cell, loss_cell, markdown
from nexttoken.runs.scored_runs import Run

KINDS = ("zero-shot CV", "CV", "public LB", "private LB")


class PublishedScore(NamedTuple):
    """A self-reported three-class log loss of the preference competition; `kind` is one of `KINDS`."""

    who: str
    what: str
    score: float
    kind: str


@cache
def read_published(name: str) -> Any:
    """The content of published_<name>.yaml: scores, quiz or variants."""
    return yaml.safe_load(Path(__file__).with_name(f"published_{name}.yaml").read_text(encoding="utf-8"))


def published_scores() -> list[PublishedScore]:
    return [PublishedScore(**row) for row in read_published("scores")]


def published_table(runs: Sequence[Run]) -> str:
    """The published scores: which compare with the runs, and how far the best run is from those."""
    best = min((run.oof["loss"].mean() for run in runs if run.data.is_published), default=None)
    header, rows = ["published log loss", *KINDS, *(["comparable", "vs. best run"] if best is not None else [])], []
    for score in published_scores():
        kinds = [loss_cell(score.score) if kind == score.kind else "" for kind in KINDS]
        cells = ["no", ""]
        if best is not None and score.kind.endswith("CV"):  # out of fold, on the same rows as the runs
            cells = ["yes", difference_cell(best - score.score)]
        rows.append([f"{score.who}: {score.what}", *kinds, *cells][: len(header)])
    datasets = ", ".join(sorted({run.data.dataset for run in runs if run.data.is_published or best is None}))
    note = f"The published scores are on the competition's own rows: none is comparable with {datasets}."
    if best is not None:
        note = (
            f"The published CV scores are comparable with {datasets} only (other folds, self-reported). "
            "Public and private leaderboard are two further test sets: compare neither with a CV nor with each other."
        )
    return f"## Published scores\n\n{note}\n\n{markdown(header, rows)}"


def predicted_leaderboard(cv: float) -> float:
    """The public leaderboard score that James Day's line predicts for a CV log loss on the competition's data."""
    return 0.890 * cv + 0.125


def published_quiz_tables() -> str:
    """Tables of fine-tuned Japanese models on a quiz by genre, in their published form, best first."""
    intro = (
        "## Published scores of another quiz\n\nFine-tuned models on QMA questions, self-reported with one environment "
        "a genre (dev5 to dev9): other questions and machines. None is comparable with the runs above."
    )
    parts, quiz = [intro], read_published("quiz")
    for place, (genre, environment) in enumerate(quiz["genres"].items()):
        results = sorted(((model, *by_genre[place]) for model, by_genre in quiz["models"].items()), key=lambda r: -r[1])
        rows = [[model, environment, f"{score:.4f}", f"{seconds:.0f}"] for model, score, seconds in results]
        table = markdown(["Model", "Environment", "Score", "Latency"], rows)
        parts += [f"### Published table for genre: {genre}", table]
    return "\n\n".join(parts)
