"""The columns of a table that are texts to show to a model, and those that are ids, dates, addresses or numbers."""

import re
from collections.abc import Sequence

MOST = 0.9  # of a column's cells are of a kind
KINDS = {
    "addresses": re.compile(r"https?://\S+"),
    "dates": re.compile(r"\d{4}[-/]\d\d?[-/]\d\d?([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4}( .*)?"),
    "numbers": re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.I),
}
ID_NAME = re.compile(r"(^|_)id$|[a-z]I[dD]$|^ID$")
CODE = re.compile(r"(?=.*\d)[\w-]{8,}")


def is_number(cell: str) -> bool:
    return bool(KINDS["numbers"].fullmatch(cell.strip()))


def left_out(name: str, cells: Sequence[str]) -> str:
    """The reason for which a column is not shown to the model; "" for a text."""
    given = [cell.strip() for cell in cells if cell.strip()]
    if len({*given}) < 2:
        return "always the same"
    if ID_NAME.search(name):
        return "ids"
    if kind := next((kind for kind, pattern in KINDS.items() if _most(given, pattern)), ""):
        return kind
    return "ids" if len({*given}) > MOST * len(given) and _most(given, CODE) else ""


def _most(cells: Sequence[str], pattern: re.Pattern[str]) -> bool:
    return sum(bool(pattern.fullmatch(cell)) for cell in cells) >= MOST * len(cells)
