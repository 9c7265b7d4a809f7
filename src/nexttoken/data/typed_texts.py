"""Texts of a configuration as they are typed: line breaks, which a shell passes on as \\n, and quotes for Hydra."""

import re
from typing import Any

UNQUOTED = re.compile(r"[A-Za-z0-9_./+@%:-]+")  # texts that Hydra reads without quotes
TEXT_NODES = ("prompt", "generation", "transforms", "train_transforms", "inference")
PATH_KEY = re.compile(r"_target_|(.*_)?(path|dir|file|files|folder)")
# Names of LaTeX that begin with \n; a text with two backslashes means a backslash, too.
TYPED_BREAK = re.compile(r"(?<!\\)\\n(?!(abla|u|e|eq|eg|i|ot|otin|ewline|ewcommand|onumber|oindent)\b)")


def with_line_breaks(config: dict[str, Any]) -> dict[str, Any]:
    r"""Return the configuration with a line break for each \n in its prompts, generation, transforms and inference."""
    return config | {name: with_breaks(config[name]) for name in TEXT_NODES if name in config}


def with_breaks(value: Any) -> Any:
    r"""Return a text, or the texts in lists and mappings, with a line break for each \n; paths stay as they are."""
    if isinstance(value, dict):
        return {key: one if PATH_KEY.fullmatch(str(key)) else with_breaks(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_breaks(one) for one in value]
    return TYPED_BREAK.sub("\n", value) if isinstance(value, str) else value


def typed_override(key: str, text: str) -> str:
    """Return `key=text` as Hydra reads it: in quotes where it has other characters than a plain path or number."""
    if UNQUOTED.fullmatch(text):
        return f"{key}={text}"
    doubled = re.sub(r'(\\+)(?="|\Z)', r"\1\1", text)  # of backslashes, only those before a quote are read as escapes
    return key + '="' + doubled.replace('"', '\\"') + '"'
