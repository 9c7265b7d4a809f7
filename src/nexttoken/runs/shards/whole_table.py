"""A submission of any length put together from its parts, a part in memory at a time, and read back."""

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import csv_rows
from nexttoken.errors import UserError

Blocks = Callable[[], Iterator[Sequence[Sequence[Any]]]]  # the columns of one part after the other, the ids first


def write_csv(header: Sequence[str], blocks: Blocks, path: Path) -> None:
    """Write a CSV as `write_submission` does. Raises UserError where it does not read back."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for columns in blocks():
            writer.writerows(zip(*columns, strict=True))
    given = chain([list(header)], (list(map(str, row)) for columns in blocks() for row in zip(*columns, strict=True)))
    written = (cells for _, cells in csv_rows(path))
    if any(one != other for one, other in zip(given, written, strict=True)):
        _refuse(path)


def write_parquet(header: Sequence[str], blocks: Blocks, path: Path) -> None:
    """Write a Parquet table, a row group for each part. Raises UserError where it does not read back."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (pa.table([*map(pa.array, columns)], names=list(header)) for columns in blocks())
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=len(table))
    with pq.ParquetFile(path) as file:
        for number, columns in enumerate(blocks()):
            if file.read_row_group(number).to_pydict() != dict(zip(header, map(list, columns), strict=True)):
                _refuse(path)


def _refuse(path: Path) -> None:
    raise UserError(f"{path} does not read back as it was written; is the disk full? Write it again")
