"""This project's side of the training benchmarks: LoRA with its own batches, module and Lightning's fit."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from benchmarks.predictors import LABELS, encoded, use_one_stream
from benchmarks.sides import Answers
from benchmarks.workload import MatrixRate, Workload
from nexttoken.engine.forward.shortcuts import shortcuts, skipping
from nexttoken.engine.heads import Head, LabelSoftmax, WholeVocabulary
from nexttoken.models import fast_lora
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import load_model
from nexttoken.settings import AdapterSettings, FitSettings, ModelSettings, QuantizationSettings, TrainerSettings
from nexttoken.training.callbacks import Curve
from nexttoken.training.fit import fit
from nexttoken.training.module import AnswerModule
from nexttoken.training.parallel_gradients import Learners, num_learners
from nexttoken.training.steps import Batcher, Course, Step, TrainSteps, learning_rate_factor, make_optimizer

LORA: dict[str, Any] = {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": "all-linear"}  # conf/adapter/lora.yaml
ADAPTER = AdapterSettings(**LORA, rslora=False, dora=False, init="default")
LEARNING_RATE = 2e-4
SEED = 0  # of the order of rows and of the adapter


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ClockedModule(AnswerModule):
    """The project's module with a clock.

    `losses`, `ends`, `real` and `padded` hold, for each step: its loss, the time when the device had finished it, its
    tokens, and its tokens with padding. `begin` is the time of the first step's begin.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begin = 0.0
        self.losses: list[float] = []
        self.ends: list[float] = []
        self.real: list[int] = []
        self.padded: list[int] = []

    def training_step(self, step: Step, index: int) -> None:
        self.begin = self.begin or time.perf_counter()
        super().training_step(step, index)
        synchronize(self.device)
        self.ends.append(time.perf_counter())
        self.losses.append(float(self.trainer.callback_metrics["train_loss"]))
        self.real.append(sum(sum(batch.layout.lengths) for batch in step.batches))
        self.padded.append(sum(batch.layout.token_ids.numel() for batch in step.batches))


class Train:
    """One epoch of `fit` with LoRA over a frozen base: `steps` optimizer steps, each run from the same weights.

    Timed as it is used: dropout, and the softmax over the labels. For comparing (`check`) without dropout, and
    with `head` as the peer computes its loss.
    """

    def __init__(self, workload: Workload, steps: int, batch_tokens: int, check_head: str = "vocabulary") -> None:
        self.workload, self.batch_tokens = workload, batch_tokens
        self.check_head = {"vocabulary": WholeVocabulary(), "label": LabelSoftmax()}[check_head]
        self.rows = encoded(workload)
        constant: dict[str, Any] = {"learning_rate": LEARNING_RATE, "warmup_fraction": 0, "decay": "constant"}
        self.settings = FitSettings(batch_size=workload.rows // steps, **constant)
        base = self.base()
        self.rate = MatrixRate(base)
        self.model = with_adapter(base)
        self.precision = "32-true" if workload.precision == "float32" else "bf16-mixed"
        self.at_once = num_learners(self.model, self.settings, self.precision)
        self.start = trained_weights(self.model)

    def base(self) -> nn.Module:
        return self.workload.model()

    def run(self) -> Answers:
        return self._train(LabelSoftmax())

    def check(self) -> np.ndarray:
        """The loss of each step."""
        with without_dropout(self.model):
            return self._train(self.check_head).values

    def steps(self, head: Head) -> TrainSteps:
        packs = shortcuts(self.model).packs
        batcher = Batcher(head, LABELS, self.batch_tokens, packs=packs, at_once=self.at_once)
        return TrainSteps(self.rows, self.settings.batch_size, SEED, batcher)

    def _train(self, head: Head) -> Answers:
        restore(self.model, self.start)
        steps = self.steps(head)
        module = ClockedModule(self.model, head, LABELS, self.settings, Course(len(steps), SEED, self.at_once))
        options = TrainerSettings(max_epochs=1, accelerator="cpu").model_dump() | {"precision": self.precision}
        with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
            fit(module, steps, [], Path(folder), Curve(Path(folder, "curve.csv")), options | {"logger": []})
        return Answers(np.array(module.losses), module.ends[-1] - module.begin)


class TrainQuantised(Train):
    """The same over a base in NF4, quantised while it is loaded, as a user's is."""

    def base(self) -> nn.Module:
        with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
            disable_progress_bar()
            self.workload.model().save_pretrained(folder)
            vocabulary = range(self.workload.shape.sizes["vocab_size"])  # stands for the tokenizer
            dtype = getattr(torch, self.workload.precision)
            settings = ModelSettings(name_or_path=folder)
            return load_model(settings, vocabulary, self.workload.longest, dtype, QuantizationSettings(bits=4))


class OneStream(Train):
    """The same with one micro-batch after the other, each on all threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        use_one_stream()
        super().__init__(*args, **kwargs)


class PeftLayers(Train):
    """The same with the LoRA layers as peft computes them; our dropout stays."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fast_lora.PLAIN.clear()  # the layers that are replaced
        super().__init__(*args, **kwargs)


class PeftDropout(PeftLayers):
    """The same with torch's dropout, too, and therefore one micro-batch after the other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fast_lora.replace_dropout = lambda adapted: None
        super().__init__(*args, **kwargs)


class BareLoop(Train):
    """The same steps without Lightning: gradients added up, clipped, AdamW, and nothing else."""

    def _train(self, head: Head) -> Answers:
        restore(self.model, self.start)
        steps, losses = self.steps(head), []
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.settings, trained)
        factor = learning_rate_factor(self.settings, len(steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        learners = Learners(self.model, self.at_once)
        begin = time.perf_counter()
        for number, step in enumerate(steps):
            optimizer.zero_grad()
            total = sum(loss.item() for loss in learners.add_up(partial(self._learn, head, step), step.batches, number))
            nn.utils.clip_grad_norm_(trained, self.settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(total)
        return Answers(np.array(losses), time.perf_counter() - begin)

    @staticmethod
    def _learn(head: Head, step: Step, model: nn.Module, batch: Any) -> Tensor:
        with skipping(model, batch.reads), batch.layout.attending(model):
            loss = head.loss(model, batch, LABELS) / step.num_targets
            loss.backward()
        return loss.detach()


def with_adapter(model: nn.Module, num_classes: int | None = None) -> Any:
    """The model with the adapter of conf/adapter/lora.yaml, its matrices the same in each process."""
    torch.manual_seed(SEED)
    return add_adapter(model, ADAPTER, num_classes).train()


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that are trained, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def restore(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """The adapter's dropout switched off; the models have none of their own."""
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.p = 0.0
    yield
    for layer in layers:
        layer.p = ADAPTER.dropout
