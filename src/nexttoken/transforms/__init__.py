"""Steps from examples to examples: named in the config, applied in order, every changed count logged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexttoken.types import Example

Transform = Callable[[Sequence[Example]], list[Example]]


def apply_transforms(
    examples: list[Example], transforms: Mapping[str, Transform], counted: dict[str, Any] | None = None
) -> list[Example]:
    """Apply `transforms` in order and print every change of the number of examples; `counted` takes all counts."""
    for name, transform in transforms.items():
        before, examples = len(examples), transform(examples)
        if len(examples) != before:
            print(f"transform {name}: {before} -> {len(examples)} examples")
        if counted is not None:
            own = transform.report() if hasattr(transform, "report") else {}
            counted[name] = {"num_before": before, "num_after": len(examples), **own}
    return examples
