"""Recorded answers of a retriever: saved in a file, and read where the retriever cannot run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ValidationError

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.data.row_faults import RowFault
from nexttoken.errors import UserError
from nexttoken.types import Passage, Retriever

FIX = 'expected lines {"query": ..., "passages": [text or {"text": ...}, ...]}'


class Record(BaseModel):
    """A line of the file."""

    query: str
    passages: list[str | Passage]

    @property
    def found(self) -> list[Passage]:
        return [Passage(one) if isinstance(one, str) else one for one in self.passages]


@dataclass(frozen=True)
class Recorded:
    """The passages that the file has for a query, none for an unknown one.

    Raises UserError at once when the file is missing or a line is broken.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    path: str
    _found: Mapping[str, list[Passage]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_found", read_recorded(Path(self.path)))

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        return [list(self._found.get(query, ())) for query in queries]


@dataclass(frozen=True)
class Recording:
    """Passes queries on to `retriever` and adds its answers to the file at `path`, but no failures."""

    retriever: Retriever
    path: str

    @property
    def failed(self) -> frozenset[str]:
        return getattr(self.retriever, "failed", frozenset())

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        hits = self.retriever.search(queries)
        path = Path(self.path)
        found = read_recorded(path) if path.exists() else {}
        found |= {query: hit for query, hit in zip(queries, hits, strict=True) if query not in self.failed}
        records = [{"query": query, "passages": list(map(asdict, some))} for query, some in found.items()]
        with whole_file(path) as part:
            write_json_lines(records, part)
        return hits


def read_recorded(path: Path) -> dict[str, list[Passage]]:
    """Passages by query; the later line counts for a query that is there twice."""
    found: dict[str, list[Passage]] = {}
    is_empty = path.is_file() and not path.stat().st_size  # no query had an answer
    for place, row in () if is_empty else json_rows(path):
        try:
            if isinstance(row, RowFault):
                raise row
            record = Record.model_validate(row)
        except (RowFault, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise UserError(f"recorded passages {path}, line {place.line or place.row}: {reason}; {FIX}") from None
        found[record.query] = record.found
    return found
