"""Runs by genre, or by any other tag: score and latency of each, in the form of the published tables, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
NUM_RESAMPLES = 2_000  # an interval per run and genre: a fifth of what a comparison of two variants is given
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
    def values(self) -> list[str]:
        return sorted({value for answers in self.answers for value in answers.rows[self.by]})

    @property
    def questions(self) -> pd.DataFrame:
        """Every question that any of the runs answered, once."""
        return pd.concat([answers.rows for answers in self.answers]).drop_duplicates("id")

    def of(self, value: str) -> list["GenreScore"]:
        """The runs that were asked such questions, the best first."""
        chosen = [(answers, answers.rows[answers.rows[self.by] == value]) for answers in self.answers]
        scores = [GenreScore(answers, rows) for answers, rows in chosen if len(rows)]
        return sorted(scores, key=lambda score: (-score.accuracy, score.answers.model))


@dataclass(frozen=True)
class GenreScore:
    """One run on the questions of one genre; `rows` are `Answers.rows`, at least one."""

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
        latency = NOTHING if np.isnan(seconds) else f"{seconds:.1f}"
        named = [self.answers.model, self.answers.environment, loss_cell(self.accuracy), latency]
        return [*named, interval, str(len(self.rows)), loss_cell(self.chance)]


@dataclass(frozen=True)
class ByTag:
    """What a report by one tag shows, and what had to be left out of it (a line each)."""

    by: str
    sections: list[Section]
    notes: list[str]

    @classmethod
    def of(cls, runs: Sequence[Run], by: str) -> "ByTag":
        """Raises UserError where no run has rows.csv or the tag."""
        read = {id(run): out_of_fold(run) for run in runs}
        older = [run.title for run in runs if read[id(run)] is None]
        held_out = [answers for answers in read.values() if answers]
        if not held_out:
            raise UserError(
                f"no rows.csv in {first_five(older)}: trained by an earlier version; train again with overwrite=true"
            )
        tags = {tag for answers in held_out for tag in answers.tags}
        if by not in tags:
            raise UserError(
                f"no run has the tag {by!r} in its rows.csv; {nearest(by, tags) if tags else 'it has no tags'}"
            )
        notes = [f"Without rows.csv, trained by an earlier version and left out: {', '.join(older)}."] if older else []
        # A folder that holds runs on two data sets has one result.json: of the last.
        folders = {run.folder: run for run in runs}
        tested = [answers for run in folders.values() if (answers := test_answers(run))]
        named, unnamed = _with_tag([*held_out, *tested], by)
        notes += [f"Without the tag {by} and left out: {', '.join(unnamed)}."] if unnamed else []
        keys = sorted({(answers.data, answers.kind) for answers in named})
        chosen = {key: tuple(a for a in named if (a.data, a.kind) == key) for key in keys}
        return cls(by, [Section(*key, by, answers) for key, answers in chosen.items()], notes)

    def page(self) -> str:
        parts = [f"# Results by {self.by}", *self.notes, NOTE]
        for section in self.sections:
            parts += [f"## {section.title}", *_differing(section), overall_table(section)]
            for value in section.values:
                rows = [score.cells() for score in section.of(value)]
                parts += [f"### Table for {self.by}: {value}", markdown(HEADER, rows)]
        return "\n\n".join(parts)


def overall_table(section: Section) -> str:
    """Genres × models, accuracy; then the mean over genres, and all questions together."""
    questions, models = section.questions, section.answers
    chances, accuracies, rows = [], [], []
    for value in section.values:
        chosen = questions.loc[questions[section.by] == value, "num_options"].to_numpy()
        by_model = {id(score.answers): score.accuracy for score in section.of(value)}
        chances.append(chance_accuracy(chosen))
        accuracies.append([by_model.get(id(answers), np.nan) for answers in models])
        rows.append([value, str(len(chosen)), loss_cell(chances[-1]), *map(_accuracy_cell, accuracies[-1])])
    means = np.array(accuracies).mean(axis=0)  # unknown for a model that lacks a genre
    rows.append([f"**mean over {section.by}**", "", loss_cell(float(np.mean(chances))), *map(_accuracy_cell, means)])
    pooled = [answers.rows["correct"].mean() for answers in models]
    chance = chance_accuracy(questions["num_options"].to_numpy())
    rows.append(["**all questions**", str(len(questions)), loss_cell(chance), *map(_accuracy_cell, pooled)])
    return markdown([section.by, "Questions", "Chance", *[answers.model for answers in models]], rows)


def results_table(results: Sequence[Mapping[str, Any]], by: str = "genre") -> str:
    """The rows of result.json by genre; in one line where they have none, or where no answer is known."""
    rows = result_rows(results)
    if not len(rows):
        return f"{len(results):,} test questions answered; their right answers are not known here"
    others = f" of {len(results):,}, whose answers are known" if len(rows) < len(results) else ""
    chance = chance_accuracy(rows["num_options"].to_numpy())
    head = f"{len(rows):,} test questions{others}: accuracy {rows['correct'].mean():.4f}, chance {chance:.4f}"
    answers = Answers("Score", NOTHING, Data("", "", False), "test rows", rows)
    sections = [Section(answers.data, answers.kind, by, (one,)) for one in _with_tag([answers], by)[0]]
    return "\n\n".join([head, *map(overall_table, sections)])


def _with_tag(answers: Sequence[Answers], by: str) -> tuple[list[Answers], list[str]]:
    """Those whose rows have the tag, an empty one named; and the names of the others."""
    named = [
        replace(a, rows=a.rows.assign(**{by: a.rows[by].fillna("").replace("", NO_TAG)}))
        for a in answers
        if by in a.tags
    ]
    return named, [f"{a.model} ({a.kind})" for a in answers if by not in a.tags]


def _differing(section: Section) -> list[str]:
    """A sentence where the runs did not answer the same questions."""
    asked = {frozenset(answers.rows["id"]) for answers in section.answers}
    return ["The models were not asked the same questions: compare only what both answered."] * (len(asked) > 1)


def _accuracy_cell(value: float) -> str:
    return NOTHING if np.isnan(value) else f"{value:.4f}"
