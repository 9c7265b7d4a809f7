"""The tokens that each variant learns from: a table, and a histogram, from the tokens.csv of every fold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nexttoken.data.files import write_text
from nexttoken.errors import UserError, first_five
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import markdown
from nexttoken.report.published import read_published
from nexttoken.runs.read import find_folds, read_numbers
from nexttoken.runs.read_open import variant_names

HEADER = ["variant", "rows", "total", "mean", "max", "min", "user, mean", "assistant, mean", "other, mean"]
COUNTS = ("num_tokens", "num_user_tokens", "num_assistant_tokens")
NOTES = (
    "Tokens per training row, each row of the finished folds once. User and assistant: all their turns of a row "
    "together; other: tokens of neither."
)
NUM_BINS = 50


def token_report(paths: Sequence[Path], out: Path | None, published: bool) -> str:
    """Write tokens.md and tokens.png into `out`; return the output. Raises UserError where no fold has a tokens.csv."""
    folds = find_folds(paths, "tokens.csv")
    if not folds:
        fix = "train an open task first: python train.py task=dialogue fold=0"
        raise UserError(f"{first_five(paths)}: no <name>/fold<k>/tokens.csv; {fix}")
    variants, task_dir = read_variants(folds), folds[0].parent.resolve().parent
    out = out or task_dir.parent / "judge" / task_dir.name
    key = token_histogram({name: rows["num_tokens"].to_numpy() for name, rows in variants.items()}, out / "tokens.png")
    parts = [tokens_table(variants), NOTES, *([published_table()] if published else [])]
    write_text("\n\n".join([*parts, "![Tokens per row](tokens.png)", *key]), out / "tokens.md")
    return "\n\n".join([*parts, f"wrote tokens.md and tokens.png to {out}"])


def read_variants(folds: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Each variant's training rows by name, each once; a seed changes no row, so one run speaks for its variant."""
    names = variant_names(list(dict.fromkeys(fold.parent for fold in folds)))
    first = {name: folder for folder, name in reversed(names.items())}
    types, tables = dict.fromkeys(COUNTS, int), {}
    for name in dict.fromkeys(names.values()):
        of_folds = [read_numbers(fold / "tokens.csv", types) for fold in folds if fold.parent == first[name]]
        tables[name] = pd.concat(of_folds, ignore_index=True).drop_duplicates("id")
    return tables


def tokens_table(variants: Mapping[str, pd.DataFrame]) -> str:
    """A row of counts per variant."""
    rows = []
    for name, table in variants.items():
        tokens, user, assistant = (table[column] for column in COUNTS)
        counts = [len(table), tokens.sum(), tokens.mean(), tokens.max(), tokens.min()]
        counts += [user.mean(), assistant.mean(), (tokens - user - assistant).mean()]
        rows.append([name, *(f"{count:.2f}" if isinstance(count, float) else f"{count:,}" for count in counts)])
    return markdown(HEADER, rows)


def published_table() -> str:
    """The published counts under the same headings."""
    form = [
        "{name}: {utterances} utterances, windows {windows}, persona {persona}",
        "{rows:,}", "{total:,}", "{mean:.2f}", "{most:,}", "{least:,}", "{user:.2f}", "{assistant:.2f}", "",
    ]  # fmt: skip
    rows = [[cell.format(**variant) for cell in form] for variant in read_published("variants")]
    head = "Published (other dialogues, Gemma 2's tokenizer, before a fifth of the rows went to the test):"
    return f"{head}\n\n{markdown(HEADER, rows)}"


def token_histogram(variants: Mapping[str, np.ndarray], path: Path) -> list[str]:
    """Write a PNG with a panel per variant from its tokens per row, (N,) each, with the mean as a line.

    Returns the key of the numbers that replace names which no installed font can write, else [].
    """
    lettering = Lettering.for_names(list(variants))
    edges = np.linspace(0, max(int(tokens.max()) for tokens in variants.values()) + 1, NUM_BINS + 1)
    with lettering.figure(8.0, 0.8 + 1.3 * len(variants), path) as figure:
        panels = figure.subplots(len(variants), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, (name, tokens)) in enumerate(zip(panels, variants.items(), strict=True)):
            axes.hist(tokens, edges, color=f"C{place % 10}")
            axes.axvline(tokens.mean(), color="0.2", linewidth=1, linestyle="--")
            axes.set_ylabel("rows")
            title = f"{lettering.show(name)}: {len(tokens):,} rows, mean {tokens.mean():.1f}"
            axes.set_title(title, fontsize=9, loc="left")
        panels[-1].set_xlabel("tokens per row")
    return lettering.key
