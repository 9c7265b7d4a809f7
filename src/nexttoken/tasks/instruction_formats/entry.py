"""One row that was read: its example, the id as the file has it, and what deserves a count."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nexttoken.data.json_lines import SURROGATE, UNFIT_ID, Place, RowFault, dump_json
from nexttoken.types import Example

ID_KEYS = ("task_id", "id", "dialogue_id", "conversation_id", "uuid")  # the first that a row has is its id


@dataclass(frozen=True, slots=True)
class Entry:
    """`original` is the row's id as the file has it, 7 or "7": a submission gives it back so; `example.id` is text."""

    original: int | str
    example: Example
    place: Place
    remarks: tuple[str, ...] = ()


def id_of(row: Mapping[str, Any], place: Place) -> int | str:
    """Return the row's own id, `<file>-<row>` where it has none. Raises RowFault for what no submission can hold."""
    value = next((row[key] for key in ID_KEYS if row.get(key) is not None), None)
    if value is None:
        return f"{place.stem}-{place.row}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowFault(f"its id is {value!r}, expected text or a whole number")
    if isinstance(value, str) and (not value.strip() or UNFIT_ID.search(value)):
        raise RowFault(f"id {value[:40]!r}, expected one line of text without lone surrogates")
    return value


def tags_of(row: Mapping[str, Any], own: Collection[str], place: Place) -> dict[str, str]:
    """Return what else the row says, as texts: lists of texts joined by commas, other values as JSON."""
    further = {key: _as_text(value) for key, value in row.items() if key not in own and key not in ID_KEYS}
    return {key: text for key, text in further.items() if text} | {"file": place.file}


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return dump_json(value)


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """Return the text under `key`, None where it is absent or null. Raises RowFault for anything else."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise RowFault(f"{key} is {type(value).__name__}, expected text")
    return value


def without_halves(example: Example) -> tuple[Example, int]:
    """Return the example with U+FFFD for each lone surrogate, which no encoder writes, and how many there were."""
    texts = [
        *(turn for turns in example.fields.values() for turn in turns),
        example.answer or "",
        *example.tags.values(),
    ]
    if not (count := sum(0 if _encodes(text) else len(SURROGATE.findall(text)) for text in texts)):
        return example, 0
    return replace(
        example,
        fields={name: tuple(_whole(turn) for turn in turns) for name, turns in example.fields.items()},
        tags={name: _whole(text) for name, text in example.tags.items()},
        answer=None if example.answer is None else _whole(example.answer),
    ), count


def _encodes(text: str) -> bool:
    """Encoding is several times faster than a search, and every text of a gigabyte is asked."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)
