"""Generated instructions with short answers, of kinds that a small model learns at once, in part, or only from a like.

A kind whose name ends in `_shown` asks for what only a solved row of the same family or shop tells: a row that is shown
before it answers it, and nothing in the row itself does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from samples import pick, some, write_lines
from samples.instruct.words import (
    CLOSINGS,
    JA_BAGS,
    JA_NAMES,
    JA_OPPOSITE_QUESTIONS,
    JA_OPPOSITES,
    JA_THINGS,
    JA_TIMES,
    NAMES,
    OPPOSITE_QUESTIONS,
    OPPOSITES,
    THINGS,
    TIMES,
)

TRAIN_PER_TEST = 20 / 3
MAX_ROWS = 500  # train rows; the kind with the fewest different rows, Japanese opposites, has 60 in all


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction with the only right answer."""

    kind: str
    instruction: str
    input: str
    output: str


Drawn = tuple[str, str, str]  # instruction, input, output


def write_sample_instruct(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test (without `output`) and truth JSON lines into `folder`; return one line that says what it is."""
    tasks = draw_tasks(num_train + round(num_train / TRAIN_PER_TEST), np.random.default_rng(seed))
    rows = [{"id": f"i{index:05}", **asdict(task)} for index, task in enumerate(tasks)]
    write_lines(folder / "train.jsonl", rows[:num_train])
    write_lines(folder / "test.jsonl", ({k: v for k, v in row.items() if k != "output"} for row in rows[num_train:]))
    truth = ({key: row[key] for key in ("id", "kind", "output")} for row in rows[num_train:])
    write_lines(folder / "truth.jsonl", truth)
    return f"{folder}: {num_train} train and {len(rows) - num_train} test rows of {len(KINDS)} kinds"


def draw_tasks(num_rows: int, rng: np.random.Generator) -> list[Task]:
    """Different tasks in random order, the kinds equally frequent."""
    kinds, tasks = list(KINDS), dict[tuple[str, str], Task]()
    while len(tasks) < num_rows:
        kind = kinds[len(tasks) % len(kinds)]
        instruction, given, output = KINDS[kind](rng)
        tasks.setdefault((instruction, given), Task(kind, instruction, given, output))
    drawn = list(tasks.values())
    return [drawn[index] for index in rng.permutation(num_rows)]


def copy(rng: np.random.Generator) -> Drawn:
    words = " ".join(some(THINGS, 2, rng))
    return "Write this again.", words, words


def capitals(rng: np.random.Generator) -> Drawn:
    words = " ".join(some(THINGS, 2, rng))
    return "Write this in capitals.", words, words.upper()


def last(rng: np.random.Generator) -> Drawn:
    words = some(THINGS, int(rng.integers(2, 4)), rng)
    return "Which comes last?", ", ".join(words), words[-1]


def count(rng: np.random.Generator) -> Drawn:
    words = some(THINGS, int(rng.integers(1, 5)), rng)
    return "How many?", ", ".join(words), str(len(words))


def opposite(rng: np.random.Generator) -> Drawn:
    word, other = opposite_of(OPPOSITES, rng)
    return pick(OPPOSITE_QUESTIONS, rng).format(word), "", other


def greeting(rng: np.random.Generator) -> Drawn:
    name, time = pick(NAMES, rng), pick(list(TIMES), rng)
    return f"Greet {name} in the {time}.", "", f"{TIMES[time]}, {name}!"


def closing_shown(rng: np.random.Generator) -> Drawn:
    family, name = pick(list(CLOSINGS), rng), pick(NAMES, rng)
    return f"How do the {family} sign to {name}?", "", f"{CLOSINGS[family]}, {name}."


def ja_opposite(rng: np.random.Generator) -> Drawn:
    word, other = opposite_of(JA_OPPOSITES, rng)
    return pick(JA_OPPOSITE_QUESTIONS, rng).format(word), "", other


def ja_greeting(rng: np.random.Generator) -> Drawn:
    name, time = pick(JA_NAMES, rng), pick(list(JA_TIMES), rng)
    return f"{time}、{name}さんにあいさつしてください。", "", f"{name}さん、{JA_TIMES[time]}。"


def ja_count(rng: np.random.Generator) -> Drawn:
    words = some(JA_THINGS, int(rng.integers(1, 5)), rng)
    return "いくつありますか。", "、".join(words), f"{len(words)}つです。"


def ja_twice(rng: np.random.Generator) -> Drawn:
    word = "と".join(some(JA_THINGS, 2, rng))
    return "二回書いてください。", word, f"{word}、{word}"


def ja_bag_shown(rng: np.random.Generator) -> Drawn:
    shop, thing = pick(list(JA_BAGS), rng), pick(JA_THINGS, rng)
    return f"{shop}で{thing}を買うと、袋は？", "", f"{thing}は{JA_BAGS[shop]}の袋です。"


KINDS: Mapping[str, Callable[[np.random.Generator], Drawn]] = {
    "copy": copy,
    "capitals": capitals,
    "last": last,
    "count": count,
    "opposite": opposite,
    "greeting": greeting,
    "closing_shown": closing_shown,
    "ja_opposite": ja_opposite,
    "ja_greeting": ja_greeting,
    "ja_count": ja_count,
    "ja_twice": ja_twice,
    "ja_bag_shown": ja_bag_shown,
}


def opposite_of(pairs: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[str, str]:
    first, second = pick(pairs, rng)
    return (first, second) if rng.integers(2) else (second, first)
