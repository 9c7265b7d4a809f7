"""Score and latency of each run by genre, or by any other tag, as Markdown in the form of the published tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.errors import UserError, first_five, nearest
from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_means
from nexttoken.metrics.probabilities import chance_accuracy
from nexttoken.report.markdown import NOTHING, loss_cell, markdown
from nexttoken.runs.read import Data, Run
from nexttoken.runs.read_answers import Answers, out_of_fold, result_rows, test_answers

HEADER = ["Model", "Environment", "Score", "Latency", "95 % interval", "Questions", "Chance"]
NUM_RESAMPLES = 2_000  # per run and value of the tag: a fifth of those for a comparison of variants
NO_TAG = "(none)"
NOTE = (
    "Score: share of questions answered rightly. Latency: seconds for all of them. Chance: expected score of a guess "
    "among the options that each question has. Intervals resample groups of near-duplicate questions; they are too "
    "narrow where there are few."
)


@dataclass(frozen=True)
class Section:
    """All runs that answered questions of one data set, out of fold or as test rows, with the values of one tag."""

    data: Data
    kind: str
    by: str
    answers: tuple[Answers, ...]

    @property
    def title(self) -> str:
        return f"{self.data.dataset} ({self.data.task}), {self.kind}"

    @property
    def models(self) -> list[str]:
        return [answers.model for answers in self.answers]

    @cached_property
    def options(self) -> dict[str, np.ndarray]:
        """By value of the tag, in order: the number of options of every question that any of the runs answered."""
        rows = pd.concat([answers.rows for answers in self.answers]).drop_duplicates("id")
        return {str(value): of_value["num_options"].to_numpy() for value, of_value in rows.groupby(self.by)}

    def scores(self, value: str) -> list["TagScore"]:
        """The runs that answered such questions, the best first."""
        chosen = [TagScore(answers, answers.rows[answers.rows[self.by] == value]) for answers in self.answers]
        return sorted((one for one in chosen if len(one.rows)), key=lambda one: (-one.accuracy, one.answers.model))


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

    @property
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
        named = [self.answers.model, self.answers.environment, loss_cell(self.accuracy)]
        return [*named, _cell(seconds, ".1f"), interval, str(len(self.rows)), loss_cell(self.chance)]


@dataclass(frozen=True)
class ByTag:
    """The sections of a report by one tag, and a line for each reason why runs are left out of it."""

    by: str
    sections: list[Section]
    notes: list[str]

    @classmethod
    def of(cls, runs: Sequence[Run], by: str) -> "ByTag":
        """Raises UserError where no run has rows.csv or the tag."""
        read = [(run.title, out_of_fold(run)) for run in runs]
        older = [title for title, answers in read if answers is None]
        held_out = [answers for _, answers in read if answers]
        if not held_out:
            raise UserError(
                f"no rows.csv in {first_five(older)}: trained by an earlier version; train again with overwrite=true"
            )
        tags = {tag for answers in held_out for tag in answers.tags}
        if by not in tags:
            raise UserError(
                f"no run has the tag {by!r} in its rows.csv; {nearest(by, tags) if tags else 'it has no tags'}"
            )
        # A folder that holds runs on two data sets has one result.json: of the last.
        folders = {run.folder: run for run in runs}
        every = [*held_out, *(answers for run in folders.values() if (answers := test_answers(run)))]
        named = [_with_names(answers, by) for answers in every if by in answers.tags]
        unnamed = [f"{answers.model} ({answers.kind})" for answers in every if by not in answers.tags]
        notes = [f"Without rows.csv, trained by an earlier version and left out: {', '.join(older)}."] if older else []
        notes += [f"Without the tag {by} and left out: {', '.join(unnamed)}."] if unnamed else []
        keys = sorted({(answers.data, answers.kind) for answers in named})
        return cls(by, [Section(*key, by, tuple(a for a in named if (a.data, a.kind) == key)) for key in keys], notes)

    def page(self) -> str:
        parts = [f"# Results by {self.by}", *self.notes, NOTE]
        for section in self.sections:
            parts.append(f"## {section.title}")
            if len({frozenset(answers.rows["id"]) for answers in section.answers}) > 1:
                parts.append("The models were not asked the same questions: compare only what both answered.")
            parts.append(overall_table(section))
            for value in section.options:
                rows = [score.cells() for score in section.scores(value)]
                parts += [f"### Table for {self.by}: {value}", markdown(HEADER, rows)]
        return "\n\n".join(parts)


def overall_table(section: Section) -> str:
    """Values of the tag × models, accuracy; then the mean over values, and all questions together."""
    chances, accuracies, rows = [], [], []
    for value, options in section.options.items():
        by_model = {id(score.answers): score.accuracy for score in section.scores(value)}
        chances.append(chance_accuracy(options))
        accuracies.append([by_model.get(id(answers), np.nan) for answers in section.answers])
        rows.append([value, str(len(options)), loss_cell(chances[-1]), *map(_cell, accuracies[-1])])
    means = np.array(accuracies).mean(axis=0)  # unknown for a model that lacks a value
    rows.append([f"**mean over {section.by}**", "", loss_cell(float(np.mean(chances))), *map(_cell, means)])
    pooled = [answers.rows["correct"].mean() for answers in section.answers]
    options = np.concatenate(list(section.options.values()))
    rows.append(["**all questions**", str(len(options)), loss_cell(chance_accuracy(options)), *map(_cell, pooled)])
    return markdown([section.by, "Questions", "Chance", *section.models], rows)


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
    return f"{head}\n\n{overall_table(Section(answers.data, answers.kind, by, (_with_names(answers, by),)))}"


def _with_names(answers: Answers, by: str) -> Answers:
    """The answers with a name for an empty value of the tag."""
    return replace(answers, rows=answers.rows.assign(**{by: answers.rows[by].fillna("").replace("", NO_TAG)}))


def _cell(value: float, form: str = ".4f") -> str:
    return NOTHING if np.isnan(value) else f"{value:{form}}"
