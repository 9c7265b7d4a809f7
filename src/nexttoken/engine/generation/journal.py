"""The journal of a generation: a line for each written row, so that a killed one goes on where it stopped.

The first line says what was asked of which model; every other line is {key, id, output, num_tokens, finished, seconds}.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from nexttoken.engine import journal
from nexttoken.engine.generation.rows import GenerationPrompt, Written

FIELDS = {"output": str, "num_tokens": int, "finished": bool, "seconds": float}


def key(prompt: GenerationPrompt) -> str:
    """The same as long as a row's id and tokens are: a changed prompt is written anew."""
    tokens = prompt.token_ids.astype("<i4").tobytes()
    return hashlib.sha256(prompt.id.encode("utf-8", "surrogatepass") + b"\0" + tokens).hexdigest()[:32]


class Journal(journal.Journal[Written]):
    """Written rows: each is on the disk when `add` returns."""

    def _row(self, line: Mapping[str, Any]) -> Written | None:
        if not all(isinstance(line.get(name), kind) for name, kind in FIELDS.items()):
            return None
        return Written(line["id"], line["output"], line["num_tokens"], line["finished"], line["seconds"])

    def _values(self, row: Written) -> dict[str, Any]:
        own = {"output": row.text, "num_tokens": row.num_tokens, "finished": row.finished, "seconds": row.seconds}
        return {"id": row.id, **own}
