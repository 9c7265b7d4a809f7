"""A finished run that answers questions again: for predict.py and for a notebook."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nexttoken.answers import Texts
from nexttoken.errors import UserError
from nexttoken.gating.gate import read_gate
from nexttoken.inference import Inference
from nexttoken.parts import Parts, build, make
from nexttoken.retrieval.saved import with_input_dir, with_retriever
from nexttoken.retrieval.search import Search
from nexttoken.runs import FoldFolder, RunFolder, describe_differences, hash_examples, hash_text
from nexttoken.settings import PredictSettings
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions, TextPredictions

if TYPE_CHECKING:
    from nexttoken.models.answering import Answerer


TRANSFORMERS = {"_target_": "nexttoken.models.engines.transformers", "_partial_": True}


@dataclass(frozen=True)
class Writing:
    """What of a run may change where its answers are open: how they are asked for and written, and by which fold."""

    inference: Mapping[str, Any] = field(default_factory=dict)  # a `_target_` node; empty: the run's own
    generation: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    fold: int | None = None  # None: the first finished one
    folder: Path | None = None  # of what is written already; None: in the fold's own, which may be read-only
    engine: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMERS)

    @classmethod
    def of(cls, settings: PredictSettings) -> "Writing":
        changed = {key: value for key, value in settings.generation.items() if value is not None}
        folder = Path(settings.submissions_dir) / "written"
        return cls(settings.inference, changed, settings.fold, folder, settings.engine)


@dataclass(frozen=True)
class LoadedRun:
    """A trained run that answers questions: each finished fold is asked, and their probabilities are averaged."""

    folder: RunFolder
    folds: list[FoldFolder]
    parts: Parts
    batch_tokens: int
    environment: dict[str, Any] = field(default_factory=dict)  # what seconds depend on, once a fold is loaded
    search_node: dict[str, Any] = field(default_factory=dict)
    writing: Writing = Writing()

    @classmethod
    def load(
        cls,
        folder: RunFolder,
        input_dir: str | None = None,
        batch_tokens: int | None = None,
        base: str | None = None,
        retriever: Mapping[str, Any] | None = None,
        writing: Writing = Writing(),
    ) -> "LoadedRun":
        """Read the run's configuration; nothing of it changes but where things lie, and who searches.

        `input_dir` names other files of the same task, corpora below it included, `base` a folder or hub name of the
        same base model; `retriever` is a `_target_` node that takes the place of the run's own. What only training
        needs is not built. Raises UserError where no fold is finished, the folds were trained with different settings,
        or a retriever is given to a run that does not search.
        """
        folds = folder.finished_folds()
        config = folds[0].config()
        for other in folds[1:]:
            if differences := describe_differences(config, other.config()):
                raise UserError(
                    f"{other.path} differs from {folds[0].path} ({differences}); train it with the same settings"
                )
        if input_dir:
            config = with_input_dir(config, input_dir)
        if writing.inference:
            config = {**config, "inference": dict(writing.inference)}
        if retriever:
            config = with_retriever(config, retriever)
        config = {**config, "generation": {**config.get("generation", {}), **writing.generation}}
        if base:
            config = {**config, "model": {**config["model"], "name_or_path": base, "revision": None}}
        search = config.get("search", {})
        parts = build({**config, "train_transforms": {}})  # a way of asking that searches has a search of its own
        if parts.task.classes and writing != Writing(folder=writing.folder):
            raise UserError(
                "inference, generation, engine and fold are for open answers; this run's probabilities are those of its"
                " own way of asking, averaged over its folds: train with another one"
            )
        tokens = batch_tokens or parts.settings.batch_tokens
        return cls(folder, folds, parts, tokens, search_node=search, writing=writing)

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def writing_fold(self) -> FoldFolder:
        """The fold whose model writes open answers. Raises UserError where that one is not finished."""
        if self.writing.fold is None:
            return self.folds[0]
        if self.writing.fold not in self.numbers:
            finished = ", ".join(map(str, self.numbers))
            raise UserError(f"fold={self.writing.fold} is not finished; finished folds are {finished}")
        return self.folds[self.numbers.index(self.writing.fold)]

    def generate(self, fold: FoldFolder, examples: list[Example]) -> TextPredictions:
        """Write answers with the fold's model; a killed call goes on where it stopped.

        Raises UserError where the run's folder is read-only, as on Kaggle, and no other one was given to `load_run`.
        """
        folder = self.writing.folder or fold.path / "written"
        if not self.writing.folder and not os.access(fold.path, os.W_OK):
            raise UserError(
                f"{fold.path} is read-only, so answers cannot be kept there; load_run(..., written='written')"
            )
        inference = self.inference(fold, examples)
        settings = self.parts.settings.generation
        made_by = f"{fold.path.resolve()} {fold.mark}"
        asked = [made_by, settings.model_dump(), self.parts.settings.inference, dict(self.writing.engine)]
        name = hash_text(json.dumps(asked))[:16]
        engine, head = make(dict(self.writing.engine), "engine"), make(self.parts.settings.head, "head")
        writer = engine(fold.path, self.parts.settings, self.parts.prompt, head, self.batch_tokens)
        return inference(examples, lambda views: writer.write(views, settings, folder / f"{name}.jsonl", made_by))

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(fold.path.name.removeprefix("fold")) for fold in self.folds)

    @property
    def oof_log_loss(self) -> float:
        """Over all out-of-fold rows of the finished folds."""
        saved = [fold.metrics() for fold in self.folds]
        return float(np.average([m["log_loss"] for m in saved], weights=[m["num_examples"] for m in saved]))

    def ask(self, examples: list[Example]) -> LabelPredictions:
        """Average the folds' class probabilities for examples that have been through the run's transforms.

        Seconds are those of all folds together, other columns their means.
        """
        asked = []
        for fold in self.folds:
            answerer = self.answerer(fold)
            asked.append(self.inference(fold)(examples, answerer))
            del answerer  # before the next fold's model is loaded
        columns = {name: np.mean([one.columns[name] for one in asked], axis=0) for name in asked[0].columns}
        columns["seconds"] = columns["seconds"] * len(asked)
        return LabelPredictions(asked[0].ids, np.mean([one.probs for one in asked], axis=0), columns)

    def answerer(self, fold: FoldFolder) -> "Answerer":
        """Load the fold's model."""
        from nexttoken.models.folder import load_answerer

        settings, head = self.parts.settings, make(self.parts.settings.head, "head")
        answerer = load_answerer(fold.path, settings, self.parts.prompt, head, self.batch_tokens)
        self.environment.update(answerer.environment)
        return answerer

    def inference(self, fold: FoldFolder, examples: Sequence[Example] = ()) -> Inference:
        """The run's way of asking, with what it learnt in this fold, thresholds chosen since, and solved rows to show.

        These are the fold's training rows; where none of `examples` is held out, as in other files, all rows.
        """
        path = self.folder.path / "gate.json"
        chosen = asdict(read_gate(path)) if path.exists() else {}
        restored = self.parts.inference.restored(fold.state() | chosen)
        if not restored.shows_pool:
            return restored
        held_out = set(fold.row_ids())
        is_of_others = bool(examples) and held_out.isdisjoint(example.id for example in examples)
        return restored.with_pool([row for row in self._training if is_of_others or row.id not in held_out])

    @cached_property
    def search(self) -> Search:
        """The run's search, whether its way of asking searches or not; built when it is first wanted."""
        return make(self.search_node, "search")

    @cached_property
    def _training_rows(self) -> dict[str, Example]:
        return {example.id: example for example in self._training}

    @cached_property
    def _training(self) -> list[Example]:
        return apply_transforms(self.parts.task.read("train"), self.parts.transforms)

    @cached_property
    def _training_hash(self) -> str:
        return hash_examples(self._training)

    def held_out(self, fold: FoldFolder) -> list[Example]:
        """The rows that the fold was scored on, those of its oof.csv, in order.

        Raises UserError when the data does not hold them any more, or is not what the fold was trained on.
        """
        path, where = fold.path / "oof.csv", self.parts.settings.input_dir
        ids = fold.row_ids()
        fix = "give the run's data: input_dir=..."
        if missing := [row for row in ids if row not in self._training_rows]:
            raise UserError(f"{where} has no row {missing[0]!r} of {path}; {fix}")
        if not fold.holds(self._training_hash):
            raise UserError(f"{where} holds other rows than {fold.path} was trained on; {fix}")
        return [self._training_rows[row] for row in ids]

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Probabilities for rows in the competition's own format: `id` and one column per class, in order."""
        task = self.parts.task
        if isinstance(self.parts.answers, Texts):
            raise UserError(f"{self.folder.path} answers in text; use .generate(run.folds[0], examples) for its rows")
        predictions = self.ask(apply_transforms(task.parse(frame), self.parts.transforms))  # type: ignore[union-attr]
        return pd.DataFrame({"id": predictions.ids} | dict(zip(task.classes, predictions.probs.T, strict=True)))


def load_run(path: str | Path, base: str | None = None, written: str | Path | None = None) -> LoadedRun:
    """Load a run folder for use in a notebook: `load_run("output/lmsys/<name>").predict(test_df)`.

    `written` is a folder that keeps open answers while they are written; None: one in the run's own.
    """
    writing = Writing(folder=Path(written) if written else None)
    return LoadedRun.load(RunFolder(Path(path)), base=base, writing=writing)
