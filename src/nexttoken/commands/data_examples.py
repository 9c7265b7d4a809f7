"""A report on the rows of any task: classes, lengths, duplicates, groups, what test shares with train, and problems."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np

from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import MissingFile, UserError, first_five
from nexttoken.report.markdown import MAX_WIDTH, markdown
from nexttoken.types import INPUT, Example

LONG = 100_000  # characters of one field: longer than any context, so most of it will be cut
MAX_CLASSES = 20  # that are listed with their rows, the most frequent first
OPTIONAL = {INPUT, "reference", "rubric"}  # fields that may be empty
Measures = dict[str, str]


@dataclass(frozen=True)
class Part:
    """The examples of a file with their whole texts, and the numbers (N,) of their groups of nearly equal texts."""

    examples: Sequence[Example]
    groups: np.ndarray

    @property
    def texts(self) -> list[str]:
        return ["\n".join("\n".join(turns) for turns in one.fields.values()) for one in self.examples]

    @property
    def labels(self) -> list[int]:
        return [one.label for one in self.examples if one.label is not None]


def report(task: Any, prompt: Any, num_folds: int) -> str:
    """The report as lines of at most 100 characters. Raises UserError for faulty training rows."""
    train_rows, test_rows, lines = task.read("train"), [], []
    try:
        test_rows = task.read("test")
    except MissingFile as error:
        lines.append(f"no test rows: {error}")
    except UserError as error:
        lines.append(f"test rows that predict.py will refuse: {error}")
    groups = group_ids([task.group_text(example) for example in [*train_rows, *test_rows]])
    train, test = Part(train_rows, groups[: len(train_rows)]), Part(test_rows, groups[len(train_rows) :])
    names = getattr(task, "class_names", None) or task.classes
    both = [measures(part) | shared(part, other) for part, other in ((train, None), (test, train))]
    rows = [[name, both[0].get(name, ""), both[1].get(name, "")] for name in both[0] | both[1]]
    lines += class_problems(task, train, test, num_folds) + row_problems("train", train) + row_problems("test", test)
    lines += unshown(task, prompt, [*train_rows, *test_rows])
    head = f"task {task.name}, {task.input_dir}\ncharacters: 25 % / median / 75 % / maximum"
    tables = [markdown(["", "train", "test"], rows)]
    if counts := Counter(train.labels):
        tables.append(markdown(["class", "training rows"], class_rows(counts, names)))
    return "\n".join([head, "\n\n".join(tables), *map(folded, lines or ["no problems found"])])


def folded(line: str) -> str:
    """The line in lines that fit into a terminal."""
    return fill(line, MAX_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def class_rows(counts: Counter[int], names: Sequence[str]) -> list[list[str]]:
    """Each class with its number of training rows, the most frequent first."""
    shown = counts.most_common(MAX_CLASSES)
    rows = [(names[label], count) for label, count in shown]
    if len(counts) > len(shown):
        rows.append((f"{len(counts) - len(shown):,} more", counts.total() - sum(count for _, count in shown)))
    return [[name, f"{count:,} ({count / counts.total():.1%})"] for name, count in rows]


def measures(part: Part) -> Measures:
    """The number of rows, and the lengths of each field, in reading order."""
    found = {"rows": f"{len(part.examples):,}"}
    if not part.examples:
        return found
    if voted := sum(bool(one.votes) for one in part.examples):
        found["rows with votes for several classes"] = f"{voted:,}"
    lengths = defaultdict(list)
    for example in part.examples:
        for name, turns in example.fields.items():
            lengths[name].append(len("\n".join(turns)))
        if example.answer is not None:
            lengths["answer"].append(len(example.answer))
    return found | {f"{name} characters": _quartiles(numbers) for name, numbers in lengths.items()}


def _quartiles(numbers: Iterable[int]) -> str:
    values = np.fromiter(numbers, dtype=np.int64)
    return " / ".join(f"{np.quantile(values, share):,.0f}" for share in (0.25, 0.5, 0.75, 1))


def shared(part: Part, train: Part | None) -> Measures:
    """Repeated texts and groups of one file; and what a test file shares with the training rows."""
    if not part.examples:
        return {}
    texts, sizes = part.texts, np.unique(part.groups, return_counts=True)[1]
    several = sizes[sizes > 1]
    found = {
        "rows that repeat another": f"{len(texts) - len({*texts}):,}",
        "groups of nearly equal texts": f"{len(several):,} ({several.sum():,} rows, largest {sizes.max():,})",
    }
    if part.labels:
        found["rows in a group with several labels"] = f"{len(_in_conflict(part.examples, part.groups.tolist())):,}"
    if train is not None:
        known = {*train.texts}
        found["rows also in train, exactly"] = f"{sum(text in known for text in texts):,}"
        found["rows with a group of train"] = f"{int(np.isin(part.groups, train.groups).sum()):,}"
    return found


def _in_conflict(examples: Sequence[Example], keys: Sequence[Any]) -> list[str]:
    """The ids of examples with the key of another one that has another label."""
    labels = defaultdict(set)
    for example, key in zip(examples, keys, strict=True):
        labels[key].add(example.label)
    return [example.id for example, key in zip(examples, keys, strict=True) if len(labels[key]) > 1]


def class_problems(task: Any, train: Part, test: Part, num_folds: int) -> list[str]:
    """A line for classes with one row or none, groups without training rows, and rows too few for the folds."""
    names, counts, lines = getattr(task, "class_names", None) or task.classes, Counter(train.labels), []
    if counts:
        kinds = {"no training row": [name for label, name in enumerate(names) if not counts[label]]}
        kinds["one training row"] = [name for label, name in enumerate(names) if counts[label] == 1]
        lines += [f"{len(few):,} classes have {kind}: {first_five(few)}" for kind, few in kinds.items() if few]
    if (by := getattr(task, "labels_by", None)) and counts:
        of = [
            {one.id: one.tags.get(by, one.fields.get(by, ("",))[0]) for one in part.examples} for part in (train, test)
        ]
        pairs = {(of[0][one.id], one.label) for one in train.examples}
        known = {*of[0].values()}
        lines.append(f"labels by {by}: {len(pairs) / len(known):.1f} of {len(counts)} labels for each of {len(known)}")
        if new := [value for value in dict.fromkeys(of[1].values()) if value not in known]:
            lines.append(f"test rows have {len(new):,} values of {by} without training rows: {first_five(new)}")
    num_groups = len(np.unique(train.groups))
    if min([num_groups, *([max(counts.values())] if counts else [])]) < num_folds:
        lines.append(f"{num_groups} groups of texts are too few for split.num_folds={num_folds}; lower it, or add rows")
    return lines


def row_problems(split: str, part: Part) -> list[str]:
    """A line for each kind of suspicious row. Such rows can be trained on and scored."""
    kinds: Mapping[str, list[str]] = defaultdict(list)
    for example in part.examples:
        for name, turns in example.fields.items():
            if name not in OPTIONAL and not any(turn.strip() for turn in turns):
                kinds[f"an empty {name}"].append(example.id)
            if len("\n".join(turns)) > LONG:
                kinds[f"a {name} over {LONG:,} characters"].append(example.id)
    if part.labels:
        kinds["the texts of a row with another label"].extend(_in_conflict(part.examples, part.texts))
    return [f"{split}: {len(ids):,} rows have {kind}: ids {first_five(ids)}" for kind, ids in kinds.items() if ids]


def unshown(task: Any, prompt: Any, examples: Sequence[Example]) -> list[str]:
    """A line for columns of the files that nothing reads, and for fields that the prompt does not show."""
    lines = []
    if unread := task.unread() if hasattr(task, "unread") else []:
        lines.append(f"columns that nothing reads: {first_five(unread)}")
    if hidden := prompt.count_unshown(examples):
        lines.append(f"fields that the prompt does not show: {first_five(hidden)}")
    return lines
