"""Further rows of a test, made from the visible ones: longer and emptier texts, other scripts, unseen groups."""

import json
import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Column = tuple[str, ...]  # keys that lead to a text: ("turns", "utterance") for those of a dialogue
KINDS = ("empty", "long", "foreign", "unseen")  # of changes to one text of a row
SHARE_CHANGED = 0.45  # of the rows; the others are copies of rows under new ids
MAX_CHARACTERS = 20_000  # of a long text
FOREIGN = (  # scripts with other directions, widths and joins than Latin
    "مرحبا، كيف حالك اليوم؟ أريد أن أعرف المزيد.",
    "नमस्ते, आज आप कैसे हैं? मुझे और बताइए।",
    "สวัสดีครับ วันนี้เป็นอย่างไรบ้าง",
    "你好，今天过得怎么样？请告诉我更多。",
    "こんにちは。今日は元気ですか。",
    "안녕하세요, 오늘은 어떻게 지내세요?",
    "Здравствуйте, как дела? שלום, מה שלומך?",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 e\u0301 Z\u0335\u0353a\u0317lgo \u202eright to left\u202c \ufeff",
)


@dataclass(frozen=True)
class Change:
    """A kind of change to one text of a column. `str()` names it as in `empty prompt`."""

    kind: str
    column: Column

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(self.column)}"


def further_rows(
    pool: Sequence[Row], ids: Sequence[Any], id_key: str | None, changes: Collection[Change], seed: int
) -> Iterator[Row]:
    """Yield a row for each of `ids`, a row of `pool` drawn by seed; about half of them have one of the changes."""
    drawn, texts = random.Random(seed), _texts_by_column(pool)
    by_kind = [[change for change in changes if change.kind == kind] for kind in KINDS]
    by_kind = [some for some in by_kind if some]
    for number, row_id in enumerate(ids):
        row = drawn.choice(pool)
        if by_kind and drawn.random() < SHARE_CHANGED:
            row = changed(row, drawn.choice(drawn.choice(by_kind)), texts, drawn, number)
        yield row | {id_key: row_id} if id_key else row


def possible_changes(pool: Sequence[Row], id_key: str | None) -> list[Change]:
    """The changes that may be made to rows like these: unseen values for groups, the others for texts.

    A column of single characters, such as the letter of an answer, stays as it is.
    """
    changes = []
    for column, texts in _texts_by_column(pool).items():
        length = sum(map(len, texts)) / len(texts)
        if column == (id_key,) or length <= 1:
            continue
        is_group = len(set(texts)) <= max(12, len(texts) // 5) and length <= 40
        kinds = ("unseen",) if is_group else ("empty", "long", "foreign")
        changes += [Change(kind, column) for kind in kinds]
    return changes


def changed(row: Row, change: Change, texts: dict[Column, list[str]], drawn: random.Random, number: int = 0) -> Row:
    """A copy of the row with one text of the column changed; without such a text the row as it is."""
    places = [place for place, (column, _) in enumerate(_texts_of(row)) if column == change.column]
    if not places:
        return row
    target, counter = drawn.choice(places), iter(range(10**9))

    def replace(text: str) -> str:
        return _new_text(change, text, texts, drawn, number) if next(counter) == target else text

    return _mapped(row, replace)


def _new_text(change: Change, text: str, texts: dict[Column, list[str]], drawn: random.Random, number: int) -> str:
    if change.kind == "empty":
        return ""
    if change.kind == "foreign":
        return drawn.choice(FOREIGN)
    if change.kind == "unseen":
        return str(10**9 + number) if text.isdecimal() else f"unseen {number}"
    parts = [text, *drawn.choices(texts[change.column], k=drawn.choice((2, 4, 8)))]
    long = "\n".join(parts)
    return long * (MAX_CHARACTERS // (len(long) + 1) + 1) if drawn.random() < 0.02 else long[:MAX_CHARACTERS]


def further_ids(given: Sequence[Any], number: int) -> list[Any]:
    """Ids that follow the given ones, of their type and shape: whole numbers, or q0041 after q0040."""
    texts = [re.fullmatch(r"(\D*)(\d+)", str(one)) for one in given]
    prefixes = {found[1] for found in texts if found}
    if None in texts or len(prefixes) != 1:
        return [f"hidden-{place}" for place in range(1, number + 1)]
    last = max((found for found in texts if found), key=lambda found: int(found[2]))
    follow = range(int(last[2]) + 1, int(last[2]) + 1 + number)
    if isinstance(given[0], int):
        return list(follow)
    return [f"{last[1]}{place:0{len(last[2])}}" for place in follow]


def _texts_by_column(rows: Sequence[Row]) -> dict[Column, list[str]]:
    found: dict[Column, list[str]] = {}
    for row in rows:
        for column, text in _texts_of(row):
            found.setdefault(column, []).append(text)
    return found


def _texts_of(row: Row) -> list[tuple[Column, str]]:
    """The row's texts in order, each with its column."""
    found: list[tuple[Column, str]] = []
    for key, value in row.items():
        _collect(value, (key,), found)
    return found


def _collect(value: Any, column: Column, found: list[tuple[Column, str]]) -> None:
    match value if (listed := _listed(value)) is None else listed:
        case str() as text:
            found.append((column, text))
        case list() as items:
            for item in items:
                _collect(item, column, found)
        case dict() as items:
            for key, item in items.items():
                _collect(item, (*column, key), found)


def _mapped(value: Any, replace: Callable[[str], str]) -> Any:
    """The value with each of its texts replaced, in the order of `_texts_of`."""
    if (listed := _listed(value)) is not None:
        return json.dumps(_mapped(listed, replace))
    match value:
        case str():
            return replace(value)
        case list():
            return [_mapped(item, replace) for item in value]
        case dict():
            return {key: _mapped(item, replace) for key, item in value.items()}
    return value


def _listed(value: Any) -> list[Any] | None:
    """The list of texts and nulls that a cell holds as JSON; None for another value."""
    if not isinstance(value, str) or not value.startswith(('["', "[null")):
        return None
    try:
        listed = json.loads(value, strict=False)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(listed, list) and all(item is None or isinstance(item, str) for item in listed)
    return listed if is_list else None
