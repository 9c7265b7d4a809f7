"""The settings by which runs differ, as columns of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.report.markdown import NOTHING
from nexttoken.runs.folder import differences, flatten

MAX_COLUMNS = 12
MAX_LETTERS = 40  # of a value
MISSING = object()


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The value of each run by the short name of each setting that is not the same in all, the seed last."""
    keys = sorted({key for config in configs[1:] for key in differences(configs[0], config)}, key=_seed_last)
    flat = [flatten(config) for config in configs]
    names = dict(zip(keys, _short_names(keys), strict=True))
    return {names[key]: [_words(of_run.get(key, MISSING)) for of_run in flat] for key in keys}


def _seed_last(key: str) -> tuple[bool, str]:
    return key == "seed", key


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last words of dotted keys, as many as tell them apart."""
    names = []
    for key in keys:
        words = key.split(".")
        size = next(
            (n for n in range(1, len(words)) if sum(other.split(".")[-n:] == words[-n:] for other in keys) == 1),
            len(words),
        )
        size = max(size, 2) if words[-1].startswith("_") and len(words) > 1 else size
        names.append(".".join(words[-size:]).replace("._target_", ""))
    return names


def _words(value: Any) -> str:
    if value is MISSING:
        return NOTHING
    text = (
        "none"
        if value is None
        else str(value).rpartition("nexttoken.")[2]
        if "nexttoken." in str(value)
        else str(value)
    )
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
