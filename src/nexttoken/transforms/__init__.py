"""Transforms of examples: named in the configuration, applied in order, with their counts printed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexttoken.types import Example

Transform = Callable[[Sequence[Example]], list[Example]]


def apply_transforms(
    examples: list[Example], transforms: Mapping[str, Transform], counted: dict[str, Any] | None = None
) -> list[Example]:
    """Apply `transforms` in order, print changes of the number of examples, and add all counts to `counted`."""
    for name, transform in transforms.items():
        before, examples = len(examples), transform(examples)
        if len(examples) != before:
            print(f"transform {name}: {before} -> {len(examples)} examples")
        if counted is not None:
            own = transform.report() if hasattr(transform, "report") else {}
            counted[name] = {"num_before": before, "num_after": len(examples), **own}
    return examples
