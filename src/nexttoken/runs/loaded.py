"""A trained run whose folds are asked one after the other, their base in memory once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.build import Parts, build, make
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.inference.gate import read_gate
from nexttoken.inference.retrieval.search import Search
from nexttoken.runs.config import config_of
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.training_rows import TrainingRows
from nexttoken.runs.writing import UNCHANGED, Writing
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions, TextPredictions

if TYPE_CHECKING:
    import pandas as pd

    from nexttoken.engine.answerers import Answerer
    from nexttoken.engine.fold_answerers import FoldModels


@dataclass(frozen=True)
class LoadedRun:
    """A trained run that answers questions: each finished fold is asked, and their probabilities are averaged."""

    folder: RunFolder
    folds: list[FoldFolder]
    parts: Parts
    batch_tokens: int
    environment: dict[str, Any] = field(default_factory=dict)  # what seconds depend on, once a fold is loaded
    search_node: dict[str, Any] = field(default_factory=dict)
    writing: Writing = UNCHANGED

    @classmethod
    def load(
        cls,
        folder: RunFolder,
        input_dir: str | None = None,
        batch_tokens: int | None = None,
        base: str | None = None,
        retriever: Mapping[str, Any] | None = None,
        writing: Writing = UNCHANGED,
    ) -> "LoadedRun":
        """Read the run's configuration; nothing of it changes but where things lie, and who searches.

        `input_dir` names other files of the same task, corpora below it included, `base` a folder or hub name of the
        same base model; `retriever` is a `_target_` node that takes the place of the run's own. What only training
        needs is not built. Raises UserError where no fold is finished, the folds were trained with different settings,
        or a retriever is given to a run that does not search.
        """
        folds = folder.finished_folds()
        config = config_of(folds, input_dir, base, retriever, writing)
        search = config.get("search", {})
        parts = build({**config, "train_transforms": {}})  # a way of asking that searches has a search of its own
        if parts.task.classes and not writing.is_none:
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
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(fold.path.name.removeprefix("fold")) for fold in self.folds)

    @property
    def oof_log_loss(self) -> float:
        """Over all out-of-fold rows of the finished folds."""
        saved = [fold.metrics() for fold in self.folds]
        return float(np.average([m["log_loss"] for m in saved], weights=[m["num_examples"] for m in saved]))

    def ask(self, examples: list[Example]) -> LabelPredictions:
        """Average the folds' class probabilities for examples that have been through the run's transforms.

        Folds that have the same model and ask in the same way, as where nothing was trained, are asked once. Seconds
        are those of all folds together, other columns their means.
        """
        models = self._make_models()  # let go with the last fold: a notebook may load another run next
        asked: list[LabelPredictions] = []
        before: Any = None
        for fold in self.folds:
            now = self._kept(self._answerer(models, fold), fold), self.inference(fold)
            asked.append(_at_no_cost(asked[-1]) if now == before else now[1](examples, now[0]))
            before = now
        columns = {name: np.mean([one.columns[name] for one in asked], axis=0) for name in asked[0].columns}
        columns["seconds"] = columns["seconds"] * len(asked)
        return LabelPredictions(asked[0].ids, np.mean([one.probs for one in asked], axis=0), columns)

    def answerer(self, fold: FoldFolder) -> "Answerer":
        """Load the fold's model. What folds have in common stays in memory until `release`.

        One fold at a time: the answerer of another one that was loaded before has lost its model.
        """
        return self._answerer(self._models, fold)

    def release(self) -> None:
        """Give back the memory that `answerer` took."""
        self.__dict__.pop("_models", None)

    def _answerer(self, models: "FoldModels", fold: FoldFolder) -> "Answerer":
        answerer = models.answerer(fold.path)
        self.environment.update(answerer.environment)
        return answerer

    def _kept(self, answerer: Any, fold: FoldFolder) -> Any:
        """The answerer, whose answers are kept where `writing` says: a prediction that is killed goes on from them."""
        from nexttoken.engine.journal import JournalFolder

        answerer.journals = JournalFolder(self.writing.folder, f"{fold.path.resolve()} {fold.mark}")
        return answerer

    @cached_property
    def _models(self) -> "FoldModels":
        return self._make_models()

    def _make_models(self) -> "FoldModels":
        from nexttoken.engine.fold_answerers import FoldModels

        settings = self.parts.settings
        return FoldModels(settings, self.parts.prompt, make(settings.head, "head"), self.batch_tokens)

    def inference(self, fold: FoldFolder, examples: Sequence[Example] = ()) -> Inference:
        """The run's way of asking, with what it learnt in this fold, thresholds chosen since, and solved rows to show.

        These are the fold's training rows; where none of `examples` is held out, as in other files, all rows.
        """
        path = self.folder.path / "gate.json"
        chosen = asdict(read_gate(path)) if path.exists() else {}
        restored = self.parts.inference.restored(fold.state() | chosen)
        return restored.with_pool(self._rows.to_show(fold, examples)) if restored.shows_pool else restored

    @cached_property
    def search(self) -> Search:
        """The run's search, whether its way of asking searches or not; built when it is first wanted."""
        return make(self.search_node, "search")

    @cached_property
    def _rows(self) -> TrainingRows:
        return TrainingRows(self.parts)

    def held_out(self, fold: FoldFolder) -> list[Example]:
        """The rows that the fold was scored on, in order. Raises UserError where the data is not the run's."""
        return self._rows.held_out(fold)

    def predict(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Probabilities for rows in the competition's own format: `id` and one column per class, in order."""
        import pandas as pd

        task = self.parts.task
        if not task.classes:
            raise UserError(f"{self.folder.path} answers in text; use .generate(run.folds[0], examples) for its rows")
        predictions = self.ask(apply_transforms(task.parse(frame), self.parts.transforms))  # type: ignore[union-attr]
        return pd.DataFrame({"id": predictions.ids} | dict(zip(task.classes, predictions.probs.T, strict=True)))

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
        """Write answers with the fold's model. Raises UserError where they cannot be kept (`Writing.write`)."""
        return self.writing.write(fold, self.parts, self.batch_tokens, self.inference(fold, examples), examples)


def load_run(path: str | Path, base: str | None = None, written: str | Path | None = None) -> LoadedRun:
    """Load a run folder for use in a notebook: `load_run("output/lmsys/<name>").predict(test_df)`.

    `written` is a folder that keeps answers while they are given, so that a killed call goes on; None: open ones are
    kept in the run's own, probabilities nowhere.
    """
    writing = Writing(folder=Path(written) if written else None)
    return LoadedRun.load(RunFolder(Path(path)), base=base, writing=writing)


def _at_no_cost(asked: LabelPredictions) -> LabelPredictions:
    return replace(asked, columns={**asked.columns, "seconds": np.zeros_like(asked.columns["seconds"])})
