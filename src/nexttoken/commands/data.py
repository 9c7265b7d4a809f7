"""Show the rows, classes, groups, lengths, duplicates, leaks and problems of a competition's files.

python -m nexttoken data task=map                                  any task of conf/task/
python -m nexttoken data input_dir=input/lmsys-chatbot-arena       a preference competition

Arguments:
  task=...         a choice of train.py's tasks (default: lmsys)
  input_dir=...    folder of the files (default: the task's own)
  key=value ...    with a task, any other setting of train.py, such as task.group_by=[body]
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import Arguments
from nexttoken.data.text_files import SURROGATE
from nexttoken.errors import UserError, first_five, nearest
from nexttoken.report.terminal import show
from nexttoken.tasks.preference import FIELDS, Preference, parse_turns
from nexttoken.types import Example, Split

LONG = 100_000  # characters of one field: longer than any context, so most of it will be cut


class DataArguments(Arguments):
    task: str | None = None
    input_dir: Path = Path("input/sample-preferences")
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One file: its examples, their texts and turns as written (None is null) by field, and the models it names."""

    split: Split
    examples: Sequence[Example]
    texts: Mapping[str, list[str]]
    turns: Mapping[str, Sequence[Sequence[str | None]]]
    models: Sequence[str]


def read_part(task: Preference, split: Split) -> Part:
    examples, table = task.read(split), task.table(split)
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    turns = {field: [parse_turns(row, field) for row in rows] for field in FIELDS}
    models = [name for column in ("model_a", "model_b") if column in table for name in table[column]]
    texts = {field: ["\n".join(example.fields[field]) for example in examples] for field in FIELDS}
    return Part(split, examples, texts, turns, models)


def describe(part: Part, classes: Sequence[str]) -> dict[str, str]:
    """Return the measures of one file by name, in reading order."""
    measures = {"rows": f"{len(part.examples):,}"}
    labels = Counter(example.label for example in part.examples if example.label is not None)
    for label, name in enumerate(classes if labels else ()):
        measures[name] = f"{labels[label]:,} ({labels[label] / labels.total():.1%})"
    measures["turns a conversation"] = _spread(map(len, part.turns["prompt"]))
    for field in FIELDS:
        texts, turns = part.texts[field], [turn for row in part.turns[field] for turn in row]
        num_empty = sum(turn is not None and not turn.strip() for turn in turns)
        measures |= {
            f"{field} characters": _spread(map(len, texts)),
            f"{field} words": _spread(len(text.split()) for text in texts),
            f"{field} null, empty turns": f"{turns.count(None):,}, {num_empty:,}",
            f"{field} lone surrogates": f"{sum(len(SURROGATE.findall(turn or '')) for turn in turns):,}",
        }
    same = sum(a == b for a, b in zip(part.texts["response_a"], part.texts["response_b"], strict=True))
    measures["rows with identical responses"] = f"{same:,}"
    if part.models:
        counts = Counter(part.models)
        measures["models"] = f"{len(counts):,}"
        measures["most frequent models"] = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(3))
    return measures


def _spread(counts: Iterable[int]) -> str:
    values = np.fromiter(counts, dtype=np.int64)
    return f"{np.median(values):,.0f} / {np.quantile(values, 0.95):,.0f} / {values.max():,}"


def describe_prompts(train: Part, test: Part) -> dict[str, tuple[str, str]]:
    """Return the prompts shared within each file and across the two, as (train, test) by measure."""
    from nexttoken.data.near_duplicates import group_ids

    in_train, in_test = train.texts["prompt"], test.texts["prompt"]
    train_groups, test_groups = np.split(group_ids(in_train + in_test), [len(in_train)])
    known = set(in_train)
    exact = sum(text in known for text in in_test)
    near = int(np.isin(test_groups, train_groups).sum())
    repeats = [f"{len(texts) - len({*texts}):,}" for texts in (in_train, in_test)]
    return {
        "rows repeating a prompt": (repeats[0], repeats[1]),
        "groups of near-duplicate prompts": (_groups(train_groups), _groups(test_groups)),
        "prompts also in train, exactly": ("", f"{exact:,}"),
        "prompts also in train, nearly": ("", f"{near:,}"),
    }


def _groups(groups: np.ndarray) -> str:
    sizes = np.unique(groups, return_counts=True)[1]
    several = sizes[sizes > 1]
    return f"{len(several):,} ({several.sum():,} rows, largest {sizes.max():,})"


def problems(part: Part) -> list[str]:
    """Return a line for each kind of suspicious row. Such rows can be trained on and scored."""
    texts = list(zip(*(part.texts[field] for field in FIELDS), strict=True))
    turns = list(zip(*(part.turns[field] for field in FIELDS), strict=True))
    kinds = {
        "an empty prompt": [not prompt.strip() for prompt, _, _ in texts],
        "an empty response": [not a.strip() or not b.strip() for _, a, b in texts],
        f"a field over {LONG:,} characters": [max(map(len, row)) > LONG for row in texts],
        "fields with different numbers of turns": [len(set(map(len, row))) > 1 for row in turns],
    }
    lines = []
    for kind, rows in kinds.items():
        if ids := [example.id for example, is_bad in zip(part.examples, rows, strict=True) if is_bad]:
            lines.append(f"{part.split}.csv: {len(ids):,} rows have {kind}: ids {first_five(ids)}")
    return lines


def main(arguments: Sequence[str]) -> None:
    given = DataArguments.parse(arguments)
    if given.task is not None:
        show_task(arguments)
        return
    if given.overrides:
        wrong = given.overrides[0]
        known = nearest(wrong.partition("=")[0], ["task", "input_dir"])
        raise UserError(f"unknown argument {wrong!r}, expected key=value; {known}; other settings need task=...")
    show_preferences(Preference(given.input_dir))


def show_task(overrides: Sequence[str]) -> None:
    """Print the report on the task of a configuration; its model is not built."""
    from nexttoken.build import plain
    from nexttoken.commands.data_examples import report
    from nexttoken.commands.entry import compose
    from nexttoken.data.targets import check_targets, make

    settings = plain(compose("train", overrides))
    check_targets(settings)
    task, prompt, split = (make(settings[name], name) for name in ("task", "prompt", "split"))
    if isinstance(task, Preference):
        show_preferences(task)
    else:
        show(report(task, prompt, split.num_folds))


def show_preferences(task: Preference) -> None:
    from nexttoken.commands.data_examples import folded
    from nexttoken.report.markdown import markdown

    train, test = read_part(task, "train"), read_part(task, "test")
    in_train, in_test = (describe(part, task.classes) for part in (train, test))
    models = in_train.pop("most frequent models", "")  # too long for a cell
    measures = {name: (value, in_test.get(name, "")) for name, value in in_train.items()}
    rows = [[name, *values] for name, values in (measures | describe_prompts(train, test)).items()]
    print(f"{task.input_dir} (lengths: median / 95 % / max)")
    show(markdown(["", "train.csv", "test.csv"], rows))
    print(f"most frequent models: {models}\n" if models else "", end="")
    print("\n".join(map(folded, problems(train) + problems(test) or ["no problems found"])))
