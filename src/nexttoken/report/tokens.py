"""The tokens that each variant learns from: a table, and a histogram, from the tokens.csv of every fold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.data.files import whole_file
from nexttoken.errors import UserError, first_five
from nexttoken.report.markdown import markdown
from nexttoken.report.published import read_published
from nexttoken.report.token_plot import token_histogram
from nexttoken.runs.folder import FOLD_NAME
from nexttoken.runs.read_open import variant_names

HEADER = ["variant", "rows", "total", "mean", "max", "min", "user, mean", "assistant, mean", "other, mean"]
COUNTS = ("num_tokens", "num_user_tokens", "num_assistant_tokens")
NOTES = (
    "Tokens per training row, each row of the finished folds once. User and assistant: all their turns of a row "
    "together; other: what is of neither."
)


def token_report(paths: Sequence[Path], out: Path | None, published: bool) -> str:
    """Write tokens.md and tokens.png into `out`; return the output."""
    folders = run_folders(paths)
    variants = read_variants(folders)
    task_dir = folders[0].resolve().parent
    out = out or task_dir.parent / "judge" / task_dir.name
    key = token_histogram(
        {name: table["num_tokens"].to_numpy() for name, table in variants.items()}, out / "tokens.png"
    )
    parts = [tokens_table(variants), NOTES, *([published_table()] if published else [])]
    with whole_file(out / "tokens.md") as part:
        part.write_text("\n\n".join([*parts, "![Tokens per row](tokens.png)", *key]) + "\n", encoding="utf-8")
    return "\n\n".join([*parts, f"wrote tokens.md and tokens.png to {out}"])


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs with a tokens.csv. Raises UserError where there is none."""
    found = {table.resolve(): table for path in paths for table in sorted(path.glob("**/fold*/tokens.csv"))}
    folders = dict.fromkeys(t.parent.parent for t in found.values() if FOLD_NAME.fullmatch(t.parent.name))
    if not folders:
        raise UserError(
            f"{first_five(paths)}: no <name>/fold<k>/tokens.csv; train an open task first: "
            "python train.py task=dialogue fold=0"
        )
    return list(folders)


def read_variants(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Each variant's training rows by name; a seed changes no row, so one run speaks for all of its variant."""
    names = variant_names(folders)
    first = {name: folder for folder, name in reversed(names.items())}
    return {name: _read_rows(first[name]) for name in dict.fromkeys(names.values())}


def tokens_table(variants: Mapping[str, pd.DataFrame]) -> str:
    return markdown(HEADER, [[name, *_cells(table)] for name, table in variants.items()])


def published_table() -> str:
    """The published counts under the same headings."""
    form = [
        "{name}: {utterances} utterances, windows {windows}, persona {persona}",
        "{rows:,}", "{total:,}", "{mean:.2f}", "{most:,}", "{least:,}", "{user:.2f}", "{assistant:.2f}", "",
    ]  # fmt: skip
    rows = [[cell.format(**variant) for cell in form] for variant in read_published("variants")]
    head = "Published (other dialogues, Gemma 2's tokenizer, before a fifth of the rows went to the test):"
    return f"{head}\n\n{markdown(HEADER, rows)}"


def _cells(table: pd.DataFrame) -> list[str]:
    tokens, user, assistant = (table[name] for name in COUNTS)
    means = [user.mean(), assistant.mean(), (tokens - user - assistant).mean()]
    counts = [f"{len(table):,}", f"{tokens.sum():,}", f"{tokens.mean():.2f}", f"{tokens.max():,}", f"{tokens.min():,}"]
    return [*counts, *(f"{mean:.2f}" for mean in means)]


def _read_rows(folder: Path) -> pd.DataFrame:
    """Every training row of a run's folds once. Raises UserError for a broken table."""
    tables = []
    for path in sorted(folder.glob("fold*/tokens.csv")):
        text = read_table(path, ["id", *COUNTS], "run the fold again")
        try:
            tables.append(pd.DataFrame({"id": text["id"], **{name: text[name].map(int) for name in COUNTS}}))
        except ValueError as error:
            raise UserError(f"{path}: {error}; run the fold again") from error
    return pd.concat(tables, ignore_index=True).drop_duplicates("id")
