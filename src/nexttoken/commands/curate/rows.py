"""Curated rows as JSON lines that the tasks read again: instructions under their usual keys, dialogues by turns."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import dump_json
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

NOT_WRITTEN = frozenset({"file", DIALOGUE})  # tags that reading gives again


def line(example: Example) -> dict[str, Any]:
    """`id`, `instruction`, `input`, `output`, or `id` and `turns`; then the further keys, which were read as text."""
    if DIALOGUE in example.fields:
        row: dict[str, Any] = {"id": example.id, "turns": list(turns(example))}
    else:
        row = {"id": example.id}
        row |= {name: "\n".join(example.fields.get(name, ())) for name in (INSTRUCTION, INPUT)}
        row["output"] = example.answer
        others = {name: "\n".join(value) for name, value in example.fields.items() if name not in row}
        row |= {name: text for name, text in others.items() if text}
    return row | {key: text for key, text in example.tags.items() if key not in row and key not in NOT_WRITTEN}


def turns(example: Example) -> Iterable[dict[str, str]]:
    texts = [*example.fields[DIALOGUE], *([] if example.answer is None else [example.answer])]
    for number, text in enumerate(texts):
        yield {"speaker": "assistant" if number % 2 else "user", "utterance": text}


def write_rows(rows: Iterable[Example], path: Path) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(dump_json(line(row)) + "\n" for row in rows)
