"""Keys of a row beside its question and answer: what the model reads from them, and those that it does not see."""

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

from nexttoken.data.row_faults import RowFault

SYSTEM_KEYS = ("system", "system_prompt", "system_message")  # text that chat models are instructed by
HISTORY_KEY = "history"  # turns before the question
CONTEXT_KEYS = ("context", "contexts", "passage", "passages", "document", "documents")  # texts to answer from

# Keys about the row, not of it: no line is needed where the model does not see them.
BOOKKEEPING = frozenset(
    re.findall(
        r"\w+",
        """
    annotator author category categories competition config count created created_at dataset
    data_source date difficulty domain file file_name filename genre grade hash idx index judge kind
    lang language length level licence license link mark meta metadata model model_a model_b number
    num_tokens num_turns original_answer original_question path quality rank rating score scores
    section services source sources split subject subset tag tags task task_name task_type time
    timestamp topic topics type updated_at url user version
    """,
    )
)
ID_NAME = re.compile(r"(^|[\W_])(uu|q|Uu|UU|Q)?[iI][dD]$|[a-z]I[dD]$|^Unnamed: \d+$|^__index_level_\d+__$")
TEXT_PARTS = ("text", "input_text", "output_text", None)  # kinds of a message's parts that are text
NUM_NAMED = 20  # keys in the line about them
ABSENT: tuple[Any, ...] = (None, "", [], {})

log = logging.getLogger(__name__)


def content_text(value: Any, name: str) -> str:
    """Return a text, or the texts of its parts joined by line breaks. Raises RowFault for a part of another kind."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowFault(f"{name} is {type(value).__name__}, expected text")
    texts = []
    for number, part in enumerate(value, start=1):
        text, kind = (part.get("text"), part.get("type")) if isinstance(part, Mapping) else (part, None)
        if kind not in TEXT_PARTS or not isinstance(text, str):
            raise RowFault(f"part {number} of {name} is {kind or type(part).__name__}, expected a part of type text")
        texts.append(text)
    return "\n".join(texts)


def system_of(row: Mapping[str, Any]) -> str:
    """Return the system message, "" without one. Raises RowFault where it is no text."""
    texts = [content_text(row[key], key) for key in SYSTEM_KEYS if row.get(key) not in ABSENT]
    return "\n".join(text for text in texts if text.strip())


def contexts_of(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the texts to answer from, by the key under which they stand; a key without texts is left out."""
    found = {key: _texts(row.get(key)) for key in CONTEXT_KEYS}
    return {key: texts for key, texts in found.items() if texts}


def _texts(value: Any) -> list[str]:
    """Return the texts of a text, of a list of them or of objects with a `text`; [] for anything else."""
    items = value if isinstance(value, list) else [value]
    texts: list[Any] = [_titled(item) if isinstance(item, Mapping) else item for item in items]
    return [text for text in texts if text.strip()] if all(isinstance(text, str) for text in texts) else []


def _titled(passage: Mapping[str, Any]) -> Any:
    """Return the text below its title, as a corpus has it; the text alone without one."""
    title, text = passage.get("title"), passage.get("text")
    is_titled = isinstance(title, str) and isinstance(text, str) and title.strip()
    return f"{title}\n{text}" if is_titled else text


def unseen_keys(row: Mapping[str, Any], seen: Collection[str], place: str = "") -> tuple[str, ...]:
    """Return the keys with a value that are not among `seen` and no bookkeeping, after `place`."""
    return tuple(
        f"{place}{key}"
        for key, value in row.items()
        if key not in seen and value not in ABSENT and key.lower() not in BOOKKEEPING and not ID_NAME.search(key)
    )


def log_unseen(counts: Mapping[str, int]) -> None:
    """Name the keys that the model does not see, with the number of their rows, in one line."""
    if not counts:
        return
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    named = [f"`{key}` ({count:,} row{'s' * (count != 1)})" for key, count in ordered[:NUM_NAMED]]
    more = f" and {len(counts) - NUM_NAMED} more keys" if len(counts) > NUM_NAMED else ""
    log.info("the model does not see: %s%s", ", ".join(named), more)
