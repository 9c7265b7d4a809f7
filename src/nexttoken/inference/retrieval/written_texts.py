"""Search among texts in memory, such as the names of classes: written as a corpus, and found by their number."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nexttoken.data.files import hash_text, write_text
from nexttoken.inference.retrieval.corpus import CorpusRetriever

WHOLE_TEXT = 2**31  # characters of a passage, so that no text is cut


def write_texts(texts: Sequence[str], folder: Path) -> Path:
    """The corpus file of `texts`, text i in line i + 1, named by its hash; it is written once for the same texts."""
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path = folder / f"texts-{hash_text(lines)[:16]}.jsonl"
    if not path.exists():
        write_text(lines.encode(errors="replace").decode(), path)
    return path


def search_texts(retriever: CorpusRetriever, path: Path, queries: Sequence[str], num_hits: int) -> list[list[int]]:
    """For each query the numbers of up to `num_hits` texts of a file of `write_texts`, the best first."""
    whole: Any = replace(retriever, corpus=str(path), num_hits=num_hits, passage_characters=WHOLE_TEXT)
    return [[int(hit.source.rpartition(":")[2]) - 1 for hit in hits] for hits in whole.search(queries)]
