"""A finished run loaded to predict: its folds answer one after the other, with the base model in memory once."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.build import Parts, build
from nexttoken.data.files import hash_text
from nexttoken.data.tables_in_memory import ids_as_given
from nexttoken.data.targets import make
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.inference.once import AnsweredOnce
from nexttoken.inference.retrieval.search import Search
from nexttoken.runs.asking import Asking
from nexttoken.runs.calibration import Calibration
from nexttoken.runs.config import Changes, asked_otherwise, changed_config, own_config, run_and_changes
from nexttoken.runs.first_step import with_first_step
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.records import read_gate
from nexttoken.runs.run_rows import RunRows
from nexttoken.runs.seals import KEY, WEIGHTS
from nexttoken.settings import ALL
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions, TextPredictions

if TYPE_CHECKING:
    import pandas as pd

    from nexttoken.engine.answerers import Answerer, FoldModels

UNCHANGED = Changes()


@dataclass(frozen=True)
class LoadedRun:
    """A finished run: `answer` averages the probabilities of its folds, `generate` writes texts with one fold."""

    folder: RunFolder
    folds: list[FoldFolder]
    parts: Parts
    batch_tokens: int
    environment: dict[str, Any] = field(default_factory=dict)  # hardware and versions, once a fold is loaded
    changes: Changes = UNCHANGED
    asked: Mapping[str, Any] = field(default_factory=dict)  # settings other than those it was scored with
    known_scores: Mapping[str, Any] = field(default_factory=dict)  # of a way whose out-of-fold rows no folder has

    @classmethod
    def load(
        cls,
        folder: RunFolder,
        input_dir: str | None = None,
        batch_tokens: int | None = None,
        base: str | None = None,
        changes: Changes = UNCHANGED,
        trust_remote_code: bool = False,
    ) -> "LoadedRun":
        """Build the parts of the run's configuration that prediction needs.

        `input_dir` holds files of the same task, corpora included; `base` is a folder or hub name of the same base
        model. Raises UserError without a finished fold, and as `changed_config` does.
        """
        if changes.fold is None and folder.has_only_final:
            print(f"{folder.path} has no finished fold: its final model predicts, which has no out-of-fold score")
            changes = replace(changes, fold=ALL)
        folder, changes = run_and_changes(folder, changes)
        folds = [folder.final()] if changes.fold == ALL else folder.finished_folds()
        if [fold for fold in folds if KEY not in fold.refuse_altered()]:
            what = "has folds of an earlier version, without a seal: a changed config.yaml or model is not noticed"
            print(f"{folder.path} {what}")
        config = changed_config(folds, input_dir, base, changes, trust_remote_code)
        asked = asked_otherwise(own_config(folds, input_dir), config, changes)
        parts = with_first_step(build(config), lambda run, examples: cls.load(run).answer(examples))
        if parts.task.classes and (changes.generates or changes.fold not in (None, ALL)):
            own = "this run averages its folds' probabilities"
            raise UserError(f"generation, engine and a fold's number are for open answers; {own}, leave them out")
        return cls(folder, folds, parts, batch_tokens or parts.settings.batch_tokens, changes=changes, asked=asked)

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def numbers(self) -> tuple[int | str, ...]:
        return tuple(fold.number for fold in self.folds)

    def fold(self, number: int | str | None) -> FoldFolder:
        """The finished fold of this number; None: the first. Raises UserError where it is not finished."""
        for fold in self.folds:
            if number in (None, fold.number):
                return fold
        raise UserError(f"fold={number} is not finished; finished folds are {', '.join(map(str, self.numbers))}")

    @property
    def answering(self) -> list[FoldFolder]:
        """The folds that answer: all of them, and of open answers, which cannot be averaged, one."""
        return self.folds if self.parts.task.classes else [self.fold(self.changes.fold)]

    def answer(self, examples: list[Example]) -> LabelPredictions:
        """Average the folds' class probabilities for examples that have been through the run's transforms.

        Each fold's are calibrated first, where the run is. Folds with the same model, as where nothing was trained,
        ask it once. `seconds` are sums over the folds; other columns and the threshold are means. A killed
        call resumes where `changes.folder` is given.
        """
        from nexttoken.engine.journal import JournalFolder

        calibration = self.calibration  # read before hours of work, as all weights are
        for fold in self.folds:
            self.refuse_altered_weights(fold)
        predicted: list[LabelPredictions] = []
        once: AnsweredOnce | None = None
        try:
            for fold in self.folds:
                answerer, inference = self.answerer(fold), self.inference(fold)
                if once is None or once.answer is not answerer:
                    once = AnsweredOnce(answerer)
                answerer.journals = JournalFolder(self.changes.folder, fold.training, f"fold {fold.number}: ")
                predicted.append(inference(examples, once))
        finally:
            self.release()  # a notebook may load another run next
        columns = {name: np.mean([one.columns[name] for one in predicted], axis=0) for name in predicted[0].columns}
        columns["seconds"] = columns["seconds"] * len(predicted)
        tables = [one.probs for one in predicted]
        if calibration:
            tables = [*map(calibration.scaling, tables)]
        return LabelPredictions(predicted[0].ids, np.mean(tables, axis=0), columns, self.threshold)

    @property
    def threshold(self) -> float:
        """The probability of the second of two classes above which it is decided for: the folds' mean, calibrated."""
        before = float(np.mean([fold.metrics().get("threshold", 0.5) for fold in self.folds]))
        return self.calibration.threshold(before) if self.calibration else before

    @cached_property
    def calibration(self) -> Calibration | None:
        """That of the way in which the run is asked, fitted on the out-of-fold rows of this way."""
        return Asking.of(self).calibration

    def answerer(self, fold: FoldFolder) -> "Answerer":
        """Load the fold's model; the weights that folds share stay in memory until `release`.

        The answerer of another fold, loaded before, loses its model.
        """
        self.refuse_altered_weights(fold)
        answerer = self._models.answerer(fold.path)
        self.environment.update(answerer.environment)
        return answerer

    def refuse_altered_weights(self, fold: FoldFolder) -> None:
        """Raise UserError where the fold's weights or tokenizer are not those it was scored with; read once."""
        if fold.training not in self._unaltered:
            fold.refuse_altered(WEIGHTS)
            self._unaltered.add(fold.training)

    @cached_property
    def _unaltered(self) -> set[str]:
        return set()

    def release(self) -> None:
        """Free the memory that `answerer` took."""
        self.__dict__.pop("_models", None)

    def share_models(self, other: "LoadedRun") -> bool:
        """Answer with the models that `other` has in memory, where both are one run asked in two ways; else False."""
        one, two = self.parts.settings, other.parts.settings
        is_same = self.numbers == other.numbers and self.fold(None).training == other.fold(None).training
        is_same = is_same and (one.max_tokens, one.prompt) == (two.max_tokens, two.prompt)
        if is_same and "_models" in other.__dict__:
            self.__dict__["_models"] = other._models
        return is_same

    @cached_property
    def _models(self) -> "FoldModels":
        from nexttoken.engine.answerers import FoldModels

        return FoldModels(self.parts.settings, self.parts.prompt, self.parts.make_head(), self.batch_tokens)

    def inference(self, fold: FoldFolder, examples: Sequence[Example] = ()) -> Inference:
        """The run's inference with the fold's state, the thresholds of gate.json and demonstrations to show.

        Another one than the run's own learns from the fold's training rows here, unless `ask` has saved what it learnt.
        Demonstrations are the fold's training examples, or all where none of `examples` is held out, as in test files.
        """
        path, unfitted, way = self.path / "gate.json", self.parts.inference, Asking.of(self).folder.fold(fold.number)
        chosen = asdict(read_gate(path)) if path.exists() else {}
        known = chosen if not way.is_finished or way.is_outdated else way.state() | chosen
        inference = unfitted.restored(unfitted.state() | fold.state() | known)
        if unfitted.state().keys() - known.keys():
            fitted = inference.fitted(*self.rows.to_fit(fold), self.answerer(fold))
            inference = fitted.restored(fitted.state() | chosen)
        if not inference.shows_pool:
            return inference
        return inference.with_pool(self.rows.demonstrations(fold, examples))

    @cached_property
    def search(self) -> Search:
        """The run's search, whether or not its inference uses it."""
        return make(self.parts.settings.search, "search")

    @cached_property
    def rows(self) -> RunRows:
        """The rows of the run's training file."""
        return RunRows(self.folder, self.parts)

    def held_out(self, fold: FoldFolder) -> list[Example]:
        """The examples that the fold was scored on, as `RunRows.held_out` gives them."""
        return self.rows.held_out(fold)

    def predict(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Predict rows in the competition's own format; returns `id`, as given, and probabilities per class."""
        import pandas as pd

        task = self.parts.task
        if not task.classes:
            raise UserError(f"{self.path} answers in text; use .generate(run.folds[0], examples) for its rows")
        rows = frame if hasattr(frame, "to_dict") else list(frame)
        examples = task.parse(rows)  # type: ignore[attr-defined]
        predictions = self.answer(apply_transforms(examples, self.parts.transforms))
        place = {example.id: number for number, example in enumerate(examples)}
        ids = ids_as_given(rows, list(place), getattr(task, "id", None)).array[[place[one] for one in predictions.ids]]
        return pd.DataFrame({"id": ids} | dict(zip(task.classes, predictions.probs.T, strict=True)))

    def generate(
        self, fold: FoldFolder, examples: list[Example], seen: Callable[[Any], None] | None = None
    ) -> TextPredictions:
        """Generate answers with the fold's model; a killed call resumes from those it saved.

        `seen` is called with each `GeneratedText` as soon as it is there.

        Raises UserError where the fold's folder is read-only, as on Kaggle, and no other one was given.
        """
        settings, engine = self.parts.settings, dict(self.changes.engine)
        if not self.changes.folder and not os.access(fold.path, os.W_OK):
            raise UserError(f"{fold.path} is read-only: answers need another folder; load_run(..., written='written')")
        identity = json.dumps([fold.training, settings.generation.model_dump(), settings.inference, engine])
        journal = (self.changes.folder or fold.path / "written") / f"{hash_text(identity)[:16]}.jsonl"
        self.refuse_altered_weights(fold)
        load, head = make(engine, "engine"), self.parts.make_head()
        writer = load(fold.path, settings, self.parts.prompt, head, self.batch_tokens)
        inference = self.inference(fold, examples)
        given = (settings.generation, journal, fold.training, *([seen] if seen else []))
        return inference(examples, lambda views: writer.write(views, *given))
