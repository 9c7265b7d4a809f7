"""The rows of a finished run's training file: held out in a fold, shown as demonstrations, and learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nexttoken.build import Parts
from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError
from nexttoken.runs.fold_rows import choose_rows, with_solved_examples
from nexttoken.runs.folder import FoldFolder, RunFolder, hash_examples
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example


@dataclass(frozen=True)
class RunRows:
    """The examples of all folds of a run, after its transforms; the file is read at the first use."""

    folder: RunFolder
    parts: Parts

    @cached_property
    def _data(self) -> tuple[dict[str, Example], str]:
        """The examples by id, and their hash."""
        examples = apply_transforms(self.parts.task.read("train"), self.parts.transforms)
        return {example.id: example for example in examples}, hash_examples(examples)

    def held_out(self, fold: FoldFolder) -> list[Example]:
        """The examples that the fold was scored on, in the order of its oof.csv.

        Raises UserError where the data lacks one or is other data, and of a final model, which holds none out.
        """
        if fold.is_final:
            raise UserError(
                f"{fold.path} was trained on all rows, none is held out; train a fold: python train.py fold=0"
            )
        ids = fold.held_out_ids()
        if missing := [one for one in ids if one not in self._data[0]]:
            input_dir, fix = self.parts.settings.input_dir, "give the run's data: input_dir=..."
            raise UserError(f"{input_dir} has no row {missing[0]!r} of {fold.path / 'oof.csv'}; {fix}")
        by_id = self._of(fold)
        return [by_id[one] for one in ids]

    def demonstrations(self, fold: FoldFolder, examples: Sequence[Example]) -> list[Example]:
        """The fold's training examples, or all where none of `examples` is held out, as in test files."""
        by_id, ids = self._data[0], set(fold.held_out_ids())
        held_out = {(by_id[one].tags.get("file"), one) for one in ids & by_id.keys()}
        are_new = bool(examples) and held_out.isdisjoint((one.tags.get("file"), one.id) for one in examples)
        return [example for row_id, example in by_id.items() if are_new or row_id not in ids]

    def to_fit(self, fold: FoldFolder) -> tuple[list[Example], list[Example]]:
        """The training and dev examples that another inference may learn from, as a fold trained with it has them.

        No dev example is left where the weights have learnt them all. Raises UserError for other data.
        """
        examples, settings = list(self._of(fold).values()), self.parts.settings
        parts = replace(self.parts, settings=settings.model_copy(update={"fold": fold.number}))
        rows = choose_rows(parts, examples, load_folds(self.folder.path / "folds.csv"))
        if settings.test_examples:
            with without_remarks():
                test = apply_transforms(parts.task.read("test"), parts.transforms)
                rows = with_solved_examples(rows, parts.task, test, settings.limit_rows)
        is_learnt = settings.trainer.max_epochs > 0 and settings.fit.refit
        return rows.train, [] if is_learnt else rows.dev

    def _of(self, fold: FoldFolder) -> dict[str, Example]:
        """The examples by id. Raises UserError where they are not those that the fold was trained on."""
        by_id, data_hash = self._data
        if not fold.has_rows(data_hash):
            what = f"{self.parts.settings.input_dir} holds other rows than {fold.path} was trained on"
            raise UserError(f"{what}; give the run's data: input_dir=...")
        return by_id
