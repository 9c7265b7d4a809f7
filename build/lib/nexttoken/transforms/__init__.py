"""Steps from examples to examples: named in the config, applied in order, every changed count logged."""

from collections.abc import Callable, Mapping, Sequence

from nexttoken.types import Example

Transform = Callable[[Sequence[Example]], list[Example]]


def apply_transforms(examples: list[Example], transforms: Mapping[str, Transform]) -> list[Example]:
    """Apply `transforms` in order and print every change of the number of examples."""
    for name, transform in transforms.items():
        before, examples = len(examples), transform(examples)
        if len(examples) != before:
            print(f"transform {name}: {before} -> {len(examples)} examples")
    return examples
