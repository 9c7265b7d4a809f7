"""The rows that the folds of a run were trained and scored on, read from its data when they are first wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nexttoken.build import Parts
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, hash_examples
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example


@dataclass(frozen=True)
class TrainingRows:
    """All folds' rows, after the run's transforms."""

    parts: Parts

    @cached_property
    def examples(self) -> list[Example]:
        return apply_transforms(self.parts.task.read("train"), self.parts.transforms)

    @cached_property
    def _by_id(self) -> dict[str, Example]:
        return {example.id: example for example in self.examples}

    @cached_property
    def _hash(self) -> str:
        return hash_examples(self.examples)

    def held_out(self, fold: FoldFolder) -> list[Example]:
        """The rows that the fold was scored on, those of its oof.csv, in order.

        Raises UserError when the data does not hold them any more, or is not what the fold was trained on.
        """
        path, where = fold.path / "oof.csv", self.parts.settings.input_dir
        ids = fold.row_ids()
        fix = "give the run's data: input_dir=..."
        if missing := [row for row in ids if row not in self._by_id]:
            raise UserError(f"{where} has no row {missing[0]!r} of {path}; {fix}")
        if not fold.holds(self._hash):
            raise UserError(f"{where} holds other rows than {fold.path} was trained on; {fix}")
        return [self._by_id[row] for row in ids]

    def to_show(self, fold: FoldFolder, examples: Sequence[Example]) -> list[Example]:
        """Those that may be shown solved beside `examples`: the fold's training rows, all where none is held out."""
        held_out = set(fold.row_ids())
        is_of_others = bool(examples) and held_out.isdisjoint(example.id for example in examples)
        return [row for row in self.examples if is_of_others or row.id not in held_out]
