"""The classes of a task, and those of them that a fold's training part shows for a row's group."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nexttoken.errors import UserError
from nexttoken.types import Example

Pool = tuple[int, ...]  # classes that are a row's candidates, or places of its own options


@dataclass(frozen=True)
class Space:
    """The classes of a task: their values, the names that a model reads, and the column that limits a row's labels.

    `is_learnt`: a class that the training part does not show is unknown to it.
    """

    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels_by: str | None = None
    is_learnt: bool = False

    @classmethod
    def of(cls, task: Any) -> "Space":
        """Raises UserError for classes with the same name: no model could tell them apart."""
        classes, names = tuple(task.classes), tuple(getattr(task, "class_names", None) or task.classes)
        first: dict[str, str] = {}
        for value, name in zip(classes, names, strict=True):
            if (other := first.setdefault(name.strip(), value)) != value:
                raise UserError(
                    f"the classes {other!r} and {value!r} have the same name {name.strip()!r}, so that no candidate is"
                    " right alone; give different names in task.classes"
                )
        is_learnt = "classes" in getattr(task, "settled", {})
        return cls(classes, names, getattr(task, "labels_by", None), is_learnt)

    def group_of(self, example: Example) -> str | None:
        """The example's value in the column that limits its labels."""
        if self.labels_by is None:
            return None
        turns = example.fields.get(self.labels_by)
        return example.tags.get(self.labels_by, turns[0] if turns else None)


@dataclass(frozen=True)
class Seen:
    """Labels of a fold's training part: their `counts` by class, and those of each group.

    `others` are the candidates of a row whose group is not among them; None: all classes.
    """

    counts: Mapping[int, int] = field(default_factory=dict)
    groups: Mapping[str, Pool] = field(default_factory=dict)
    others: Pool | None = None

    @classmethod
    def of(cls, examples: Sequence[Example], space: Space) -> "Seen":
        known = [example for example in examples if example.label is not None]
        counts, groups = Counter(example.label for example in known), dict[str, set[int]]()
        for example in known:
            if (group := space.group_of(example)) is not None:
                groups.setdefault(group, set()).add(example.label)  # type: ignore[arg-type]
        pools = {group: tuple(sorted(labels)) for group, labels in groups.items()}
        return cls(dict(counts), pools, tuple(sorted(counts)) if space.is_learnt else None)  # type: ignore[arg-type]
