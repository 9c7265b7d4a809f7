"""Recorded answers of a retriever: saved in a file, and read where the retriever cannot run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ValidationError

from nexttoken.data.files import write_text
from nexttoken.errors import UserError
from nexttoken.types import Passage, Retriever

FIX = 'expected lines {"query": ..., "passages": [text or {"text": ...}, ...]}'


class Record(BaseModel):
    """A line of the file."""

    query: str
    passages: list[str | Passage]


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
        write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), path)
        return hits


def read_recorded(path: Path) -> dict[str, list[Passage]]:
    """Passages by query; the later line counts for a query that is there twice."""
    found: dict[str, list[Passage]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"recorded passages {path} cannot be read ({error}); {FIX}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = Record.model_validate_json(line)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise UserError(f"recorded passages {path}, line {number}: {reason}; {FIX}") from None
            found[record.query] = [Passage(one) if isinstance(one, str) else one for one in record.passages]
    return found
