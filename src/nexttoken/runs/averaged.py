"""A run made of others: the mean of their adapters, scored on the held-out rows where it has not learnt them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.files import to_yaml
from nexttoken.data.folds import load_folds, save_folds
from nexttoken.data.whole_files import whole_folder
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_loss
from nexttoken.models.adapter_averages import SavedAdapter, read_adapters, save_average
from nexttoken.runs.answer_set import Labels, without_scores
from nexttoken.runs.fold_rows import labels_of
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.out_of_fold import answers_out_of_fold, row_key
from nexttoken.runs.seals import RECORDS, WEIGHTS
from nexttoken.settings import ALL

# Settings that decide how a model is asked, and which rows are held out; parts may differ in all others.
SHARED = ("task", "prompt", "head", "max_tokens", "transforms", "inference", "candidates", "split", "model")
COPIED = ("data.sha256", "labels.json", "budget.json", "inference.json")


@dataclass(frozen=True)
class AveragedRun:
    """The folds to average, the new run's folder, and the number of the fold; None for an average of all folds."""

    parts: Sequence[FoldFolder]
    out: Path
    number: int | None
    adapters: Sequence[SavedAdapter]

    @classmethod
    def of(cls, parts: Sequence[FoldFolder], out: Path, number: int | None) -> "AveragedRun":
        """Raises UserError for altered folds, and for parts that are asked differently, or that cannot be averaged."""
        for part in parts:
            part.refuse_altered((*RECORDS, *WEIGHTS))
        first, *others = [{key: part.config().get(key) for key in SHARED} for part in parts]
        for part, other in zip(parts[1:], others, strict=True):
            if differences := describe_differences(first, other):
                raise UserError(f"{part.path} is asked in another way than {parts[0].path} ({differences})")
            if part.state() != parts[0].state():
                raise UserError(f"{part.path}: its inference has learnt other values than {parts[0].path}'s")
            if number is not None and part.held_out_ids() != parts[0].held_out_ids():
                raise UserError(f"{part.path} has held out other rows than {parts[0].path}; use the same folds")
        return cls(parts, out, number, read_adapters([part.path / "adapter" for part in parts]))

    def save(self, rank: int | None, input_dir: str | None, base: str | None, trusts: bool) -> list[str]:
        """Write the run folder; return lines on it: the rank, and the scores where there are any."""
        source = self.parts[0]
        loaded = LoadedRun.load(RunFolder(source.path.parent), input_dir, base=base, trust_remote_code=trusts)
        table = source.path.parent / "folds.csv"
        with whole_folder(self.out) as run:
            fold = RunFolder(run).fold(ALL if self.number is None else self.number)
            folder = fold.path
            (folder / "adapter").mkdir(parents=True)
            rank = save_average(self.adapters, folder / "adapter", rank)
            for name in COPIED:
                if (source.path / name).exists():
                    shutil.copyfile(source.path / name, folder / name)
            config = source.config()
            adapter = config["adapter"] | {"r": rank, "alpha": rank, "rslora": False}
            fold.config_path.write_text(to_yaml(config | {"adapter": adapter, "name": self.out.name}), encoding="utf-8")
            metrics, lines = self._measure(fold, loaded, adapter)
            fold.save_metrics(metrics)
            save_folds(load_folds(table), run / "folds.csv")
        return [f"average of {len(self.parts)} adapters, rank {rank}", *lines]

    def _measure(
        self, fold: FoldFolder, loaded: LoadedRun, adapter: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        saved = self.parts[0].metrics()
        metrics = without_scores(saved, has_references=self.number is not None)
        metrics["averaged"] = [part.training for part in self.parts]
        if self.number is None:
            return metrics | {"fold": ALL}, ["it has learnt every row, so that it has no out-of-fold score"]
        from nexttoken.engine.answerers import FoldModels

        examples, task = loaded.held_out(self.parts[0]), loaded.parts.task
        changed = loaded.parts.settings.adapter.model_copy(update=adapter)  # type: ignore[union-attr]
        settings = loaded.parts.settings.model_copy(update={"adapter": changed})
        head = loaded.parts.make_head()
        answerer = FoldModels(settings, loaded.parts.prompt, head, loaded.batch_tokens).answerer(fold.path)
        predictions: Any = loaded.inference(self.parts[0], examples)(examples, answerer)
        answers: Any = Labels()
        answers.save(fold, self.number, task, predictions, examples)
        metrics |= answers.score(task, predictions, examples) | answerer.environment
        return metrics, self._compared(task, examples, metrics["log_loss"])

    def _compared(self, task: Any, examples: Sequence[Any], own: float) -> list[str]:
        """The log losses of the parts, of the mean of their probabilities, and of the averaged adapter."""
        keys, labels, all_probs = [row_key(example) for example in examples], labels_of(examples), []
        for part in self.parts:
            answers = answers_out_of_fold(RunFolder(part.path.parent), task.classes, "average")
            all_probs.append(np.array([answers[key].probs for key in keys]))
        lines = [
            f"{part.path}: log loss {log_loss(p, labels):.4f}" for part, p in zip(self.parts, all_probs, strict=True)
        ]
        mean = log_loss(np.mean(all_probs, axis=0), labels)
        return [*lines, f"mean of their probabilities: {mean:.4f}", f"averaged adapter: {own:.4f}"]
