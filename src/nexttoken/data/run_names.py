"""The name of a run that was given none, or one for all jobs of a sweep, from its data and the command line."""

import re
from collections.abc import Sequence
from pathlib import Path

from nexttoken.data.files import hash_text
from nexttoken.settings import INCIDENTAL

MAX_NAME_BYTES = 120  # file systems take 255
UNNAMED = (
    *INCIDENTAL,
    "task",
    "input_dir",
    "experiment",
    "debug",
    "sweep",
    "launcher",
)  # keys that are no part of a run's name
IS_PATH = re.compile(r"[^\[\]{}\"'(),\s]+")
NAMED_WHOLE = re.compile(r"[\w.-]*[\w.]|\[\w+(, ?\w+)*\]")  # values that a run's name shows whole: words, plain lists


def default_name(input_dir: str, overrides: Sequence[str]) -> str:
    """The data's folder and the command line's changes, such as `arena-mini_stories260k`; an experiment's own name.

    A group choice or a path shows its last part, other keys `key-value`. Where a value loses marks or spaces by which
    another one may differ, a hash of it follows.
    """
    own = [] if _experiments(overrides) else [Path(input_dir).resolve().name or "data"]
    return _joined([*own, *_words(overrides)])


def name_in_sweep(name: str, swept: Sequence[str]) -> str:
    """A given name with the changes of one job, such as `mine_seed-1`: jobs that differ in more than the fold are runs.

    `swept` are the overrides in which the jobs of the sweep differ.
    """
    words = _words(swept)
    return _joined([name, *words]) if words else name


def _experiments(overrides: Sequence[str]) -> list[str]:
    return [override.partition("=")[2] for override in overrides if override.startswith("experiment=")]


def _words(overrides: Sequence[str]) -> list[str]:
    words = _experiments(overrides)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in UNNAMED or key.split(".")[0] in ("hydra", "logger", "sweep", "launcher"):
            continue
        is_choice = "." not in key and value not in ("true", "false") and not value.replace(".", "").isdigit()
        last = value.rstrip("/").rpartition("/")[2] if IS_PATH.fullmatch(value) else value
        shown = last if is_choice or last != value else f"{key.rpartition('.')[2]}-{last}"
        words.append(shown if NAMED_WHOLE.fullmatch(last) else f"{shown}-{hash_text(value)[:6]}")
    return words + [f"debug-{o.partition('=')[2]}" for o in overrides if o.startswith("debug=")]


def _joined(words: Sequence[str]) -> str:
    name = re.sub(r"[^\w.-]+", "-", "_".join(words))  # a shell needs no quotes for run=<name>
    start = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return name if start == name else f"{start}-{hash_text(name)[:8]}"
