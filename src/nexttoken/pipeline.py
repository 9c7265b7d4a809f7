"""The spine, readable top to bottom: read, transform, split, fit, ask, score, save; and read, ask, average, submit."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from nexttoken import metrics
from nexttoken.console import show_config
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.ledger import record
from nexttoken.prompts import Prompt
from nexttoken.report.tables import fold_table
from nexttoken.runs import FoldFolder, RunFolder, default_name, describe_differences, latest_run
from nexttoken.settings import PredictSettings, Settings, check_settings
from nexttoken.splits import Folds, GroupedStratified, save_folds
from nexttoken.transforms import Transform, apply_transforms
from nexttoken.types import Example, LabelPredictions, Split, Task

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED_ROWS = (
    50_000  # the competition's own training file has about 57 thousand rows; nothing else of its format is near
)


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built: none of it has imported torch yet."""

    settings: Settings
    task: Task
    prompt: Prompt
    split: GroupedStratified
    transforms: dict[str, Transform]
    train_transforms: dict[str, Transform]
    inference: Inference


@dataclass(frozen=True)
class Rows:
    """The examples of one fold: `train` moves the weights, `dev` chooses among them, `held_out` is scored once."""

    train: list[Example]
    dev: list[Example]
    held_out: list[Example]


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> float:
    """Train one fold, score it out of fold, save it, and return its log loss (what a sweep minimises)."""
    start = time.monotonic()
    parts, config = prepare(cfg, overrides)
    run = RunFolder(Path(parts.settings.output_dir) / parts.task.name / str(parts.settings.name))
    fold = run.fold(parts.settings.fold)
    if fold.is_finished and not parts.settings.overwrite:
        return report_finished(fold, config)
    show_config(config)
    examples = read(parts, "train")
    folds = split(parts, examples)
    fold.claim(config, parts.settings.overwrite)
    save_folds(folds, run.path / "folds.csv")
    rows = choose_rows(parts, examples, folds)
    references = score_references(parts, rows)
    predictions, measured = fit_and_ask(parts, rows, fold)
    scores = score(predictions, rows.held_out)
    fold.save_oof(predictions, labels_of(rows.held_out), parts.settings.fold, parts.task.classes)
    fold.save_metrics(
        describe(parts, examples, rows) | scores | references | measured | {"seconds": time.monotonic() - start}
    )
    return report_finished(fold, config)


def predict(cfg: DictConfig) -> Path:
    """Average a run's folds over the test rows and write a validated submission; return its path."""
    settings = check_settings(PredictSettings, plain(cfg))
    run = LoadedRun.load(
        RunFolder(Path(settings.run)) if settings.run else latest_run(Path(settings.output_dir)), settings
    )
    print(f"predict: {run.folder.path}, folds {' '.join(map(str, run.numbers))}")
    predictions = run.ask(read(run.parts, "test"))
    path = Path(settings.submissions_dir) / f"{settings.name or run.folder.path.resolve().name}.csv"
    run.parts.task.write(predictions, path)
    record(path, str(run.folder.path), run.numbers, run.oof_log_loss)
    print(f"submission: {path}, {len(predictions.ids)} rows, validated")
    return path


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Parts, dict[str, Any]]:
    """Check the configuration, name the run, build its parts; return them with the configuration to save."""
    config = plain(cfg)
    config["name"] = config["name"] or default_name(config["input_dir"], overrides)
    return build(config), config


def plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def build(config: Mapping[str, Any]) -> Parts:
    """Instantiate the parts of a checked configuration. Raises UserError for anything that does not fit together."""
    settings = check_settings(Settings, dict(config))
    names = ("task", "prompt", "split", "transforms", "train_transforms", "inference")
    parts = Parts(settings, **{name: make(getattr(settings, name), name) for name in names})
    if len(parts.prompt.labels) != len(parts.task.classes):
        raise UserError(
            f"prompt.labels={list(parts.prompt.labels)} do not match the task's classes {list(parts.task.classes)}"
        )
    return parts


def make(node: dict[str, Any], name: str) -> Any:
    """Build a `_target_` node, or each node of a mapping of them; a key that its class does not know is one line."""
    from hydra.errors import InstantiationException

    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        raise (
            error.__cause__
            if isinstance(error.__cause__, UserError)
            else UserError(f"{name}: {error.__cause__ or error}")
        ) from None


def read(parts: Parts, split: Split) -> list[Example]:
    return apply_transforms(parts.task.read(split), parts.transforms)


def split(parts: Parts, examples: list[Example]) -> Folds:
    """Assign folds by the rows' texts and labels: the same for every model."""
    texts = [parts.task.group_text(example) for example in examples]
    return parts.split.folds([example.id for example in examples], texts, labels_of(examples))


def choose_rows(parts: Parts, examples: list[Example], folds: Folds) -> Rows:
    """The fold's held-out rows, and the others parted into train and dev; `limit_rows` keeps the first of each."""
    held_out = folds.folds == parts.settings.fold
    training = np.flatnonzero(~held_out)
    labels = labels_of(examples)
    is_dev = parts.split.dev(labels[training], folds.groups[training])
    chosen = (training[~is_dev], training[is_dev], np.flatnonzero(held_out))
    return Rows(*([examples[index] for index in part[: parts.settings.limit_rows]] for part in chosen))


def labels_of(examples: Sequence[Example]) -> np.ndarray:
    return np.array([example.label for example in examples], dtype=np.int64)


def fit_and_ask(parts: Parts, rows: Rows, fold: FoldFolder) -> tuple[LabelPredictions, dict[str, Any]]:
    """Train, then ask the held-out questions once; return their probabilities and what was measured on the way."""
    from nexttoken.models.learn import learn, peak_memory_mb

    loggers = [instantiate(node, save_dir=str(fold.path), _convert_="all") for node in parts.settings.logger.values()]
    train_rows = apply_transforms(rows.train, parts.train_transforms)
    answerer, measured = learn(parts.settings, parts.prompt, train_rows, rows.dev, fold.path, loggers)
    start = time.monotonic()
    predictions = parts.inference(rows.held_out, answerer)
    seconds = time.monotonic() - start
    if parts.settings.save_prompts:
        fold.save_prompts(answerer.prompts, answerer.labels)
    speed = {"rows_per_second": len(rows.held_out) / seconds, "peak_memory_mb": peak_memory_mb()}
    return predictions, measured | answerer.counts | speed


def score(predictions: LabelPredictions, examples: Sequence[Example]) -> dict[str, float]:
    labels = labels_of(examples)
    return {metric.name: metric.score(predictions.probs, labels) for metric in metrics.METRICS}


def score_references(parts: Parts, rows: Rows) -> dict[str, float | None]:
    """What the model has to beat, fitted on the fold's training rows and scored on the same held-out rows."""
    seen, labels = [*rows.train, *rows.dev], labels_of(rows.held_out)
    truth = parts.task.truth()
    known = all(example.id in truth for example in rows.held_out)
    baseline = parts.task.baseline().fit(seen).predict(rows.held_out)
    return {
        "uniform_log_loss": metrics.uniform_log_loss(len(parts.task.classes)),
        "prior_log_loss": metrics.prior_log_loss(labels_of(seen), labels, len(parts.task.classes)),
        "baseline_log_loss": metrics.log_loss(baseline, labels),
        "best_possible_log_loss": metrics.log_loss(np.array([truth[e.id] for e in rows.held_out]), labels)
        if known
        else None,
    }


def describe(parts: Parts, examples: Sequence[Example], rows: Rows) -> dict[str, Any]:
    settings = parts.settings
    return {
        "task": parts.task.name,
        "dataset": Path(settings.input_dir).resolve().name,
        "is_published_data": len(examples) > PUBLISHED_ROWS,
        "fold": settings.fold,
        "trained": settings.trainer["max_epochs"] > 0,
        "num_examples": len(rows.held_out),
    }


def report_finished(fold: FoldFolder, config: Mapping[str, Any]) -> float:
    """Print a finished fold's table; the same command again prints it again instead of training over it."""
    if differences := describe_differences(fold.config(), config):
        raise UserError(
            f"{fold.path} is finished with other settings ({differences}); choose another name=... or overwrite=true"
        )
    saved = fold.metrics()
    print(fold_table(saved))
    print(f"run: {fold.path}")
    return saved["log_loss"]


@dataclass(frozen=True)
class LoadedRun:
    """A trained run that answers questions: each finished fold is asked, and their probabilities are averaged."""

    folder: RunFolder
    folds: list[FoldFolder]
    parts: Parts
    batch_tokens: int

    @classmethod
    def load(cls, folder: RunFolder, settings: PredictSettings) -> "LoadedRun":
        folds = folder.finished_folds()
        config = folds[0].config()
        if settings.input_dir:
            config = {
                **config,
                "input_dir": settings.input_dir,
                "task": {**config["task"], "input_dir": settings.input_dir},
            }
        parts = build(config)
        return cls(folder, folds, parts, settings.batch_tokens or parts.settings.batch_tokens)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(fold.path.name.removeprefix("fold")) for fold in self.folds)

    @property
    def oof_log_loss(self) -> float:
        """Over all out-of-fold rows of the finished folds."""
        saved = [fold.metrics() for fold in self.folds]
        return float(np.average([m["log_loss"] for m in saved], weights=[m["num_examples"] for m in saved]))

    def ask(self, examples: list[Example]) -> LabelPredictions:
        """Average the folds' class probabilities for examples that have been through the run's transforms."""
        from nexttoken.models.folder import load_answerer

        settings, asked = self.parts.settings, []
        for fold in self.folds:
            answerer = load_answerer(
                fold.path, settings.model, self.parts.prompt, settings.max_tokens, self.batch_tokens
            )
            asked.append(self.parts.inference(examples, answerer))
        return LabelPredictions(asked[0].ids, np.mean([one.probs for one in asked], axis=0))

    def predict(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Probabilities for rows in the competition's own format: `id` and one column per class, in order."""
        import pandas as pd

        predictions = self.ask(apply_transforms(self.parts.task.parse(frame), self.parts.transforms))
        return pd.DataFrame(
            {"id": predictions.ids} | dict(zip(self.parts.task.classes, predictions.probs.T, strict=True))
        )


def load_run(path: str | Path) -> LoadedRun:
    """Load a run folder for use in a notebook: `load_run("output/lmsys/<name>").predict(test_df)`."""
    nothing = PredictSettings(run=None, input_dir=None, output_dir="", submissions_dir="", name=None, batch_tokens=None)
    return LoadedRun.load(RunFolder(Path(path)), nothing)
