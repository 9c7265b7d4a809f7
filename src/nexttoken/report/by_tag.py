"""Score and latency of each run by genre, or by any other tag: tables in the form of the published ones, a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nexttoken.errors import UserError, first_five, nearest
from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_means
from nexttoken.metrics.probabilities import chance_accuracy
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import NOTHING, loss_cell, markdown, plain
from nexttoken.runs.read_answers import Answers, out_of_fold, result_rows, test_answers
from nexttoken.runs.scored_runs import Data, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ["Model", "Environment", "Score", "Latency", "95 % interval", "Questions", "Chance"]
NUM_RESAMPLES = 2_000  # per run and value of the tag: a fifth of those for a comparison of variants
NO_TAG = "(none)"
MARKERS = "osD^vP*X<>"  # ten colours and then the next marker: a hundred runs can be told apart
NOTE = (
    "Score: share of questions answered rightly. Latency: seconds for all of them. Chance: expected score of a guess "
    "among the options that each question has. Intervals resample groups of near-duplicate questions; they are too "
    "narrow where there are few."
)


@dataclass(frozen=True)
class TagScore:
    """One run on the questions with one value of the tag; `rows` are `Answers.rows`, at least one."""

    answers: Answers
    rows: pd.DataFrame

    @property
    def accuracy(self) -> float:
        return float(self.rows["correct"].mean())

    @property
    def chance(self) -> float:
        return chance_accuracy(self.rows["num_options"].to_numpy())

    @cached_property
    def interval(self) -> Interval | None:
        """95 %, by groups of questions; None where there is only one group, of which nothing can be resampled."""
        groups = self.rows["group"].to_numpy()
        if len(np.unique(groups)) < 2:
            return None
        values = self.rows["correct"].to_numpy(np.float64)[None, None]
        return percentile_interval(resampled_means(values, groups, NUM_RESAMPLES)[:, 0])

    def cells(self) -> list[str]:
        interval = f"{self.interval.low:.3f} to {self.interval.high:.3f}" if self.interval else NOTHING
        seconds = self.rows["seconds"].sum(skipna=False)
        latency = NOTHING if np.isnan(seconds) else f"{seconds:.1f}"
        named = [self.answers.model, self.answers.environment, loss_cell(self.accuracy)]
        return [*named, latency, interval, str(len(self.rows)), loss_cell(self.chance)]


@dataclass(frozen=True)
class Section:
    """All runs that answered questions of one data set, out of fold or as test rows, with the values of one tag."""

    title: str
    by: str
    answers: Sequence[Answers]

    @property
    def models(self) -> list[str]:
        return [answers.model for answers in self.answers]

    @cached_property
    def options(self) -> dict[str, np.ndarray]:
        """By value of the tag, in order: the number of options of every question that any of the runs answered."""
        rows = pd.concat([answers.rows for answers in self.answers]).drop_duplicates("id")
        return {str(value): of_value["num_options"].to_numpy() for value, of_value in rows.groupby(self.by)}

    @cached_property
    def scores(self) -> dict[str, list[TagScore]]:
        """By value of the tag: the runs that answered such questions, the best first."""
        every = [(value, TagScore(one, rows)) for one in self.answers for value, rows in one.rows.groupby(self.by)]
        every.sort(key=lambda pair: (-pair[1].accuracy, pair[1].answers.model))
        return {value: [score for of_value, score in every if of_value == value] for value in self.options}

    def overall(self) -> str:
        """Values of the tag × models, accuracy; then the mean over values, and all questions together."""
        columns = [answers.rows.groupby(self.by)["correct"].mean() for answers in self.answers]
        scores = pd.concat(columns, axis=1).loc[list(self.options)].to_numpy()
        chances, every = [*map(chance_accuracy, self.options.values())], np.concatenate([*self.options.values()])
        rows = [
            [value, str(len(options)), loss_cell(chance), *map(loss_cell, of_value)]
            for (value, options), chance, of_value in zip(self.options.items(), chances, scores, strict=True)
        ]
        means = scores.mean(axis=0)  # unknown for a model that lacks a value
        rows.append([f"**mean over {self.by}**", "", loss_cell(float(np.mean(chances))), *map(loss_cell, means)])
        pooled = [loss_cell(answers.rows["correct"].mean()) for answers in self.answers]
        rows.append(["**all questions**", str(len(every)), loss_cell(chance_accuracy(every)), *pooled])
        return markdown([self.by, "Questions", "Chance", *self.models], rows)


def read_sections(
    runs: Sequence[Run], by: str, ledger: Path = Path("submissions/ledger.csv")
) -> tuple[list[Section], list[str]]:
    """The sections of a report by one tag, and a line for each reason why runs are left out of it.

    Raises UserError where no run has rows.csv or the tag.
    """
    read = [(run.title, out_of_fold(run)) for run in runs]
    older = [title for title, answers in read if answers is None]
    held_out = [answers for _, answers in read if answers]
    if not held_out:
        raise UserError(f"no rows.csv in {first_five(older)}: trained by an earlier version; train with overwrite=true")
    tags = {tag for answers in held_out for tag in answers.tags}
    if by not in tags:
        raise UserError(f"no run has the tag {by!r} in its rows.csv; {nearest(by, tags) if tags else 'it has no tags'}")
    by_folder = {run.folder: run for run in runs}  # runs of one folder on two data sets share their submissions
    every = [*held_out, *filter(None, (test_answers(run, ledger) for run in by_folder.values()))]
    notes = [f"Without rows.csv, trained by an earlier version and left out: {', '.join(older)}."] if older else []
    if unnamed := [f"{answers.model} ({answers.kind})" for answers in every if by not in answers.tags]:
        notes.append(f"Without the tag {by} and left out: {', '.join(unnamed)}.")
    grouped: dict[tuple[Data, str], list[Answers]] = {}
    for answers in every:
        if by in answers.tags:
            grouped.setdefault((answers.data, answers.kind), []).append(_name_empty_tags(answers, by))
    sections = [
        Section(f"{data.dataset} ({data.task}), {kind}", by, grouped[data, kind]) for data, kind in sorted(grouped)
    ]
    return sections, notes


def page_by_tag(by: str, sections: Sequence[Section], notes: Sequence[str]) -> str:
    parts = [f"# Results by {plain(by)}", *map(plain, notes), NOTE]
    for section in sections:
        parts.append(f"## {plain(section.title)}")
        if len({frozenset(answers.rows["id"]) for answers in section.answers}) > 1:
            parts.append("The models were not asked the same questions: compare only what both answered.")
        parts.append(section.overall())
        for value in section.options:
            table = markdown(HEADER, [score.cells() for score in section.scores[value]])
            parts += [f"### Table for {plain(by)}: {plain(value)}", table]
    return "\n\n".join(parts)


def results_table(results: Sequence[Mapping[str, Any]], by: str = "genre") -> str:
    """The rows of result.json by genre; in one line where they have none, or where no answer is known."""
    rows = result_rows(results)
    if not len(rows):
        return f"{len(results):,} test questions answered; their right answers are not known here"
    others = f" of {len(results):,}, whose answers are known" if len(rows) < len(results) else ""
    chance = chance_accuracy(rows["num_options"].to_numpy())
    head = f"{len(rows):,} test questions{others}: accuracy {rows['correct'].mean():.4f}, chance {chance:.4f}"
    answers = Answers("Score", NOTHING, Data("", "", False), "test rows", rows)
    if by not in answers.tags:
        return head
    return f"{head}\n\n{Section('', by, [_name_empty_tags(answers, by)]).overall()}"


def _name_empty_tags(answers: Answers, by: str) -> Answers:
    return replace(answers, rows=answers.rows.assign(**{by: answers.rows[by].fillna("").replace("", NO_TAG)}))


def plot_accuracies(sections: Sequence[Section], path: Path) -> list[str]:
    """Write a PNG: a line per genre, a mark per run with its 95 % interval, and chance as a dashed line.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    names = [name for section in sections for name in (section.title, *section.options, *section.models)]
    lettering = Lettering.for_names([*dict.fromkeys(names)])
    # Inches: space for the marks of every genre, and for a legend with every run.
    sizes = [(len(section.options), len(section.answers)) for section in sections]
    heights = [1.2 + max(options * max(0.42, 0.07 * models), 0.19 * (models + 1)) for options, models in sizes]
    with lettering.figure(9.5, sum(heights), path) as figure:
        panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, section in zip(panels, sections, strict=True):
            _panel(axes, section, lettering)
    return lettering.key


def _panel(axes: "Axes", section: Section, lettering: Lettering) -> None:
    values, models, places = list(section.options), section.models, np.arange(len(section.options))
    chances = [chance_accuracy(options) for options in section.options.values()]
    axes.plot(chances, places, color="0.3", linestyle="--", marker="|", markersize=12, label="chance")
    drawn = [(place, score) for place, value in enumerate(values) for score in section.scores[value]]
    for number, model in enumerate(models):
        shift = 0.6 * ((number + 0.5) / len(models) - 0.5)  # side by side, not one over the other
        scores = {place: score for place, score in drawn if score.answers.model == model}
        accuracies = np.array([score.accuracy for score in scores.values()])
        ends = [(i.low, i.high) if (i := score.interval) else (score.accuracy,) * 2 for score in scores.values()]
        error = np.abs(np.array(ends).T - accuracies)
        axes.errorbar(
            accuracies, np.array([*scores]) + shift, xerr=error, fmt=MARKERS[number // 10 % len(MARKERS)],
            color=f"C{number % 10}", markersize=5, elinewidth=0.8, label=lettering.show(model),
        )  # fmt: skip
    axes.set(title=lettering.show(section.title), xlabel="accuracy, 95 % interval", xlim=(-0.02, 1.02))
    axes.set_yticks(places, [lettering.show(value) for value in values])
    axes.set_ylim(len(values) - 0.5, -0.5)  # in the order of the tables
    axes.grid(axis="x", linewidth=0.4)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
