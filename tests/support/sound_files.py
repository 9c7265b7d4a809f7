"""A check of every file that a killed command leaves: whole and readable by its own reader, or a hidden part."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from nexttoken.data.files import read_yaml
from nexttoken.engine.journal import HEAD
from nexttoken.errors import UserError
from nexttoken.prompts.token_file import TokenFile
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.seals import RECORDS, WEIGHTS

FOLDERS = ("output", "submissions", "kernel", "cache")


def unsound(checkout: Path) -> list[str]:
    """A line for each file of a checkout that is not hidden and not whole."""
    lines = []
    for path in (path for folder in FOLDERS for path in sorted((checkout / folder).rglob("*"))):
        inner = path.relative_to(checkout)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts) and (check := check_of(path)):
            try:
                check(path)
            except Exception as error:
                lines.append(f"{inner}: {type(error).__name__}: {error}")
    return lines


def check_of(path: Path) -> Callable[[Path], object] | None:
    """The reader of a file that raises where it is not whole; None for one that nothing reads back."""
    named = {"metrics.json": check_fold, "ledger.csv": read_ledger, "multirun.yaml": None}
    if path.name in named:
        return named[path.name]
    kinds: dict[str, Callable[[Path], object]] = {
        ".json": lambda one: json.loads(one.read_bytes()),
        ".yaml": read_yaml,
        ".csv": check_table,
        ".jsonl": check_lines,
        ".tokens": TokenFile.open,
        ".ckpt": lambda one: torch.load(one, weights_only=True),
        ".safetensors": check_weights,
        ".sha256": lambda one: refuse_unless(len(one.read_bytes()) >= 64),
    }
    return kinds.get(path.suffix)


def check_fold(path: Path) -> None:
    if path.parent.parent.parent.name != "data":  # of a kernel's flat data set
        FoldFolder(path.parent).refuse_altered((*RECORDS, *WEIGHTS))


def check_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    widths = {len(row) for row in csv.reader(text.splitlines())}
    refuse_unless(text.endswith("\n") and len(widths) == 1)


def check_lines(path: Path) -> None:
    """A journal may end in the middle of a line, which it drops; no other file may."""
    *lines, last = path.read_bytes().split(b"\n")
    for line in lines:
        json.loads(line)
    refuse_unless(not last or not lines or lines[0].startswith(HEAD))


def check_weights(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dictionary
            file.get_tensor(name)


def refuse_unless(is_whole: bool) -> None:
    if not is_whole:
        raise UserError("it is not whole")
