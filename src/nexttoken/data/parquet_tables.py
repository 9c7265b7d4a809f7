"""Parquet tables read a batch of rows at a time, with the package pyarrow."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from nexttoken.data.file_kinds import FROM_PARQUET, say_kind
from nexttoken.data.row_faults import Place
from nexttoken.errors import UserError, one_line

PARQUET = b"PAR1"
BATCH = 1_000  # rows


def is_parquet(path: Path) -> bool:
    """Return whether the file begins and ends as a Parquet table does: a text may begin with the same letters."""
    try:
        with path.open("rb") as file:
            if file.read(len(PARQUET)) != PARQUET:
                return False
            return file.seek(-min(len(PARQUET), file.seek(0, 2)), 2) >= len(PARQUET) and file.read() == PARQUET
    except (OSError, ValueError):  # whoever opens the file says so
        return False


def parquet_rows(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield each row as a JSON object would hold it, with its place. Raises UserError for a damaged table."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path} is a Parquet table; pip install pyarrow, or {FROM_PARQUET}") from None
    say_kind(path, "a Parquet table", ".parquet")
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(names) > len(set(names)):
                raise UserError(f"{path} names a column twice; rename one of each")
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield Place(path.name, row=number), {name: _plain(value) for name, value in row.items()}
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"{path} is a damaged Parquet table ({one_line(error)}); download it again") from None
    if not number:
        raise UserError(f"{path} is a Parquet table without rows: expected rows; download or convert it again")


def refuse_nested(path: Path, columns: Collection[str]) -> None:
    """Raise UserError where one of `columns` of a Parquet table holds lists, objects or bytes instead of text."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:  # `parquet_rows` says so, and of a damaged table, too
        return
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):  # a name that is not UTF-8
        return
    for field in schema:
        nested, binary = pa.types.is_nested(field.type), pa.types.is_binary(field.type)
        if field.name in columns and (nested or binary or pa.types.is_large_binary(field.type)):
            fix = f"write the table with this column as text, such as table[{field.name!r}].astype(str)"
            raise UserError(f"{path}: the column {field.name} holds {field.type}, expected text or numbers; {fix}")


def _plain(value: Any) -> Any:
    """Return the value as JSON holds it: dates and decimals as text, bytes as UTF-8."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case bytes():
            return value.decode("utf-8", errors="replace")
    return str(value)
