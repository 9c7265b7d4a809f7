"""What a curation step did: rows kept, dropped and changed, why, and a few of the dropped ones to look at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from nexttoken.types import Example

NUM_EXAMPLES = 5  # dropped rows that are shown
NUM_REASONS = 20  # the most frequent reasons that are reported
EXCERPT = 80  # characters of a shown row's two sides


@runtime_checkable
class Counted(Protocol):
    """A transform that can tell what its last call did; the mapping can be written as JSON."""

    def report(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Drop:
    """A row is left out: a reason of which few exist, and what in this row it was."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A row stays, and something about it is counted."""

    example: Example
    note: str


@dataclass(slots=True)
class Tally:
    """Counts of one step; parts of a set are counted apart and added in their order."""

    kept: int = 0
    dropped: int = 0
    changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kept_with: Counter[str] = field(default_factory=Counter)  # such as rows without a mark
    examples: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # what else was found, such as the characters that were rare

    def clear(self) -> None:
        self.kept = self.dropped = self.changed = 0
        self.reasons.clear()
        self.kept_with.clear()
        self.examples.clear()
        self.notes.clear()

    def drop(self, row_id: str, excerpt: str, why: Drop) -> None:
        self.dropped += 1
        self.reasons[why.reason] += 1
        if len(self.examples) < NUM_EXAMPLES:
            reason = f"{why.reason}: {why.detail}" if why.detail else why.reason
            self.examples.append({"id": row_id, "reason": reason, "text": excerpt})

    def add(self, other: "Tally") -> None:
        self.kept += other.kept
        self.dropped += other.dropped
        self.changed += other.changed
        self.reasons.update(other.reasons)
        self.kept_with.update(other.kept_with)
        self.examples.extend(other.examples[: NUM_EXAMPLES - len(self.examples)])
        self.notes.update(other.notes)

    def report(self) -> dict[str, Any]:
        """Counts, the most frequent reasons, examples {id, reason, text}; `kept_with` and `notes` where there are."""
        report: dict[str, Any] = {"kept": self.kept, "dropped": self.dropped, "changed": self.changed}
        report |= {"reasons": dict(self.reasons.most_common(NUM_REASONS)), "examples": list(self.examples)}
        more = {"kept_with": dict(self.kept_with), "notes": dict(self.notes)}
        return report | {name: value for name, value in more.items() if value}
