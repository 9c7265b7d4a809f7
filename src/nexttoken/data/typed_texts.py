"""Line breaks in the texts of a configuration, which a shell and Hydra pass on as a backslash and an n."""

import re
from typing import Any

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
