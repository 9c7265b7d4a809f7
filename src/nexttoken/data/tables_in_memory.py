"""Tables in memory read as rows: a cell means the same whatever type pandas gave it, and ids go back as given."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.data.row_faults import Place, RowFault
from nexttoken.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ID_KEYS = ("id", "qid", "q_id")  # of the tasks that take tables
MAX_WHOLE = 2**53  # a float holds every whole number up to this one


def rows_in_memory(
    rows: "pd.DataFrame | Iterable[Mapping[str, Any]]", texts: Collection[str] = ()
) -> Iterator[tuple[Place, dict[str, Any] | RowFault]]:
    """Yield the rows of a table, or dictionaries, by column name; absent cells (None, NaN, NA) are left out.

    The columns `texts` hold text: numbers in them, of which pandas makes numbers by itself, become text again.
    Raises: UserError for a table with two columns of one name.
    """
    records: Any = _records(rows) if hasattr(rows, "to_dict") else rows  # type: ignore[arg-type]
    for number, row in enumerate(records, start=1):
        if isinstance(row, Mapping):
            cells = {str(key): _as_python(value) for key, value in row.items() if not is_absent(value)}
            yield Place(row=number), {key: _as_text(cell) if key in texts else cell for key, cell in cells.items()}
        else:
            yield Place(row=number), RowFault(f"{type(row).__name__}, expected a dictionary")


def ids_as_given(rows: Any, ids: Sequence[str], own: object = None) -> "pd.Series":
    """Return the cells that `ids`, the rows' ids as text, were read from, in their own type: tables join by them.

    The column is called `own`, or has a usual name. A row without an id keeps the one that it was given.
    """
    import pandas as pd

    frame = rows if hasattr(rows, "to_dict") else pd.DataFrame(list(rows), dtype=object)
    for key in (key for key in (own, *ID_KEYS) if isinstance(key, str) and key in frame):
        cells = frame[key].tolist()
        if all(is_absent(cell) or _id_text(cell) == one for cell, one in zip(cells, ids, strict=True)):
            if not any(map(is_absent, cells)):
                return frame[key].reset_index(drop=True)
            return pd.Series([one if is_absent(c) else c for c, one in zip(cells, ids, strict=True)], dtype=object)
    return pd.Series(list(ids))


def is_absent(value: Any) -> bool:
    """Return whether a cell is None or one of pandas' marks of absence."""
    import pandas as pd

    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _records(frame: "pd.DataFrame") -> list[dict[Any, Any]]:

    if not frame.columns.is_unique:
        raise UserError(
            f"the table names columns twice: {', '.join(map(str, frame.columns))[:200]}; rename one of each"
        )
    records = frame.to_dict("records")
    for name in (name for name in frame if _is_made_float(frame[name])):
        for row in records:
            row[name] = _whole(row[name])
    return records


def _is_made_float(column: "pd.Series") -> bool:
    """Return whether pandas may have made floats of whole numbers: it does for one absent cell, or one with a point."""
    import pandas as pd

    values = column.cat.categories if column.dtype == "category" else column
    if not pd.api.types.is_float_dtype(values):
        return False
    present = column.dropna().to_numpy(dtype=float)
    return len(present) < len(column) or bool((present != np.floor(present)).any())


def _whole(cell: Any) -> Any:
    is_whole = isinstance(cell, float | np.floating) and bool(cell % 1 == 0) and abs(float(cell)) < MAX_WHOLE
    return int(cell) if is_whole else cell


def _as_python(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return value if value is None or isinstance(value, Mapping) else str(value)


def _id_text(cell: Any) -> str:
    return str(_whole(cell))
