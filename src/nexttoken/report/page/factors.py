"""Factors to slice the rows of a run by: what its files record of each row, and what the texts say."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.errors import UserError
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.slices import LABEL
from nexttoken.runs.scored_runs import Run
from nexttoken.transforms.curation.language import language_of
from nexttoken.types import OPTIONS, Example

QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
GROUP_SIZES = ("alone", "two alike", "three or more alike")
TURNS = ("0", "1", "2", "3", "4 or more")
MEASURED = ("seconds",)  # columns of rows.csv that are numbers of every row
MAX_LETTERS = 300  # of a text that its language is found by
UNKNOWN = "unknown"


def factors_of(run: Run, outcome: Outcome, texts: Mapping[str, pd.Categorical]) -> dict[str, pd.Categorical]:
    """The factors of a run's rows, (N,) each; `texts` are those that the texts say."""
    _, places, sizes = np.unique(outcome.groups, return_inverse=True, return_counts=True)
    return {
        LABEL: _ordered(outcome.labels, outcome.names),
        "fold": pd.Categorical(outcome.folds),
        **texts,
        **_recorded(run, outcome.ids),
        "near-duplicate rows": _ordered(np.minimum(sizes[places], 3) - 1, GROUP_SIZES),
    }


def _recorded(run: Run, ids: np.ndarray) -> dict[str, pd.Categorical]:
    """The columns of rows.csv with few values: tags, numbers of options, and what inference did with a row."""
    try:
        parts = [read_table(fold.folder / "rows.csv", ["id"], "run the fold again") for fold in run.folds]
    except UserError:  # a run of an earlier version
        return {}
    table = pd.concat(parts).drop_duplicates("id").set_index("id").reindex(ids).fillna("")
    return {
        str(name).replace("num_options", "options").replace("_", " "): pd.Categorical(table[name].to_numpy())
        for name in table
        if name not in MEASURED and 1 < table[name].nunique() <= max(30, len(table) // 20)
    }


def text_factors(chapter: Chapter, ids: np.ndarray) -> dict[str, pd.Categorical]:
    """The factors of the rows that their texts say; {} where the texts of a row are not here."""
    found = chapter.examples
    if not found or not all(one in found for one in ids):
        return {}
    examples = [found[one] for one in ids]
    sides = answer_fields(examples[0], chapter)
    prompts = [text_of(one, [name for name in one.fields if name not in sides]) for one in examples]
    factors = {"length of the prompt": _quarters([*map(len, prompts)])}
    if sides:
        factors["length of the answers"] = _quarters([len(text_of(one, sides)) for one in examples])
    turns = np.array(
        [max(map(len, one.fields.values()), default=1) if OPTIONS not in one.fields else 1 for one in examples]
    )
    factors["turns"] = _ordered(np.minimum(turns, 4), TURNS)
    return factors | _languages(prompts)


def answer_fields(example: Example, chapter: Chapter) -> list[str]:
    """The fields of the answers between which the task decides: both sides of a pair, or the options; else none."""
    return [name for name in example.fields if name == OPTIONS or name.endswith(("_a", "_b"))]


def text_of(example: Example, names: Sequence[str]) -> str:
    """The texts of these fields, a line for each turn."""
    return "\n".join(turn for name in names for turn in example.fields[name])


def _quarters(lengths: Sequence[int]) -> pd.Categorical:
    """The quarter of each length among all of them; equal lengths are in the same one."""
    edges = np.quantile(lengths, [0.25, 0.5, 0.75])
    return _ordered(np.searchsorted(edges, lengths, side="left"), QUARTERS)


def _ordered(codes: np.ndarray, names: Sequence[str]) -> pd.Categorical:
    """The names at these places, which keep the order of `names`."""
    return pd.Categorical(np.array(names, dtype=object)[codes], categories=list(names))


def _languages(prompts: Sequence[str]) -> dict[str, pd.Categorical]:
    """The language of each prompt's beginning; {} where the detector is not installed."""
    try:
        codes = [_language(text[:MAX_LETTERS]) for text in prompts]
    except UserError:
        return {}
    return {"language": pd.Categorical(np.array(codes, dtype=object))}


@cache
def _language(text: str) -> str:
    """The language of a text, found once for all runs. Raises UserError where the detector is not installed."""
    return language_of(text) or UNKNOWN
