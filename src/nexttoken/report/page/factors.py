"""Factors to slice the rows of a run by: what its files record of each row, and what the texts say."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.errors import UserError
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.slices import LABEL
from nexttoken.report.page.text_parts import Texts
from nexttoken.runs.scored_runs import Run
from nexttoken.transforms.curation.language import language_of

QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
GROUP_SIZES = ("alone", "two alike", "three or more alike")
TURNS = ("0", "1", "2", "3", "4 or more")
MAX_LETTERS = 300  # of a text that its language is found by
UNKNOWN = "unknown"
MEASURED = ("seconds", "outside")  # columns of rows.csv that are no kind of row, whatever their values


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
        if 1 < table[name].nunique() <= max(30, len(table) // 20) and not _is_measured(table[name])
    }


def _is_measured(column: "pd.Series[str]") -> bool:
    """True for a column of fractions, such as seconds."""
    numbers = pd.to_numeric(column[column != ""], errors="coerce")  # a column may know some rows only
    return str(column.name) in MEASURED or bool((numbers % 1 > 0).any() and numbers.notna().all())


def text_factors(texts: Texts) -> dict[str, pd.Categorical]:
    """The factors of all rows of `texts` that these say; {} without texts."""
    if not texts.prompts:
        return {}
    factors = {"length of the prompt": _quarters([*map(len, texts.prompts)])}
    if any(texts.answers):
        factors["length of the answers"] = _quarters([sum(map(len, answers)) for answers in texts.answers])
    turns = {"turns": _ordered(np.minimum(texts.turns, len(TURNS) - 1), TURNS)}
    return factors | turns | _languages(texts.prompts)


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
