"""The parts of a submission: a Parquet file for each shard with its ids and class probabilities, sealed by hashes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.data.whole_files import whole_file
from nexttoken.errors import UserError, one_line
from nexttoken.tasks.submission import check_probs

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SEAL = b"nexttoken"  # the key of a part's seal in the metadata of its file
NAME = "part-{:05d}.parquet"


@dataclass(frozen=True)
class Parts:
    """The files part-00000.parquet and so on in `folder`, with a column `id_name` and one for each class.

    `asked` is a hash of the run and of how it was asked: a part of another one does not fit.
    """

    folder: Path
    asked: str
    id_name: str
    classes: tuple[str, ...]

    def refuse_others(self) -> None:
        """Raise UserError where the folder cannot be made, or a part's place holds another file, without its rows."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(
                f"{self.folder} is no folder, and the parts go there; choose another name=..., or move it away"
            )
        for path in sorted(self.folder.glob(NAME.replace("{:05d}", "[0-9]*"))):
            with _opened(path) as file:
                _seal(path, file.schema_arrow)

    def path(self, number: int) -> Path:
        return self.folder / NAME.format(number)

    def write(self, number: int, rows: str, ids: Sequence[str], probs: np.ndarray) -> None:
        """Write the answers (N, K) to the rows of hash `rows`, whole or not at all. Raises UserError for unfit ones."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        check_probs(str(self.path(number)), ids, probs, self.classes)
        columns = [pa.array(ids, pa.string()), *map(pa.array, np.ascontiguousarray(probs.T, np.float64))]
        seal = json.dumps({"asked": self.asked, "rows": rows, "answers": _hash(columns)})
        table = pa.table(columns, names=[self.id_name, *self.classes]).replace_schema_metadata({SEAL: seal})
        with whole_file(self.path(number)) as part:
            pq.write_table(table, part)

    def read(self, number: int, rows: str) -> tuple[list[str], np.ndarray] | None:
        """The ids and answers (N, K) of a part; None where it is not there, is damaged, or is of other rows or a run.

        Raises UserError for a file that is no part of a submission.
        """
        path = self.path(number)
        if not path.exists():
            return None
        with _opened(path) as file:
            table = file.read()
        seal = _seal(path, table.schema)
        columns = [column.combine_chunks() for column in table.columns]
        if seal != {"asked": self.asked, "rows": rows, "answers": _hash(columns)}:
            return None
        return columns[0].to_pylist(), np.stack([column.to_numpy() for column in columns[1:]], axis=1)

    def remove_after(self, number: int) -> None:
        """Remove the parts from this number on, of an earlier test with more rows."""
        while self.path(number).exists():
            self.path(number).unlink()
            number += 1


@contextmanager
def _opened(path: Path) -> "Iterator[pq.ParquetFile]":
    """A context with the Parquet file at `path`. Raises UserError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); remove it, and its rows are asked again") from None


def _seal(path: Path, schema: "pa.Schema") -> Any:
    """The seal of a part. Raises UserError for a file that has none."""
    metadata = schema.metadata or {}
    if SEAL not in metadata:
        raise UserError(f"{path} is no part of a submission; choose another name=..., or move it away")
    return json.loads(metadata[SEAL])


def _hash(columns: Sequence[Any]) -> str:
    """A hash of the ids and of the probabilities to the last bit."""
    digest = hashlib.sha256("\n".join(columns[0].to_pylist()).encode())
    for column in columns[1:]:
        digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()
