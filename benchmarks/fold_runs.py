"""Runs whose folds are untrained LoRA adapters on one base, and two ways to predict with them in one process."""

import csv
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.sides import Answers, Work
from benchmarks.workload import Workload
from samples.preferences import TEXTS, WINNERS, write_csv

SAMPLE = Path(__file__).resolve().parents[1] / "input" / "sample-preferences"
FOLDS = range(5)
ORDERS = ("straight", "swapped")
SWAPPED = [1, 0, 2]  # classes of a swapped pair


@dataclass(frozen=True)
class Runs:
    """Paths of the run of five folds, of five runs of one fold each, and of the test rows in both orders."""

    folder: Path

    @property
    def together(self) -> Path:
        return self.folder / "output" / "lmsys" / "folds"

    def alone(self, fold: int) -> Path:
        return self.folder / "output" / "lmsys" / f"fold{fold}"

    def input_dir(self, order: str) -> Path:
        return self.folder / order


def make_runs(folder: Path, workload: Workload) -> Runs:
    """Write base, adapters (random ones, through the project's own saving), run folders and data."""
    from nexttoken.models.saved import save_whole
    from nexttoken.models.scratch import learn_bpe
    from nexttoken.settings import ScratchSettings

    runs, words = Runs(folder), _words()
    _write_rows(runs, words, workload.lengths)
    scratch = ScratchSettings(vocab_size=workload.shape.sizes["vocab_size"])
    base = folder / "base"
    save_whole(base, workload.model(), learn_bpe(scratch, [" ".join(words)]))
    config = {order: _config(runs, base, order) for order in ("once", "swap_averaged")}
    for number in FOLDS:
        fold = runs.together / f"fold{number}"
        _save_fold(fold, config["swap_averaged"], number)
        shutil.copytree(fold, runs.alone(number) / "fold0")
        _claim(runs.alone(number) / "fold0", config["once"])
    return runs


def average(probs: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 3) mean of a list that has each fold's probabilities straight, then swapped."""
    turned = [one if place % 2 == 0 else one[:, SWAPPED] for place, one in enumerate(probs)]
    return np.mean(turned, axis=0)


def _words() -> list[str]:
    with (SAMPLE / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [word for row in rows for name in ("response_a", "response_b") for word in json.loads(row[name])[0].split()]


def _write_rows(runs: Runs, words: Sequence[str], lengths: Sequence[int]) -> None:
    """Pairs of answers; each answer has about 2/5 of its row's tokens."""
    rng = np.random.default_rng(0)
    pairs = [[" ".join(rng.choice(words, max(2 * length // 5, 1)).tolist()) for _ in ORDERS] for length in lengths]
    for order in ORDERS:
        folder = runs.input_dir(order)
        folder.mkdir(parents=True)
        shutil.copy(SAMPLE / "train.csv", folder)
        answers = [pair if order == "straight" else pair[::-1] for pair in pairs]
        texts = ([json.dumps([text]) for text in ("Which one?", *pair)] for pair in answers)
        write_csv(folder / "test.csv", ("id", *TEXTS), [(row_id, *row) for row_id, row in enumerate(texts, 1000)])
        probs = [(row_id, *["0.333333"] * 3) for row_id in range(1000, 1000 + len(pairs))]
        write_csv(folder / "sample_submission.csv", ("id", *WINNERS), probs)


def _config(runs: Runs, base: Path, inference: str) -> dict[str, Any]:
    from nexttoken.build import prepare
    from nexttoken.commands.entry import compose

    places = [f"model.name_or_path={base}", f"input_dir={runs.input_dir('straight')}", f"output_dir={runs.folder}"]
    settings = ["adapter=lora", "fit=finetune", "max_tokens=2048", "batch_tokens=1024", "name=folds"]
    _, config = prepare(compose("train", [*places, *settings, f"inference={inference}"]), [])
    return config


def _claim(fold: Path, config: dict[str, Any]) -> None:
    from nexttoken.runs.folder import FoldFolder

    FoldFolder(fold).claim(config, "")
    FoldFolder(fold).save_metrics({"log_loss": 1.0, "num_examples": 1})


def _save_fold(fold: Path, config: dict[str, Any], seed: int) -> None:
    """Save a fold as training does, with a random adapter that changes the probabilities."""
    import torch

    from nexttoken.build import build
    from nexttoken.models.adapters import add_adapter
    from nexttoken.models.load import load_model, load_tokenizer
    from nexttoken.models.saved import save_labels, save_trained
    from nexttoken.prompts.encode_labels import Encoder

    parts = build(config)
    settings = parts.settings
    tokenizer = load_tokenizer(settings.model, ())
    model = load_model(settings.model, tokenizer, settings.max_tokens, torch.float32)
    assert settings.adapter is not None
    torch.manual_seed(seed)
    model = add_adapter(model, settings.adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    fold.mkdir(parents=True)
    _claim(fold, config)
    save_trained(fold, settings, model, tokenizer)
    labels = Encoder(tokenizer, parts.prompt, settings.max_tokens).encode(parts.task.read("test")).labels
    save_labels(fold / "labels.json", labels)


class Predictor(Work):
    """A way of predicting everything, models loaded again each time; counts the loads of a base and their time."""

    def __init__(self, folder: Path) -> None:
        from nexttoken.models import fold_weights as weights  # noqa: F401  (imported before the clock runs)

        self.runs = Runs(folder)
        self.loads, self.seconds = 0, 0.0

    def run(self) -> Answers:
        from nexttoken.engine.answerers import FoldModels
        from nexttoken.models import fold_weights as weights

        self.loads, self.seconds = 0, 0.0
        load_model, answerer = weights.load_model, FoldModels.answerer

        def counted(*given: Any, **options: Any) -> Any:
            self.loads += 1
            return load_model(*given, **options)

        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            made = answerer(*given)
            self.seconds += time.perf_counter() - start
            return made

        with patch.object(weights, "load_model", counted), patch.object(FoldModels, "answerer", timed):
            return Answers(self.predict())

    def loaded(self) -> tuple[int, float]:
        """The number of times that the last run loaded a base, and the seconds that loading all folds took."""
        return self.loads, self.seconds

    def predict(self) -> np.ndarray:
        raise NotImplementedError


class Together(Predictor):
    """The run of five folds, predicted in both orders at once."""

    def predict(self) -> np.ndarray:
        return _predict(self.runs.together, self.runs.input_dir("straight"))


class Separately(Predictor):
    """Ten runs, one after the other."""

    def predict(self) -> np.ndarray:
        places = [(self.runs.alone(fold), self.runs.input_dir(order)) for fold in FOLDS for order in ORDERS]
        return average([_predict(*place) for place in places])


def _predict(run: Path, input_dir: Path) -> np.ndarray:
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.loaded import LoadedRun

    loaded = LoadedRun.load(RunFolder(run), str(input_dir))
    return loaded.answer(loaded.parts.task.read("test")).probs
