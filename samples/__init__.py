"""The sample data sets under input/: the command that all of them share, random choices, and files."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, create_model

from nexttoken.commands.arguments import Arguments
from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import write_json_lines

T = TypeVar("T")


def sample_command(
    write: Callable[[Path, int, int], str], output_dir: str, **count: tuple[int, int, int]
) -> Callable[[Sequence[str]], None]:
    """The `main` of a sample: it calls `write` with a folder, a seed and a number, and prints what that returns.

    `count` names the number and gives its lowest value, its default and its highest value.
    """
    ((name, (low, default, high)),) = count.items()
    fields: dict[str, Any] = {
        "output_dir": (Path, Path(output_dir)),
        "seed": (Annotated[int, Field(ge=0, lt=2**32)], 0),
        name: (Annotated[int, Field(ge=low, le=high)], default),
    }
    arguments = create_model("SampleArguments", __base__=Arguments, **fields)

    def main(given: Sequence[str]) -> None:
        """Raises UserError for an unknown key or a number out of range."""
        values = arguments.parse(given).model_dump()
        print(write(values["output_dir"], values["seed"], values[name]))

    return main


def words(text: str) -> tuple[str, ...]:
    """Words that white space separates."""
    return tuple(text.split())


def pairs(text: str, separator: str | None = None) -> tuple[tuple[str, str], ...]:
    """Pairs written as first/second, separated by white space or by `separator`."""
    return tuple((first, second) for first, _, second in (pair.partition("/") for pair in text.split(separator)))


def lines(text: str) -> tuple[str, ...]:
    """The lines of a text, without the empty first and last ones."""
    return tuple(text.strip().split("\n"))


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def some(items: Sequence[T], number: int, rng: np.random.Generator) -> list[T]:
    """Different items in random order."""
    return [items[index] for index in rng.permutation(len(items))[:number].tolist()]


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with whole_file(path) as part:
        write_json_lines(rows, part)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
