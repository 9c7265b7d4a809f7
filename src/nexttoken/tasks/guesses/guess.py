"""The guess of a table task: its keys with the reasons for them, and what suits its classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TableGuess:
    """The keys of a table task with the reason for each guess, "" where the files leave no choice.

    `head` and `prompt_labels` suit the number of classes; `hints` are lines on what a user may add.
    """

    task: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    prompt_labels: str = "names"
    head: str | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, why: str = "") -> None:
        self.task[key], self.why[key] = value, why
